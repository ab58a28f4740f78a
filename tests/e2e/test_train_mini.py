"""`diffgemma-lsp train` of a model with an adapter: as with nano, by the same words."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from adapter_runs import VOCAB, tiny_model, write_base, write_texts
from safetensors.torch import load_file, save_file

from engine.models import MODELS_VARIABLE, SOURCE, read_base
from engine.training.checkpoint import load_state
from engine.training.journal import read_records
from engine.weights.dense import adapter_state
from engine.weights.families import family_of

pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder like mini's in the package; its base is in tmp_path/models."""
    base, folder = write_base(tmp_path / "models" / "tiny"), tmp_path / "own"
    folder.mkdir()
    files = {path.name: path.stat().st_size for path in base.iterdir()}
    about = replace(read_base("mini"), folder=base.name)
    (base / SOURCE).write_text(json.dumps({"sha256": about.sha256, "files": files}))
    (folder / "base.json").write_text(json.dumps(asdict(about)))
    (folder / "infill.json").write_bytes((base / "infill.json").read_bytes())
    new = tiny_model(base)
    values = {name: tensor.detach() for name, tensor in new.trained.items()}
    save_file(adapter_state(new.adapter(values)), folder / "adapter.safetensors")
    return folder


def start(tmp_path: Path, *words: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_DATA_HOME": str(tmp_path / "home")}
    environment |= {"PYTHONPATH": str(ROOT), MODELS_VARIABLE: str(tmp_path / "models")}
    command = [sys.executable, "-m", "diffgemma_lsp", "train", *words]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )


def test_a_folder_tunes_the_adapter(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    for source in sorted((ROOT / "engine").glob("e*.py")):
        (folder / source.name).write_bytes(source.read_bytes())
    words = ("--folder", str(folder), "--model", str(model), "--steps", "2", "--device", "cpu")
    process = start(tmp_path, *words, "--minutes", "60")
    said, told = process.communicate()
    assert process.returncode == 0, told
    assert "files to train on" in told
    assert "behind a mask" in told
    made = Path(said.split("--model ")[1].strip())
    assert sorted(path.name for path in made.iterdir()) == [
        "adapter.safetensors",
        "base.json",
        "infill.json",
    ]
    before, after = (load_file(each / "adapter.safetensors") for each in (model, made))
    assert {n: t.shape for n, t in before.items()} == {n: t.shape for n, t in after.items()}
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path / "models"))
    backbone = family_of(made).load_model(made, torch.device("cpu"), torch.float32)
    assert backbone.logits(backbone.embed(torch.tensor([5]))).shape == (1, VOCAB + 1)

    process = start(tmp_path, *words, "--full")
    _, told = process.communicate()
    assert process.returncode == 2
    assert "leave --full and --rank out" in told
    assert len(told.splitlines()) == 1


def test_processes_meet_now_and_then_and_go_on_after_a_kill(model: Path, tmp_path: Path) -> None:
    config, out = tmp_path / "small.toml", tmp_path / "run"
    config.write_text(
        f"""
        [run]
        validation = 1
        average_every = 0.2
        processes = 2
        device = "cpu"
        save_every = 1e-9
        [data]
        kind = "infill"
        [model]
        start_from = "{model}"
        [step]
        windows = 1
        context = 80
        canvases = 3
        canvas = 32
        """
    )
    texts = write_texts(tmp_path / "texts")
    words = (str(config), "--data", str(texts), "--out", str(out))
    process = start(tmp_path, *words, "--steps", "100000")
    wait_for_step(out, 4, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    state = load_state(out)
    assert state is not None
    last = read_records(out / "log.jsonl")[-1]["step"]  # which may not have been saved

    process = start(tmp_path, *words, "--steps", "100000")
    wait_for_step(out, last + 2, process)
    os.killpg(process.pid, signal.SIGINT)
    said, told = process.communicate()
    assert process.returncode == 130, told
    assert "same command" in told
    stopped = load_state(out)
    assert stopped is not None
    assert stopped.steps >= last + 2 > state.steps

    process = start(tmp_path, *words, "--steps", str(stopped.steps + 2))
    said, told = process.communicate()
    assert process.returncode == 0, told
    assert "use it" in said
    steps = [record["step"] for record in read_records(out / "log.jsonl")]
    assert steps == sorted(steps), "nothing is told twice"


def wait_for_step(out: Path, step: int, process: subprocess.Popen[str]) -> None:
    """Until the log has a step; the process must not end before."""
    while process.poll() is None:
        records = read_records(out / "log.jsonl")
        if records and records[-1]["step"] >= step:
            return
        time.sleep(0.01)
    raise AssertionError(f"it ended: {process.stderr and process.stderr.read()}")
