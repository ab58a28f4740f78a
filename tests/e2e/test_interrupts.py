"""Ctrl-C at any moment of a command: the exit code 130, and no traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine.program import INTERRUPTED

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60.0


def interrupted(words: list[str], after: int) -> tuple[int, str, int]:
    """Presses Ctrl-C when so many modules were read: the exit code, what was said, and how many
    modules had been read by the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "diffgemma_lsp", *words],
        # Has each module named on stderr as soon as it is read, in a child, too.
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONPROFILEIMPORTTIME": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    said: list[str] = []
    read = 0
    begun = False
    try:
        for line in process.stderr:
            if not line.startswith("import time:"):
                said.append(line)
                continue
            begun = begun or line.rstrip().endswith("diffgemma_lsp.cli") or "argparse" in line
            read += begun
            if read == after:
                read += 1
                os.killpg(process.pid, signal.SIGINT)
        return process.wait(PATIENCE_S), "".join(said), read
    finally:
        if process.poll() is None:
            process.kill()


@pytest.mark.parametrize(
    "words",
    [
        ["doctor"],
        ["engine", "status"],
        ["--stdio"],
        ["fill", "-", "--at", "1:1", "--model", "nowhere/at-all"],
        ["eval", "holes", "--out", "/nowhere/x.json"],
        ["train", "--folder", "/nowhere"],
        ["pull", "mini", "--from", "/nowhere"],
    ],
    ids=lambda words: words[0],
)
def test_ctrl_c_at_any_moment(words: list[str], tmp_path: Path) -> None:
    stopped = 0
    for after in (1, 30, 120, 400, 1_000):
        code, said, read = interrupted(words, after)
        if read <= after:
            break  # it was over before
        stopped += 1
        assert code == INTERRUPTED, (after, said)
        assert "Traceback" not in said
        assert "KeyboardInterrupt" not in said
    assert stopped >= 2
