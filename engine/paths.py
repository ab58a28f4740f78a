"""Where the engine service lives, and which one it is: names, versions, the private directory.

The service and its clients agree through this file alone. Imports nothing heavy.

    <runtime directory>/engine-<hash>.sock        the socket, mode 0600
    <runtime directory>/engine-<hash>.sock.lock   held by the service for its whole life; its pid
    <runtime directory>/engine-<hash>.log         its stderr, mode 0600

The hash stands for the model and its files, the device, and the code: two models are two services,
and so are two checkouts, two versions, and what there was before an upgrade and is after it. A
service that nobody's hash stands for any more idles out. The lock is the truth: whoever holds it is
the service, and a socket without a holder is a leftover.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import EngineUnavailable
from engine.identity import CODE
from engine.models import local_model, weights_of

if TYPE_CHECKING:
    from filelock import BaseFileLock

PROTOCOL = 6
"""Goes up when a client of the old wire format could misunderstand a service of the new one."""

VERSION_HEADER = "x-engine-version"
"""Sent with each request as `identity()`; a service of another protocol answers 409."""

RUNTIME_DIR_VARIABLE = "DIFFGEMMA_LSP_RUNTIME_DIR"

NO_WINDOWS = "does not run on Windows itself: install and start it in WSL"

_NAME = "diffgemma-lsp"
_LONGEST_SOCKET_PATH = 103  # bytes: macOS has 104 with the closing NUL, Linux a few more


@dataclass(frozen=True, slots=True)
class EnginePaths:
    """The files of one service."""

    socket: Path

    @property
    def lock(self) -> Path:
        return self.socket.with_name(self.socket.name + ".lock")

    @property
    def log(self) -> Path:
        return self.socket.with_suffix(".log")

    @property
    def holder(self) -> str:
        """The pid that the service wrote into its lock; empty if there is none."""
        try:
            return self.lock.read_text().strip()
        except OSError:
            return ""


@cache
def package_version() -> str:
    """The version of the package that runs here, whatever is installed by now; that of an
    uninstalled checkout is all zeros."""
    try:
        return installed_version(_NAME)
    except PackageNotFoundError:
        return "0.0.0"


def identity() -> str:
    """What a client and a service say of themselves: protocol and package version. To talk they
    must have the protocol in common."""
    return f"{PROTOCOL}/{package_version()}"


def speaks_ours(theirs: str) -> bool:
    """Whether another one's `identity` is of the same protocol."""
    return theirs.partition("/")[0] == str(PROTOCOL)


def replaced(engine: str) -> str:
    """What is told where a program meets an engine of another protocol: it can only be that the
    package was replaced since the program began."""
    return (
        f"diffgemma-lsp was replaced while this program ran (it is {identity()}, the engine "
        f"{engine}): restart the editor"
    )


def engine_paths(
    model: str | None = None,
    device: str | None = None,
    runtime_dir: Path | None = None,
    replica: int = 0,
) -> EnginePaths:
    """The files of the service for this model and device, for this user. Creates nothing.

    replica: its number, where several services have the same model and device.
    runtime_dir: comes before the variable DIFFGEMMA_LSP_RUNTIME_DIR, which comes before the
        system's runtime directory, if that is this user's. A directory too long for a socket gives
        way to a short one under the system's temporary directory.
    Raises EngineUnavailable where there are no Unix sockets, or no place for one.
    """
    require_unix_sockets()
    wanted = runtime_dir or _runtime_dir()
    model = local_model(model)
    key = "\0".join((identity(), CODE, model or "", weights_of(model), device or ""))
    key += f"\0{replica}" if replica else ""
    socket = wanted.absolute() / f"engine-{_short_hash(key)}.sock"
    if _fits(socket):
        return EnginePaths(socket)
    # The wanted directory goes into the hash, so that two of them do not become one here.
    name = f"engine-{_short_hash(key + str(wanted))}.sock"
    candidates = [_temporary_dir(), _temporary_dir(Path("/tmp"))]
    fitting = [folder / name for folder in candidates if _fits(folder / name)]
    if not fitting:
        raise EngineUnavailable(f"{socket} is too long for a socket: set {RUNTIME_DIR_VARIABLE}")
    return EnginePaths(fitting[0])


def running_engines(runtime_dir: Path | None = None) -> list[EnginePaths]:
    """The services of this user that live, whatever their models. runtime_dir: of `engine_paths`.

    Raises EngineUnavailable where there are no Unix sockets, or others may enter their directory.
    """
    folder = engine_paths(runtime_dir=runtime_dir).socket.parent
    if not folder.exists():
        return []
    make_private(folder)
    locks = sorted(folder.glob("engine-*.sock.lock"))
    return [EnginePaths(lock.with_suffix("")) for lock in locks if lock_is_held(lock)]


def make_private(directory: Path) -> None:
    """Creates the directory with mode 0700, or makes sure that it is this user's alone.

    Raises EngineUnavailable if it belongs to someone else, others may enter it, or it can't be
    made: a socket in it would let others read what is being edited.
    """
    require_unix_sockets()
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir(mode=0o700, exist_ok=True)
        found = directory.lstat()
    except OSError as error:
        raise EngineUnavailable(
            f"{directory} can't be made ({error.strerror}): set {RUNTIME_DIR_VARIABLE} to a folder "
            "of yours"
        ) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise EngineUnavailable(
            f"{directory} is not a directory of yours: remove it or set {RUNTIME_DIR_VARIABLE}"
        )
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise EngineUnavailable(
            f"others can enter {directory}: chmod 700 it or set {RUNTIME_DIR_VARIABLE}"
        )


def lock_is_held(lock: Path) -> bool:
    """Whether a service lives. Takes the lock for a moment, which a starting service sits out.

    Raises EngineUnavailable where there are no Unix sockets, or no locks.
    """
    require_unix_sockets()
    if not lock.exists():
        return False
    handle = file_lock(lock)
    if not take(handle):
        return True
    handle.release()
    return False


def file_lock(lock: Path) -> BaseFileLock:
    """The lock in a file of that name, not yet taken; the file stays, mode 0600."""
    from filelock import FileLock  # when it is needed: few clients need one

    return FileLock(lock, mode=0o600, thread_local=False, fallback_to_soft=False)


def take(lock: BaseFileLock, patience_s: float = 0.0) -> bool:
    """Takes a lock; False if another process has it for so long.

    Raises EngineUnavailable if its file can't be locked, as on some network drives.
    """
    from filelock import Timeout

    try:
        lock.acquire(timeout=patience_s, poll_interval=0.01)
    except Timeout:
        return False
    except (OSError, NotImplementedError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise EngineUnavailable(
            f"{lock.lock_file} can't be locked ({reason}): set {RUNTIME_DIR_VARIABLE} to a folder "
            "on a disk of this machine"
        ) from error
    return True


def require_unix_sockets() -> None:
    """Raises EngineUnavailable where the service can't run."""
    if sys.platform == "win32":
        raise EngineUnavailable(NO_WINDOWS)


def _runtime_dir() -> Path:
    chosen = os.environ.get(RUNTIME_DIR_VARIABLE)
    if chosen:
        return Path(os.path.expanduser(chosen))
    if sys.platform == "darwin":
        import platformdirs

        return platformdirs.user_runtime_path(_NAME, appauthor=False)
    of_login = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    return Path(of_login) / _NAME if _is_own(of_login) else _temporary_dir()


def _is_own(folder: str) -> bool:
    """Whether it is there and this user's: after su, in a container or after a logout it is not."""
    try:
        found = os.stat(folder)
    except (OSError, ValueError):
        return False
    own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    return own and os.access(folder, os.W_OK | os.X_OK)


def _temporary_dir(parent: Path | None = None) -> Path:
    # Directly below the sticky temporary directory, so that nobody else can move it away.
    try:
        parent = parent or Path(tempfile.gettempdir())
    except OSError as error:
        raise EngineUnavailable(
            f"there is no temporary directory to write to: set {RUNTIME_DIR_VARIABLE} to a folder "
            "of yours"
        ) from error
    return parent / f"{_NAME}-{os.geteuid()}"


def _fits(socket: Path) -> bool:
    return len(os.fsencode(socket)) <= _LONGEST_SOCKET_PATH


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:10]
