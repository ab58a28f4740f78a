"""Sudoku solved by refinement, by one pass, and causally, by the same weights, with error bars.

python -m engine.evaluation.sudoku --count 1000 --out results/sudoku.json

Puzzles have exactly one solution and were never trained on: they are made for this, from grids
drawn at random among 10 ** 21. Three answer each: the denoiser as it is served; its first pass alone;
and causal decoding, cell by cell, behind a prompt with all clues. An interrupted run goes on where
it was: its log lies beside the result (.jsonl).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from engine.engine import InfillEngine
from engine.errors import BadRequest
from engine.evaluation.journal import Journal, Record
from engine.evaluation.metrics import Estimate, mean, paired_difference, percentile, proportion
from engine.evaluation.setup import (
    add_flags,
    command,
    describe_machine,
    describe_model,
    load_engine,
    progress_bar,
    sampling_of,
    write_json,
)
from engine.prefix_cache import PrefixCache
from engine.sudoku import DIGITS, EMPTY, MODEL, fill_in, legend, template
from engine.training.puzzles import Grid, unique_puzzle
from engine.types import InfillRequest, SamplingParams

BANDS = ((26, 35), (36, 45), (46, 55))
"""Clues, from and to: a third of the puzzles has so many each."""

REFINED, ONE_PASS, CAUSAL = "refined", "one pass", "causal"
ANSWERERS = (REFINED, ONE_PASS, CAUSAL)


def puzzles(count: int, seed: int) -> Iterator[tuple[str, str]]:
    """Puzzles and their solutions. The first ones are the same whatever the count."""
    for number in range(count):
        rng = np.random.default_rng([seed, number, 81])
        low, high = BANDS[number % len(BANDS)]
        while True:
            puzzle, solution = unique_puzzle(rng, int(rng.integers(low, high + 1)))
            # Where no clue more can be spared, a few are left over; that must not move the band.
            if np.count_nonzero(puzzle) <= high:
                break
        yield _text(puzzle), _text(solution)


def _text(grid: Grid) -> str:
    return "".join(str(digit) if digit else EMPTY for digit in grid.tolist())


class Denoised:
    """The engine as it is served, without a deadline."""

    def __init__(self, engine: InfillEngine, params: SamplingParams, seed: int) -> None:
        self.engine, self.params, self.seed = engine, params, seed

    def __call__(self, puzzle: str) -> tuple[str, int]:
        """The grid and how many passes it took."""
        infill = self.engine.fill(InfillRequest(template(puzzle), self.params, seed=self.seed))
        return fill_in(puzzle, infill.holes), infill.steps


class CausalCells:
    """The same weights cell by cell in reading order, behind a prompt with the whole puzzle.

    Greedy. At each cell it chooses among the digits only, and a clue is given to it when its turn
    comes, so it can neither leave the grid nor lose a clue.
    """

    def __init__(self, engine: InfillEngine) -> None:
        self.model, self.tokenizer = engine.model, engine.tokenizer
        self._cache = PrefixCache(engine.model)
        ids = [self.tokenizer.id_of(digit) for digit in DIGITS]
        if None in ids:
            raise BadRequest(f"{engine.profile.name} knows no digits; it is no Sudoku model")
        self._digits = torch.tensor(ids, device=engine.model.device)

    @torch.inference_mode()
    def __call__(self, puzzle: str) -> tuple[str, int]:
        """The grid and how many cells it decided."""
        bos = self.model.config.bos_id
        prompt = self.tokenizer.encode(legend() + puzzle)
        self._cache.keep([])
        row = self._cache.extend([*([] if bos is None else [bos]), *prompt])[-1]
        grid = ""
        for clue in puzzle:
            cell = clue
            if clue == EMPTY:
                cell = DIGITS[int(self.model.logits(row)[self._digits].argmax())]
            grid += cell
            row = self._cache.extend(self.tokenizer.encode(cell))[-1]
        return grid, puzzle.count(EMPTY)


def judge(puzzle: str, solution: str, answer: tuple[str, int], ms: float) -> Record:
    """All that is to know of one answer. cells: the share of empty cells that are right."""
    grid, passes = answer
    empty = [cell for cell, clue in enumerate(puzzle) if clue == EMPTY]
    right = sum(grid[cell] == solution[cell] for cell in empty)
    return {"solved": grid == solution, "cells": right / len(empty), "passes": passes, "ms": ms}


def evaluate(
    engine: InfillEngine, journal: Journal, options: argparse.Namespace, console: Console
) -> list[Record]:
    """Has every puzzle answered that the journal does not know yet."""
    params = sampling_of(options)
    answerers = {
        REFINED: Denoised(engine, params, options.seed),
        ONE_PASS: Denoised(engine, replace(params, max_steps=1), options.seed),
        CAUSAL: CausalCells(engine),
    }
    records: list[Record] = []
    hits = 0
    with progress_bar(console) as progress:
        task = progress.add_task("puzzles", total=options.count, note="")
        for number, (puzzle, solution) in enumerate(puzzles(options.count, options.seed), 1):
            if puzzle not in journal.records:
                record: Record = {"clues": 81 - puzzle.count(EMPTY), "solution": solution}
                for name, answerer in answerers.items():
                    began = time.monotonic()
                    answer = answerer(puzzle)
                    ms = (time.monotonic() - began) * 1000
                    record[name] = judge(puzzle, solution, answer, ms)
                journal.add(puzzle, record)
            records.append(journal.records[puzzle])
            hits += records[-1][REFINED]["solved"]
            progress.update(task, advance=1, note=f"solved {hits / number:.3f}")
    return records


def report(records: Sequence[Record]) -> dict[str, Any]:
    """The result for some puzzles: each answerer, and how far refinement is ahead of the others."""
    result: dict[str, Any] = {"puzzles": len(records), "answerers": {}, "differences": {}}
    for name in ANSWERERS:
        own = [record[name] for record in records]
        result["answerers"][name] = {
            "solved": asdict(proportion([one["solved"] for one in own])),
            "cells": asdict(mean([one["cells"] for one in own])),
            "passes": asdict(mean([one["passes"] for one in own])),
            "ms_p50": percentile([one["ms"] for one in own], 0.5),
        }
    for name in (ONE_PASS, CAUSAL):
        ahead = paired_difference(
            [float(record[REFINED]["solved"]) for record in records],
            [float(record[name]["solved"]) for record in records],
        )
        result["differences"][f"{REFINED} - {name}"] = asdict(ahead)
    return result


def table(title: str, result: dict[str, Any]) -> Table:
    """The result for people."""
    shown = Table(title=f"{title}: {result['puzzles']} puzzles")
    for column in ("", "solved", "95%", "empty cells right", "passes", "ms p50"):
        shown.add_column(column)
    for name, own in result["answerers"].items():
        solved = Estimate(**own["solved"])
        interval = f"{solved.low:.3f} … {solved.high:.3f}"
        others = [str(Estimate(**own[key])) for key in ("cells", "passes")]
        shown.add_row(name, str(solved), interval, *others, f"{own['ms_p50']:.0f}")
    return shown


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Evaluates on all puzzles; writes and returns the result."""
    options.model = options.model or str(MODEL)
    engine = load_engine(options)
    settings = {"model": describe_model(engine, options), "seed": options.seed}
    with Journal(options.out.with_suffix(".jsonl"), settings) as journal:
        records = evaluate(engine, journal, options, console)
    groups = {
        "all": records,
        "36 clues and more": [record for record in records if record["clues"] >= 36],
        **{
            f"{low} to {high} clues": [r for r in records if low <= r["clues"] <= high]
            for low, high in BANDS
        },
    }
    result: dict[str, Any] = {"settings": {**settings, "count": options.count}, "groups": {}}
    for title, group in groups.items():
        if group:
            result["groups"][title] = report(group)
            console.print(table(title, result["groups"][title]))
    result["machine"] = describe_machine()
    write_json(options.out, result)
    return result


def build_parser() -> argparse.ArgumentParser:
    """All flags."""
    parser = argparse.ArgumentParser(prog="engine.evaluation.sudoku", description=__doc__)
    add = parser.add_argument
    add("--count", type=int, default=1000, metavar="N", help="puzzles (default: 1000)")
    add_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command; 2 where it can't be done."""
    return command(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
