"""How fast this device runs the large models, with random weights of their shapes: no model is
needed, and none is made better or worse.

diffgemma-lsp bench --out results.jsonl

Every answer is written as it is found, the most important first, so that a run that is cut off
tells what it knows. The floor of a pass is the time in which its weights can be read once, by the
bandwidth that was measured beside it.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import torch
from rich.console import Console
from rich.table import Table

from engine.backbones.quantized import Format
from engine.benchmark.questions import Card, Row, Subject
from engine.benchmark.shapes import diffusion_gemma, dream
from engine.errors import EngineError, complaint
from engine.program import INTERRUPTED, take_interrupts
from engine.weights.loader import pick_device

_log = logging.getLogger(__name__)

MODELS = ("diffusiongemma", "dream")
FORMATS: tuple[Format, ...] = ("plain", "int8", "int4")
COLUMNS = ("of", "what", "rows", "at once", "passes", "ms", "host", "of floor")
FAILED = 2


class Answers:
    """Where rows go. seconds: when they are over, nothing more is asked."""

    def __init__(self, file: TextIO | None, seconds: float) -> None:
        self._file, self._began = file, time.monotonic()
        self._ends = self._began + seconds
        self.rows: list[Row] = []

    def ask(self, about: str, question: Callable[[], Row | Iterator[Row]]) -> None:
        """Asks, and writes the answer down, or what went wrong."""
        if time.monotonic() > self._ends:
            return
        try:
            given = question()
            for row in [given] if isinstance(given, dict) else given:
                self._tell({"of": about} | row)
        except (RuntimeError, EngineError, ImportError) as error:
            _log.debug("a question failed", exc_info=True)
            first = str(error).strip().partition("\n")[0]
            self._tell({"of": about, "what": f"failed: {type(error).__name__}: {first}"})

    def _tell(self, row: Row) -> None:
        self.rows.append(row)
        line = json.dumps({"s": round(time.monotonic() - self._began, 1)} | row)
        print(line, flush=True)
        if self._file is not None:
            print(line, file=self._file, flush=True)


@torch.inference_mode()
def ask_all(card: Card, answers: Answers, options: argparse.Namespace) -> None:
    """All questions, model by model and format by format."""
    answers.ask(str(card.device), card.measure)
    for model in options.models:
        for format in options.formats:
            about = model if format == "plain" else f"{model} {format}"

            def of_model(
                model: str = model, format: Format = format, about: str = about
            ) -> Iterator[Row]:
                return _of_model(card, answers, about, _Asked(model, format, options))

            answers.ask(about, of_model)
            _free(card)
    if options.stock:
        answers.ask("diffusiongemma", lambda: _of_stock(card, options.small))


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is asked about: a model, in one format, by the flags."""

    model: str
    format: Format
    options: argparse.Namespace


def _of_model(card: Card, answers: Answers, about: str, asked: _Asked) -> Iterator[Row]:
    """The questions about one model; yields what its weights take."""
    small, gemma = asked.options.small, asked.model == "diffusiongemma"
    made = (diffusion_gemma if gemma else dream)(card.device, asked.format, small)
    behind = 192 if small else 4096 if gemma else 448
    subject = Subject(card, made, behind)
    yield subject.size()
    canvases = (64, 256) if gemma else (behind + 112,)
    free, passes = (16, 2) if small else (64, 16)
    graphs = subject.batch.graphs
    if graphs is not None:
        answers.ask(about, lambda: subject.same(graphs, canvases[0]))
        for rows in canvases:
            answers.ask(about, lambda rows=rows: subject.pass_(graphs, "pass", rows))
    answers.ask(about, lambda: subject.fills(free, passes))
    answers.ask(about, lambda: subject.fills(free, passes, 8))
    answers.ask(about, lambda: subject.pass_(subject.plain, "pass without graph", canvases[0]))
    if subject.prefix is not None:
        answers.ask(about, lambda: subject.prefill(behind))
    if asked.options.kernels is not None:
        answers.ask(about, lambda: subject.kernels(canvases[0], asked.options.kernels))
    if gemma and asked.options.compile:
        answers.ask(about, lambda: subject.compiled(canvases))


def _of_stock(card: Card, small: bool) -> Iterator[Row]:
    """transformers' own, at first as it is and then compiled."""
    from engine.benchmark.stock import generate, stock_model

    model = stock_model(card.device, small)
    for compiled in (False, card.device.type == "cuda"):
        yield from generate(model, 192 if small else 4096, 16, compiled)


def _free(card: Card) -> None:
    gc.collect()
    if card.device.type == "cuda":
        torch.cuda.empty_cache()


def table(rows: list[Row]) -> Table:
    """What was found, for people."""
    shown = Table(*COLUMNS, title="milliseconds; floor: all weights read once")
    for row in rows:
        shown.add_row(*(str(row.get(name, "")) for name in COLUMNS))
    return shown


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="diffgemma-lsp bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--out", type=Path, metavar="FILE.jsonl", help="where the answers go, too")
    add("--device", help="cuda, mps or cpu (default: the best there is)")
    add("--seconds", type=float, default=600.0, help="ask nothing more after so many")
    add("--models", type=_of(MODELS), default=MODELS, help=", ".join(MODELS))
    add("--formats", type=_of(FORMATS), default=FORMATS, help=", ".join(FORMATS))
    add("--kernels", type=Path, metavar="DIR", help="tables of what takes a pass' time, there")
    add("--compile", action="store_true", help="passes by torch.compile, too: takes a minute")
    add("--stock", action="store_true", help="transformers' own generate, too")
    add("--small", action="store_true", help="small shapes: a rehearsal")
    options = parser.parse_args(argv)
    take_interrupts()
    try:
        file = options.out.open("w", encoding="utf-8") if options.out else None
        answers = Answers(file, options.seconds)
        repeats = 1 if options.small else 9
        ask_all(Card(pick_device(options.device), repeats), answers, options)
    except (EngineError, OSError) as error:
        print(complaint(error), file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    Console(stderr=True).print(table(answers.rows))
    return 0


def _of(known: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    """Reads names with commas between them."""

    def read(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        if unknown := set(names) - set(known):
            raise argparse.ArgumentTypeError(f"{min(unknown)!r} is none of {', '.join(known)}")
        return names

    return read


if __name__ == "__main__":
    sys.exit(main())
