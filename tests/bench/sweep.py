"""Which settings of the denoiser fill best: a grid over holes of validation text.

python tests/bench/sweep.py --valid DIR --count 40 --steps 8,16,24 --bounds 0.05,0.1,0.3

DIR is a corpus folder of engine.training (valid.bin, valid.idx.npy): text from the distribution of
training that no training step saw. Held-out packages are for the final figures, not for tuning.
Without --product one setting is changed at a time, the others staying as the model's profile says.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.live import Live
from rich.table import Table

from engine.engine import InfillEngine
from engine.evaluation.answers import Denoised
from engine.evaluation.holes import KINDS, Cut, Source, population, read_sources
from engine.evaluation.journal import Record
from engine.evaluation.metrics import Estimate
from engine.evaluation.run import judge, summarize
from engine.evaluation.setup import screen
from engine.profile import Sampling
from engine.text.tokenizer import TextTokenizer
from engine.types import SamplingParams

AXES = ("steps", "bound", "t max", "t min", "stable", "conf", "left", "share", "hole")
COLUMNS = ("exact", "token_accuracy", "edit_similarity", "empty", "parses", "passes")


@dataclasses.dataclass(frozen=True)
class Setting:
    """A point of the grid: how to denoise, and how many slots a hole gets."""

    sampling: Sampling
    hole: int

    @property
    def cells(self) -> tuple[str, ...]:
        """What the table shows of it, in the order of AXES."""
        s = self.sampling
        numbers = (s.max_steps, s.entropy_bound, s.t_max, s.t_min, s.stability, s.confidence)
        return tuple(f"{number:g}" for number in (*numbers, s.from_left, s.causal_share, self.hole))


def validation_sources(data: Path, tokenizer: TextTokenizer) -> list[Source]:
    """The documents of the validation split, as text."""
    starts = np.load(data / "valid.idx.npy").tolist()
    tokens = np.fromfile(data / "valid.bin", np.uint16).tolist()
    spans = itertools.pairwise(starts)
    return [Source(f"valid/{i}", tokenizer.text_of(tokens[a:b])) for i, (a, b) in enumerate(spans)]


def grid(options: argparse.Namespace, base: Setting) -> list[Setting]:
    """The settings to try, the model's own first."""
    axes: dict[str, list[dict[str, float]]] = {
        "steps": [{"max_steps": int(v)} for v in options.steps],
        "bounds": [{"entropy_bound": v} for v in options.bounds],
        "temperatures": [{"t_max": high, "t_min": low} for high, low in options.temperatures],
        "stability": [{"stability": int(v)} for v in options.stability],
        "confidences": [{"confidence": v} for v in options.confidences],
        "left": [{"from_left": bool(v)} for v in options.left],
        "shares": [{"causal_share": v} for v in options.shares],
        "holes": [{"hole": int(v)} for v in options.holes],
    }
    used = [axis for axis in axes.values() if axis]
    if options.product:
        changes = [
            {name: value for part in parts for name, value in part.items()}
            for parts in itertools.product(*used)
        ]
    else:
        changes = [change for axis in used for change in axis]
    return list(dict.fromkeys([base, *(changed(base, change) for change in changes)]))


def changed(base: Setting, change: dict[str, float]) -> Setting:
    """The setting with some of its values replaced, by name."""
    sampling = {name: value for name, value in change.items() if name != "hole"}
    hole = int(change.get("hole", base.hole))
    return Setting(dataclasses.replace(base.sampling, **sampling), hole)


def table(results: dict[Setting, list[Record]]) -> Table:
    """What is known so far; the best figures are for the reader to find."""
    done = min(map(len, results.values()), default=0)
    shown = Table(title=f"{done} holes each; the first row is the model's own profile")
    for column in (*AXES, *COLUMNS, "ms"):
        shown.add_column(column.replace("_", " "), justify="right")
    for setting, records in results.items():
        summary = summarize(records)
        cells = [str(Estimate(**summary[column])) for column in COLUMNS]
        shown.add_row(*setting.cells, *cells, f"{summary['ms_p50']:.0f}")
    return shown


def sweep(
    engine: InfillEngine, cuts: Sequence[Cut], settings: Sequence[Setting], seed: int
) -> Iterator[dict[Setting, list[Record]]]:
    """Yields the results so far after every hole. All settings get the same holes and draws.

    Settings take turns at each hole, so that its prefix is encoded once.
    """
    profile = engine.profile
    results: dict[Setting, list[Record]] = defaultdict(list)
    for cut in cuts:
        for setting in settings:
            engine.profile = dataclasses.replace(
                profile, hole=setting.hole, sampling=setting.sampling
            )
            answer = Denoised(engine, SamplingParams(), seed)(cut.prefix, cut.suffix)
            results[setting].append(judge(answer, cut, engine.tokenizer.encode))
        yield results
    engine.profile = profile


def show(progress: Iterator[dict[Setting, list[Record]]], total: int, console: Console) -> None:
    """Draws the table as it fills; where it can't be redrawn, four times."""
    if console.is_terminal:
        with Live(console=console, refresh_per_second=2) as live:
            for results in progress:
                live.update(table(results))
        return
    marks = {max(1, total * quarter // 4) for quarter in (1, 2, 3, 4)}
    for number, results in enumerate(progress, start=1):
        if number in marks:
            console.print(table(results))


def numbers(text: str) -> list[float]:
    """A list with commas."""
    return [float(word) for word in text.split(",") if word]


def temperatures(text: str) -> list[tuple[float, float]]:
    """Pairs as in 0.8:0.4,0.5:0.1, of the first and behind the last pass."""
    pairs = [word.split(":") for word in text.split(",") if word]
    return [(float(high), float(low)) for high, low in pairs]


def build_parser() -> argparse.ArgumentParser:
    """All flags. An empty list of values leaves an axis out."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--valid", type=Path, metavar="DIR", help="a corpus folder")
    where.add_argument("--source", type=Path, action="append", metavar="DIR", help="Python files")
    add("--kind", choices=KINDS, default="line", help="of holes (default: line)")
    add("--count", type=int, default=40, metavar="N", help="holes (default: 40)")
    add("--seed", type=int, default=0, metavar="N")
    add("--model", metavar="PATH", help="a folder or a name of the hub (default: nano)")
    add("--threads", type=int, metavar="N")
    add("--out", type=Path, metavar="FILE.json", help="where the results go, if anywhere")
    add("--product", action="store_true", help="all combinations instead of one change at a time")
    axis: Callable[[str], list[float]] = numbers
    add("--steps", type=axis, default=[4, 8, 16, 24, 48])
    add("--bounds", type=axis, default=[0.05, 0.1, 0.3, 1.0])
    add("--temperatures", type=temperatures, default=[(0.8, 0.4), (0.4, 0.1), (0.1, 0.1)])
    add("--stability", type=axis, default=[])
    add("--confidences", type=axis, default=[])
    add("--left", type=axis, default=[0, 1], help="1: decided from the left, 0: the surest first")
    add("--shares", type=axis, default=[], help="weights of the causal reading")
    add("--holes", type=axis, default=[16, 24, 32])
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    options = build_parser().parse_args(argv)
    engine = InfillEngine.load(options.model)
    if options.threads:
        torch.set_num_threads(options.threads)
    sources = (
        validation_sources(options.valid, engine.tokenizer)
        if options.valid
        else read_sources(options.source)
    )
    cuts: list[Cut] = population(sources, options.kind, options.seed)[: options.count]
    settings = grid(options, Setting(engine.profile.sampling, engine.profile.hole))
    results: dict[Setting, list[Record]] = {}

    def watched() -> Iterator[dict[Setting, list[Record]]]:
        for so_far in sweep(engine, cuts, settings, options.seed):
            results.update(so_far)
            yield so_far

    try:
        show(watched(), len(cuts), screen())
    finally:  # what there is after Ctrl-C counts too
        if options.out and results:
            rows = [{**dataclasses.asdict(s), **summarize(r)} for s, r in results.items()]
            options.out.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
