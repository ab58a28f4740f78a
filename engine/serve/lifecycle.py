"""The life of the service's process: its lock, its socket, its log, its memory, its end."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.paths import file_lock, make_private, take
from engine.serve.scheduler import Scheduler

if TYPE_CHECKING:
    from filelock import BaseFileLock

log = logging.getLogger(__name__)

_LOCK_PATIENCE_S = 0.3
_LONGEST_LOG = 1 << 20  # bytes

FAILED_EXIT_S = 30.0
"""So long without work a service stays whose model can't be loaded: whoever waits for the loading
hears how it ended, and who asks again and again does not start a process each time."""

REPLACED_EXIT_S = 60.0
"""So long without work a service stays whose code or model was replaced on disk: whoever asks next
gets what is there by then."""


def take_lock(lock: Path) -> BaseFileLock | None:
    """Takes the lock for the life of this process; None if another service has it.

    Returns what holds it. Raises EngineUnavailable if the directory is not private, or has no
    locks.
    """
    make_private(lock.parent)
    held = file_lock(lock)
    # A client that looks whether the lock is held holds it for a moment itself.
    if not take(held, _LOCK_PATIENCE_S):
        return None
    lock.write_text(f"{os.getpid()}\n")
    return held


@dataclass(frozen=True, slots=True)
class Listener:
    """The listening socket and its file. Only the holder of the lock may make one."""

    socket: socket.socket
    path: Path
    inode: int

    @classmethod
    def open(cls, path: Path) -> Listener:
        """Listens at `path` (mode 0600) in place of whatever a dead service left there."""
        path.unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        usual = os.umask(0o177)
        try:
            listening.bind(str(path))
        finally:
            os.umask(usual)
        listening.listen(128)
        listening.setblocking(False)
        return cls(listening, path, path.stat().st_ino)

    def reachable(self) -> bool:
        """Whether the file is still ours; without it no client finds the service."""
        try:
            return self.path.stat().st_ino == self.inode
        except OSError:
            return False

    def remove(self) -> None:
        """Takes the file away, so that nobody connects any more."""
        if self.reachable():
            self.path.unlink(missing_ok=True)


def shorten_log() -> None:
    """Empties the log that stderr goes to if it has grown long. A short one keeps its past."""
    found = os.fstat(sys.stderr.fileno())
    if stat.S_ISREG(found.st_mode) and found.st_size > _LONGEST_LOG:
        os.ftruncate(sys.stderr.fileno(), 0)


def memory_bytes() -> int:
    """Resident memory of this process; the most it ever had where the system tells no more."""
    try:
        resident_pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
    return resident_pages * os.sysconf("SC_PAGE_SIZE")


async def watch_idleness(
    scheduler: Scheduler,
    listener: Listener,
    unload_after_s: float,
    exit_after_s: float,
    stop: Callable[[], None],
) -> None:
    """Unloads the model and stops the service after so many seconds without work; a service that
    has no model, since it can't be loaded, after FAILED_EXIT_S."""
    failed_after_s = min(exit_after_s, FAILED_EXIT_S)
    pause = min(1.0, max(0.02, min(unload_after_s, failed_after_s) / 5))
    while True:
        await asyncio.sleep(pause)
        now = scheduler.snapshot()
        lost = not listener.reachable() and not now.jobs
        failed = now.state == "unloaded" and now.last_error is not None
        if now.idle_s >= (failed_after_s if failed else exit_after_s) or lost:
            stop()
            return
        if now.state == "ready" and now.idle_s >= unload_after_s:
            scheduler.unload()


async def watch_replacement(
    scheduler: Scheduler, on_disk: Callable[[], str], stop: Callable[[], None]
) -> None:
    """Stops the service when it is out of date and idle.

    on_disk: the fingerprint of what it runs, as it is now.
    """
    began = on_disk()
    while True:
        await asyncio.sleep(REPLACED_EXIT_S / 2)
        if scheduler.snapshot().idle_s >= REPLACED_EXIT_S and on_disk() != began:
            log.info("what it runs was replaced on disk")
            stop()
            return
