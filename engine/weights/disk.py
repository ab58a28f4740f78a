"""The folder of fetched models: room in it, one pull at a time, and what the system refuses."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Generator
from pathlib import Path

from filelock import FileLock, Timeout

from engine.errors import ModelError
from engine.models import MODELS_VARIABLE

_ELSEWHERE = f"set {MODELS_VARIABLE} to a folder of yours"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def check_room(models: Path, needed: int) -> None:
    """Raises ModelError before anything is loaded that would not fit. needed: bytes."""
    free = shutil.disk_usage(models).free
    if free < needed:
        raise ModelError(
            f"{models} has {mb(free)} free, and {mb(needed)} are needed: make room, or set "
            f"{MODELS_VARIABLE} to a folder on another disk"
        )


@contextlib.contextmanager
def writing(models: Path) -> Generator[None]:
    """Around whatever writes into the folder of models: what the system refuses, in one line."""
    try:
        models.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        why = error.strerror or str(error)
        what = "make room and run it again; what was loaded is kept"
        advice = what if error.errno in _FULL else _ELSEWHERE
        raise ModelError(f"can't write to {models} ({why}): {advice}") from error


@contextlib.contextmanager
def alone(models: Path) -> Generator[None]:
    """Holds a lock, which ends with the process: two at once would write into the same files."""
    lock = FileLock(models / ".pull.lock", fallback_to_soft=False)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise ModelError(f"another pull is at work in {models}: wait for it to end") from error
    except NotImplementedError as error:
        raise ModelError(f"{models} has no locks: {_ELSEWHERE}") from error
    try:
        yield
    finally:
        lock.release()


def mb(size: int) -> str:
    """A number of bytes as a user reads it."""
    return f"{size / 1e6:.0f} MB" if size < 10**9 else f"{size / 1e9:.1f} GB"
