"""How fast this device runs the large models, with random weights of their shapes.

diffgemma-lsp bench --out FILE.jsonl

Every answer is written as it is found, the smallest question first, so that a run that is cut off
tells what it knows.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import torch

from engine.attention.batch import Batch
from engine.attention.span import forward
from engine.benchmark.questions import Card, Gemma, Row, copy


class Answers:
    """Where rows go. seconds: after so many nothing more is asked."""

    def __init__(self, file: TextIO | None, seconds: float) -> None:
        self._file, self._ends = file, time.monotonic() + seconds
        self._began = time.monotonic()

    def ask(self, about: str, question: Callable[[], Iterator[Row] | Row]) -> None:
        """Asks, and tells the answer or what went wrong."""
        if time.monotonic() > self._ends:
            return
        try:
            given = question()
            for row in [given] if isinstance(given, dict) else given:
                self._tell({"of": about} | row)
        except Exception as error:
            traceback.print_exc()
            first = str(error).strip().partition("\n")[0]
            self._tell({"of": about, "failed": f"{type(error).__name__}: {first}"})

    def _tell(self, row: dict[str, Any]) -> None:
        line = json.dumps({"s": round(time.monotonic() - self._began, 1)} | row)
        print(line, flush=True)
        if self._file is not None:
            print(line, file=self._file, flush=True)


@torch.inference_mode()
def ask_all(card: Card, answers: Answers, formats: list[Any]) -> None:
    """All questions, format by format."""
    answers.ask("card", lambda: copy(card))
    for format in formats:
        answers.ask(format, lambda format=format: of_gemma(card, format, answers))
        gc.collect()
        if card.device.type == "cuda":
            torch.cuda.empty_cache()


def of_gemma(card: Card, format: Any, answers: Answers) -> Iterator[Row]:
    """The questions about DiffusionGemma."""
    gemma = Gemma(card, format)
    model = gemma.model
    yield gemma.size()

    def ask(question: Callable[[], Iterator[Row] | Row]) -> None:
        answers.ask(format, question)

    ask(lambda: gemma.passes(lambda spans: forward(model, spans), "plain pass", 64))
    batch = Batch(model)
    graphs = batch.graphs
    if graphs is not None:
        ask(lambda: gemma.same(graphs, 64))
        ask(lambda: gemma.passes(graphs, "pass", 64))
        ask(lambda: gemma.passes(graphs, "pass", 256))
    free, passes = (16, 4) if card.small else (64, 16)
    ask(lambda: gemma.fills(batch, free, passes, 1))
    ask(lambda: gemma.fills(batch, free, passes, 8))
    if graphs is not None:
        ask(lambda: gemma.passes(graphs, "pass", 112, 8))
    ask(gemma.prefill)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="diffgemma-lsp bench", description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--formats", default="plain,int8,int4")
    parser.add_argument("--small", action="store_true", help="a rehearsal")
    options = parser.parse_args(argv)
    card = Card(torch.device(options.device), options.small)
    file = options.out.open("w", encoding="utf-8") if options.out else None
    ask_all(card, Answers(file, options.seconds), options.formats.split(","))
    return 0


if __name__ == "__main__":
    sys.exit(main())
