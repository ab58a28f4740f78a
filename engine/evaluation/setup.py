"""What all evaluations share: flags, how model and machine are described, the progress bar."""

from __future__ import annotations

import argparse
import glob
import hashlib
import json
import os
import platform
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from engine.charts import Chart
from engine.engine import InfillEngine
from engine.errors import EngineError, complaint
from engine.evaluation.holes import KINDS, Kind, Source, held_out_folders, read_sources
from engine.evaluation.journal import Journal, Record
from engine.models import default_model
from engine.paths import package_version
from engine.program import INTERRUPTED, take_interrupts
from engine.types import SamplingParams
from engine.weights.locate import locate

_T = TypeVar("_T")

_HASHED_BYTES = 64 * 2**20
"""So much of each weight file is hashed: all of a small model, the beginning of a large one."""


class Parser(argparse.ArgumentParser):
    """Reports what is wrong in one line; the usage is for --help."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, complaint(message) + "\n")


def command(
    name: str,
    docstring: str | None,
    run: Callable[[argparse.Namespace, Console], object],
    own_flags: Callable[[argparse.ArgumentParser], None],
) -> Callable[..., int]:
    """The `main` of an evaluation, which users know as a subcommand.

    Takes the flags (None: those of the process), and returns the exit code: 2, with one line on
    stderr, where it can't be done.
    """

    def main(argv: Sequence[str] | None = None) -> int:
        parser = Parser(
            prog=f"diffgemma-lsp eval {name}",
            description=docstring,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        own_flags(parser)
        _add_flags(parser)
        options = parser.parse_args(argv)
        take_interrupts()
        try:
            run(options, screen())
        except (EngineError, OSError, ValueError) as error:
            print(complaint(error), file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print(complaint("interrupted; the same command goes on from here"), file=sys.stderr)
            return INTERRUPTED
        return 0

    return main


def _add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of every evaluation: which model, how it denoises, where the result goes."""
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="FILE.json", help="where the result goes")
    best = default_model()
    add(
        "--model",
        metavar="PATH",
        help=f"a folder or a name of the hub (default: {best})",
    )
    add("--device", help="cuda, mps or cpu (default: the best there is)")
    add(
        "--threads",
        type=number,
        metavar="N",
        help="of torch (default: the engine's choice)",
    )
    add("--seed", type=int, default=0, metavar="N", help="of holes and draws (default: 0)")
    add(
        "--part",
        type=_part,
        metavar="K/N",
        help="do the Kth of N parts, so that several processes can share the work; when all are "
        "done, the same command without --part puts their logs together",
    )
    add("--steps", type=int, dest="max_steps", metavar="N", help="the most passes per canvas")
    add("--entropy-bound", type=float, metavar="NATS", help="accepted in one pass")
    add("--t-max", type=float, metavar="T", help="temperature of the first pass")
    add("--t-min", type=float, metavar="T", help="temperature after the last pass")
    add("--stability", type=int, metavar="N", help="passes without a change before it may stop")
    add("--confidence", type=float, metavar="NATS", help="mean entropy below which it may stop")
    either = argparse.BooleanOptionalAction
    add("--rerank", action=either, help="let the encoder answer, too, and choose")


def add_source(parser: argparse.ArgumentParser, what: str) -> None:
    """The flag for held-out code. what: one folder of it, for the help."""
    parser.add_argument(
        "--source",
        type=Path,
        action="append",
        metavar="DIR",
        help=f"{what}, "
        "more than once for several (default: the installed packages that nano never saw)",
    )


def add_holes(parser: argparse.ArgumentParser, count: int, kinds: tuple[Kind, ...]) -> None:
    """The flags for holes in held-out code. count, kinds: the defaults."""
    add = parser.add_argument
    said = f"holes of each kind (default: {count})"
    add("--count", type=number, default=count, metavar="N", help=said)
    add_source(parser, "a folder of held-out files")
    allowed: Callable[[str], tuple[str, ...]] = partial(names, allowed=KINDS)
    said = f"of {','.join(KINDS)} (default: {','.join(kinds)})"
    add("--kinds", type=allowed, default=kinds, help=said)


def held_out(options: argparse.Namespace) -> tuple[list[Source], dict[str, Any]]:
    """The files of `--source`, and what the settings say of them.

    Raises FileNotFoundError if a folder does not exist.
    """
    folders: list[Path] = options.source or held_out_folders()
    sources = read_sources(folders)
    return sources, {
        "sources": sorted(folder.name for folder in folders),
        "files": len(sources),
    }


def share_of(items: Sequence[_T], options: argparse.Namespace) -> Sequence[_T]:
    """What of the work is this process' own: all of it, or every Nth."""
    if options.part is None:
        return items
    number, parts = options.part
    return items[number - 1 :: parts]


def result_path(options: argparse.Namespace) -> Path:
    """Where the result goes; a part's has a name of its own."""
    out: Path = options.out
    if options.part is None:
        return out
    number, parts = options.part
    return out.with_stem(f"{out.stem}.{number}-of-{parts}")


def open_journal(options: argparse.Namespace, settings: Record) -> Journal:
    """The log beside the result, knowing what the logs of other parts have."""
    path = result_path(options).with_suffix(".jsonl")
    others = sorted(options.out.parent.glob(f"{glob.escape(options.out.stem)}.*-of-*.jsonl"))
    return Journal(path, settings, [other for other in others if other != path])


def sampling_of(options: argparse.Namespace) -> SamplingParams:
    """The sampling flags; what was not given is the model's own default."""
    return SamplingParams(**{f.name: getattr(options, f.name) for f in fields(SamplingParams)})


def load_engine(options: argparse.Namespace) -> InfillEngine:
    """The engine that the flags name. Raises as `InfillEngine.load` does."""
    engine = InfillEngine.load(model_of(options), options.device)
    if options.threads:  # the engine has chosen by now
        torch.set_num_threads(options.threads)
    return engine


def describe_model(engine: InfillEngine, options: argparse.Namespace) -> dict[str, Any]:
    """Which weights answered, and how they were asked: everything that an answer depends on."""
    return {
        "engine": asdict(engine.info),
        "weights": _fingerprint(locate(model_of(options))),
        "profile": asdict(engine.profile),
        "sampling": asdict(engine.profile.sampling.override(sampling_of(options))),
        "version": package_version(),
    }


def describe_machine() -> dict[str, Any]:
    """What the times were measured on. load: processes that want to run, over 1, 5, 15 minutes."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
        "load": [round(load, 2) for load in os.getloadavg()],
    }


def screen() -> Console:
    """Where people look: stderr, and wide enough for tables where it is no terminal."""
    return Console(stderr=True, width=None if sys.stderr.isatty() else 160)


def progress_bar(console: Console) -> Progress:
    """A bar with a count, the time that is left and a field `note`."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    )


def write_json(path: Path, result: dict[str, Any]) -> None:
    """Writes the result whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    draft.replace(path)


def write_result(
    options: argparse.Namespace,
    result: dict[str, Any],
    console: Console,
    charts: Mapping[str, Chart] | None = None,
) -> None:
    """Writes the result, and each chart beside it under the end of its name; says where."""
    out = result_path(options)
    written = [out, out.with_suffix(".jsonl")]
    write_json(out, result)
    for name, chart in (charts or {}).items():
        written.append(out.with_name(f"{out.stem}-{name}.svg"))
        written[-1].write_text(chart.svg(), encoding="utf-8")
    places = ", ".join(map(str, written))
    console.print(f"Written: {places}", highlight=False, markup=False, soft_wrap=True)


def number(text: str) -> int:
    """A whole number of at least 1. Raises argparse.ArgumentTypeError."""
    if not re.fullmatch(r"0*[1-9][0-9]{0,17}", text):
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, not {text!r}")
    return int(text)


def names(text: str, allowed: Sequence[str]) -> tuple[str, ...]:
    """A list with commas, each of which is allowed. Raises argparse.ArgumentTypeError."""
    given = tuple(dict.fromkeys(text.split(",")))
    unknown = [name for name in given if name not in allowed]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(allowed)}")
    return given


def _part(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,4})/(\d{1,4})", text)
    number, parts = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= parts:
        raise argparse.ArgumentTypeError(f"expected K/N such as 1/2, not {text!r}")
    return number, parts


def model_of(options: argparse.Namespace) -> str:
    """The model that is measured: the one that was named, or what serves where none is."""
    return options.model or default_model()


def _fingerprint(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(str(path.stat().st_size).encode())
        with path.open("rb") as file:
            digest.update(file.read(_HASHED_BYTES))
    return digest.hexdigest()[:16]


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
