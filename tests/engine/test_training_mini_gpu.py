"""What a GPU machine without a network does, rehearsed on the CPU with a toy base and corpus."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from adapter_runs import write_texts
from base_servers import base_for
from tiny_gguf import random_model, tokens, write

from engine.errors import TrainingError
from engine.models import MODELS_VARIABLE
from engine.training import mini_gpu
from engine.training.adapter import load_adapter_model
from engine.training.adapter_run import AdapterRun
from engine.training.journal import Record, read_records
from engine.weights.gguf import convert


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder as engine/weights/mini, with its base beside it."""
    folder = tmp_path / "mini"
    folder.mkdir()
    write(tmp_path / "base.gguf", random_model("llama", tied=True))
    (folder / "base.json").write_text(json.dumps(asdict(base_for(tmp_path / "base.gguf"))))
    profile = {"name": "toy", "slack": "<|end|>", "mask": "<|mask|>", "blanks": True, "suffix": 24}
    profile["extra"] = ["<|end|>", "<|mask|>"]
    (folder / "infill.json").write_text(json.dumps(profile))
    # The adapter that it goes on from.
    convert(tmp_path / "base.gguf", tmp_path / "whole")
    (tmp_path / "whole" / "infill.json").write_text(json.dumps(profile))
    new = load_adapter_model(
        tmp_path / "whole", torch.device("cpu"), torch.float32, 4, 2.0, 0, fresh=True
    )
    from safetensors.torch import save_file

    from engine.weights.dense import adapter_state

    values = {name: tensor.detach() for name, tensor in new.trained.items()}
    save_file(adapter_state(new.adapter(values)), folder / "adapter.safetensors")
    return folder


def test_it_goes_there_in_parts_and_comes_back_as_an_adapter(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MODELS_VARIABLE, "")  # which it sets, and is to be as it was behind this
    parcel, out = tmp_path / "parcel", tmp_path / "out"
    data = str(write_texts(tmp_path / "texts"))
    words = ["--base", str(tmp_path / "base.gguf"), "--data", data, "--model", str(model)]
    assert mini_gpu.main(["prepare", *words, "--out", str(parcel), "--mib", "0.15"]) == 0
    folders = sorted(path.name for path in parcel.iterdir())
    assert folders[:2] == ["base-0", "base-1"]
    assert folders[-1] == "rest"
    for folder in parcel.iterdir():
        assert sum(path.stat().st_size for path in folder.iterdir()) < 0.16 * mini_gpu.MIB

    config = tmp_path / "toy.toml"
    config.write_text(
        """
        [run]
        validation = 1
        [data]
        kind = "infill"
        [step]
        context = 64
        canvases = 3
        canvas = 60
        """
    )
    words = [str(parcel), "--out", str(out), "--config", str(config), "--device", "cpu"]
    words += ["--steps", "3", "--minutes", "5", "--windows", "2", "--workers", "1"]
    assert mini_gpu.main(["train", *words]) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "adapter.safetensors",
        "log.jsonl",
        "loss.svg",
        "sums.json",
    ]
    assert read_records(out / "log.jsonl")[-1]["step"] == 3
    sums = json.loads((out / "sums.json").read_text())
    assert sums["adapter.safetensors"] == mini_gpu.sha256(out / "adapter.safetensors")
    assert len(tokens()) > 200
    # What was trained is small, and says what it is built on.
    left = sorted(path.name for path in (parcel / "run" / "model").iterdir())
    assert left == ["adapter.safetensors", "base.json", "infill.json"]
    # The same command goes on with it.
    words[words.index("--steps") + 1] = "4"
    assert mini_gpu.main(["train", *words]) == 0
    assert read_records(out / "log.jsonl")[-1]["step"] == 4


def test_each_save_is_there_to_be_taken_when_it_is_ended(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MODELS_VARIABLE, "")
    parcel, out = tmp_path / "parcel", tmp_path / "out"
    data = str(write_texts(tmp_path / "texts"))
    words = ["--base", str(tmp_path / "base.gguf"), "--data", data, "--model", str(model)]
    assert mini_gpu.main(["prepare", *words, "--out", str(parcel)]) == 0
    config = tmp_path / "toy.toml"
    config.write_text(
        '[run]\nvalidation = 1\nsteps = 9\n[data]\nkind = "infill"\n'
        "[step]\ncontext = 64\ncanvases = 3\ncanvas = 60\n"
    )
    make, seen = AdapterRun.step, []

    def ended(self: AdapterRun) -> Record:
        if self.steps == 2:
            raise KeyboardInterrupt  # as hard an end as a test can bring about
        seen.append(sorted(path.name for path in out.iterdir()) if out.is_dir() else [])
        record = make(self)
        self.minutes += 3  # so that a save is due
        return record

    monkeypatch.setattr(AdapterRun, "step", ended)
    words = [str(parcel), "--out", str(out), "--config", str(config), "--device", "cpu"]
    assert mini_gpu.main(["train", *words, "--windows", "1", "--workers", "0"]) == 130
    taken = ["adapter.safetensors", "log.jsonl", "loss.svg", "sums.json"]
    assert seen == [[], taken]
    assert sorted(path.name for path in out.iterdir()) == taken
    assert read_records(out / "log.jsonl")[-1]["step"] == 2


def test_a_part_that_is_missing_or_broken_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(range(256)) * 10)
    parts = mini_gpu.split(tmp_path / "file", tmp_path / "parcel", 1000)
    assert [(part / "part").stat().st_size for part in parts] == [1000, 1000, 560]
    mini_gpu.join(tmp_path / "parcel", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "file").read_bytes()
    (parts[1] / "part").write_bytes(b"something else")
    with pytest.raises(TrainingError, match="base-1 is missing or broken"):
        mini_gpu.join(tmp_path / "parcel", tmp_path / "again")


@pytest.mark.parametrize("spare", [range(0), range(0, 7), range(10, 900), range(999, 2560)])
@pytest.mark.parametrize("most", [100, 1000, 9999])
def test_bytes_that_nobody_reads_do_not_travel(tmp_path: Path, spare: range, most: int) -> None:
    data = bytes(range(1, 256)) * 10 + bytes(range(10))
    (tmp_path / "file").write_bytes(data)
    parts = mini_gpu.split(tmp_path / "file", tmp_path / "parcel", most, spare)
    sizes = [(part / "part").stat().st_size for part in parts]
    assert sum(sizes) == len(data) - len(spare)
    assert set(sizes[:-1]) <= {most}
    assert sizes[-1] <= most
    mini_gpu.join(tmp_path / "parcel", tmp_path / "again")
    blank = data[: spare.start] + bytes(len(spare)) + data[spare.stop :] if spare else data
    assert (tmp_path / "again").read_bytes() == blank


def test_another_base_is_refused(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other.gguf").write_bytes(b"GGUF")
    words = ["--base", str(tmp_path / "other.gguf"), "--data", str(tmp_path), "--model", str(model)]
    assert mini_gpu.main(["prepare", *words, "--out", str(tmp_path / "parcel")]) == 2
    assert "its sha256 is another one" in capsys.readouterr().err


def test_what_is_too_large_for_one_file_comes_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mini_gpu, "LARGEST", 10)
    (tmp_path / "in").write_bytes(bytes(range(25)))
    (tmp_path / "log").write_bytes(b"short")
    mini_gpu._take([tmp_path / "in", tmp_path / "log"], tmp_path / "out")
    pieces = [(tmp_path / "out" / f"in.{number}").read_bytes() for number in range(3)]
    assert b"".join(pieces) == bytes(range(25))
    names = ["in.0", "in.1", "in.2", "log", "sums.json"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
