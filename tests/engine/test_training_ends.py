"""Whatever ends a run for real, a kill, Ctrl-C or a full disk, the same command goes on with it."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file
from training_runs import save_base, write_corpus

from engine.training.checkpoint import load_state
from engine.training.journal import read_records
from engine.weights.loader import load_model, pick_device

pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus, and a small checkpoint to begin with in base/model."""
    folder = tmp_path_factory.mktemp("ends")
    save_base(write_corpus(folder))
    return folder


def start(
    base: Path, out: Path, *words: str, before: Callable[[], None] | None = None
) -> subprocess.Popen[str]:
    """The command, saving after every step."""
    command = [sys.executable, "-m", "engine.training.train", "--data", str(base)]
    command += ["--start-from", str(base / "base" / "model"), "--out", str(out)]
    command += ["--windows", "2", "--context", "64", "--canvas", "24", "--save-every", "1e-9"]
    config = out.with_suffix(".toml")
    config.write_text("[run]\nvalidation = 1\n[step]\ncanvases = 4\n")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [*command, str(config), *words],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
        preexec_fn=before,  # noqa: PLW1509 (no thread of this process holds a lock then)
    )


def wait_for_step(out: Path, step: int, process: subprocess.Popen[str]) -> None:
    """Until the log has a step, or the process has ended."""
    while process.poll() is None:
        records = read_records(out / "log.jsonl")
        if records and records[-1]["step"] >= step:
            return
        time.sleep(0.01)
    raise AssertionError(f"it ended: {process.stderr and process.stderr.read()}")


def check_whole(out: Path) -> int:
    """Loads all that a run left; returns the step of its state."""
    state = load_state(out)
    assert state is not None
    load_model(out / "model", pick_device("cpu"), state.tensors["masters.norm.weight"].dtype)
    assert (out / "loss.svg").read_text().rstrip().endswith("</svg>")
    return state.steps


def test_a_killed_run_goes_on_from_what_it_saved_last(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    reached = 0
    for pause in (0.0, 0.07):
        process = start(base, out, "--steps", "100000")
        wait_for_step(out, reached + 5, process)
        time.sleep(pause)  # so that it dies at different places of its work
        process.kill()
        process.communicate()
        before, reached = reached, check_whole(out)
        assert reached > before
    process = start(base, out, "--steps", str(reached + 2))
    _, said = process.communicate()
    assert process.returncode == 0, said
    assert check_whole(out) == reached + 2
    steps = [r["step"] for r in read_records(out / "log.jsonl") if "rate" in r]
    assert steps == list(range(1, reached + 3))


@pytest.mark.parametrize("processes", ["1", "2"])
def test_ctrl_c_saves_and_says_how_to_go_on(base: Path, tmp_path: Path, processes: str) -> None:
    out = tmp_path / "run"
    words = ("--steps", "100000", "--processes", processes, "--save-every", "1000")
    process = start(base, out, *words)
    wait_for_step(out, 3, process)
    os.killpg(process.pid, signal.SIGINT)
    assert process.stderr is not None
    # At once, before anything else: a step can take long.
    assert process.stderr.readline() == "finishing the step, then saving\n"
    _, said = process.communicate()
    assert process.returncode == 130, said
    assert "same command" in said
    assert check_whole(out) >= 3


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="/proc lists the children")
@pytest.mark.parametrize("pause", [0.0, 2.0])
def test_ctrl_c_while_a_team_begins(base: Path, tmp_path: Path, pause: float) -> None:
    process = start(base, tmp_path / "run", "--steps", "100000", "--processes", "2")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while process.poll() is None and not any(map(_is_a_member, children.read_text().split())):
        time.sleep(0.01)
    time.sleep(pause)  # so that it comes at different places of its beginning
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130, said
    assert "Traceback" not in said


def _is_a_member(pid: str) -> bool:
    try:
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def test_a_full_disk_leaves_the_last_good_state(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start(base, out, "--steps", "2")
    process.communicate()
    assert check_whole(out) == 2
    kept = {f: f.read_bytes() for f in out.rglob("*") if f.suffix == ".safetensors"}

    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    process = start(base, out, "--steps", "9", before=little_room)
    _, said = process.communicate()
    assert process.returncode == 2
    last = said.rstrip().splitlines()[-1]
    assert last.startswith("diffgemma-lsp: can't save to")
    assert "what was saved before is intact" in last
    assert "Traceback" not in said
    assert {f: f.read_bytes() for f in out.rglob("*") if f.suffix == ".safetensors"} == kept
    assert not list(out.rglob("*.part"))
    assert load_file(out / "state.safetensors")
