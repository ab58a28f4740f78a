"""Where the engine service lives, and which one it is: names, versions, the private directory; and
where models lie that were fetched.

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
import json
import os
import stat
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.bases import Base, load_base
from engine.errors import EngineUnavailable, ModelError
from engine.identity import CODE, weights_on_disk
from engine.known import NAMES, folder_name

if TYPE_CHECKING:
    from filelock import BaseFileLock

WEIGHTS = Path(__file__).resolve().parent / "weights"

SHIPPED = ("nano", "sudoku", "mini")
"""The models that come with the package, by name; the first is whole in it. `./nano` is a
folder."""

BEST = "mini"
"""The one to use when nothing is said, wherever its base has been fetched."""

PROTOCOL = 6
"""Goes up when a client of the old wire format could misunderstand a service of the new one."""

VERSION_HEADER = "x-engine-version"
"""Sent with each request as `identity()`; a service of another protocol answers 409."""

RUNTIME_DIR_VARIABLE = "DIFFGEMMA_LSP_RUNTIME_DIR"

NO_WINDOWS = "does not run on Windows itself: install and start it in WSL"

MODELS_VARIABLE = "DIFFGEMMA_MODELS"
"""Names the folder for models that were fetched, in place of the one in the user's data."""

SOURCE = "source.json"
"""Beside the weights of what was fetched: where they come from, and how long each file is, in
bytes."""

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


def local_model(model: str | None, here: Path | None = None) -> str | None:
    """The model as the service shall get it: a folder that exists as an absolute path, None for the
    one that is whole in the package. Without a name it is `default_model`.

    A name of the hub stays as it is, unless that model was pulled. here: where relative paths
    begin. Without it there are none: an editor starts its server in the folder that it opens, where
    one could be called like a model of the hub.
    """
    model = default_model() if model is None else model
    if model == SHIPPED[0]:
        return None
    folder = WEIGHTS / model if model in SHIPPED else Path(os.path.expanduser(model))
    if here is not None and model not in NAMES:
        folder = here / folder
    if folder.is_absolute() and folder.exists():
        return str(folder.resolve())
    return str(found.resolve()) if (found := pulled(model)) else model


def weights_of(model: str | None) -> str:
    """The fingerprint of the files of a model, as `local_model` gives it, and of its base."""
    folder = WEIGHTS / SHIPPED[0] if model is None else Path(model)
    # What a training run leaves is a folder with the model in it.
    folders = [folder, folder / "model"] if folder.is_absolute() else []
    try:
        bases = [base_of(each) for each in folders if (each / "base.json").is_file()]
    except ModelError:
        bases = []
    return weights_on_disk([*folders, *bases])


def default_model() -> str:
    """The model to use when nothing is said: the best one that is here."""
    trained = (WEIGHTS / BEST / "adapter.safetensors").is_file()
    return BEST if trained and base_folder(BEST) is not None else SHIPPED[0]


def languages_of(model: str | None) -> tuple[str, ...] | None:
    """The languages that a model has learned, as far as its files say so; None where they don't.

    model: as an editor's settings name it.
    """
    local = local_model(model)
    folder = WEIGHTS / SHIPPED[0] if local is None else Path(local)
    # What a training run leaves is a folder with the model in it.
    for place in (folder, folder / "model") if folder.is_absolute() else ():
        try:
            said = json.loads((place / "infill.json").read_text(encoding="utf-8"))["languages"]
            return tuple(map(str, said))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def models_folder() -> Path:
    """Where models lie that were fetched: what DIFFGEMMA_MODELS names, or among the user's own
    data. Creates nothing."""
    chosen = os.environ.get(MODELS_VARIABLE)
    if chosen:
        return Path(os.path.expanduser(chosen)).absolute()
    import platformdirs

    return platformdirs.user_data_path(_NAME) / "models"


def models_with_a_base() -> tuple[str, ...]:
    """The names of the models that ship without their base."""
    return tuple(sorted(path.parent.name for path in WEIGHTS.glob("*/base.json")))


def read_base(name: str) -> Base:
    """What the model called `name` needs. Raises ModelError if it needs nothing, or is unknown, or
    what it needs can't be read."""
    known = models_with_a_base()
    if name not in known:
        raise ModelError(f"{name} has no base that could be fetched: name {' or '.join(known)}")
    return load_base(WEIGHTS / name / "base.json")


def base_folder(name: str) -> Path | None:
    """The folder with the base of the model called `name`; None if it is not there, or not whole.

    Looks at sizes, not into the weights. Raises ModelError as `read_base` does.
    """
    return _whole(read_base(name))


def base_of(folder: Path) -> Path | None:
    """The same for a folder with a base.json of its own, whatever it is called.

    Raises ModelError if that can't be read.
    """
    return _whole(load_base(folder / "base.json"))


def _whole(base: Base) -> Path | None:
    folder = models_folder() / base.folder
    source = source_of(folder)
    return folder if source is not None and source.get("sha256") == base.sha256 else None


def pulled(model: str) -> Path | None:
    """The folder of a model of the hub that `pull` brought, by its name here or owner/name, perhaps
    with @revision; None if it is not there, or not whole, or of another revision."""
    name, _, revision = model.partition("@")
    folder = models_folder() / folder_name(name)
    source = source_of(folder)
    if source is None or "name" not in source:
        return None  # that of a base
    return folder if not revision or source["hub"]["revision"].startswith(revision) else None


def source_of(folder: Path) -> dict[str, Any] | None:
    """What SOURCE says in a folder whose files are all there, by their sizes; None elsewhere."""
    try:
        source: dict[str, Any] = json.loads((folder / SOURCE).read_text(encoding="utf-8"))
        files: dict[str, int] = source["files"]
        whole = all((folder / file).stat().st_size == size for file, size in files.items())
        return source if whole else None
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None


def engine_paths(
    model: str | None = None, device: str | None = None, runtime_dir: Path | None = None
) -> EnginePaths:
    """The files of the service for this model and device, for this user. Creates nothing.

    runtime_dir: comes before the variable DIFFGEMMA_LSP_RUNTIME_DIR, which comes before the
        system's runtime directory, if that is this user's. A directory too long for a socket gives
        way to a short one under the system's temporary directory.
    Raises EngineUnavailable where there are no Unix sockets, or no place for one.
    """
    require_unix_sockets()
    wanted = runtime_dir or _runtime_dir()
    model = local_model(model)
    key = "\0".join((identity(), CODE, model or "", weights_of(model), device or ""))
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
