"""Sudoku solved by refinement, by one pass, and causally, by the same weights, with error bars.

diffgemma-lsp eval sudoku --count 1000 --out results/sudoku.json

Puzzles have exactly one solution and were never trained on: they are made for this, from grids
drawn at random among 10 ** 21. Three answer each: the denoiser as it is served; its first pass
alone; and causal decoding, cell by cell, behind a prompt with all clues. An interrupted run goes on
where it was: its log lies beside the result (.jsonl).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from engine.attention.sdpa import read_masked
from engine.backbones.diffusion_gemma import DiffusionGemma
from engine.engine import InfillEngine
from engine.errors import BadRequest
from engine.evaluation.journal import Journal, Record
from engine.evaluation.metrics import (
    Estimate,
    interval,
    mean,
    paired_difference,
    percentile,
    proportion,
)
from engine.evaluation.setup import (
    command,
    describe_machine,
    describe_model,
    load_engine,
    number,
    open_journal,
    progress_bar,
    sampling_of,
    share_of,
    write_result,
)
from engine.sudoku import CELLS, DIGITS, EMPTY, MODEL, fill_in, legend, template
from engine.training.puzzles import Grid, unique_puzzle
from engine.types import InfillRequest, SamplingParams

BANDS = ((26, 35), (36, 45), (46, 55))
"""Clues, from and to: a third of the puzzles each."""

SIDE_BY_SIDE = 50
"""Puzzles that are decoded causally at once."""

REFINED, ONE_PASS, CAUSAL = "refined", "one pass", "causal"
ANSWERERS = (REFINED, ONE_PASS, CAUSAL)


def puzzle_of(number: int, seed: int) -> tuple[str, str]:
    """A puzzle of the evaluation, from 0 on, and its solution."""
    rng = np.random.default_rng([seed, number, 81])
    low, high = BANDS[number % len(BANDS)]
    while True:
        puzzle, solution = unique_puzzle(rng, int(rng.integers(low, high + 1)))
        # Where no clue more can be spared, a few are left over; that must not move the band.
        if np.count_nonzero(puzzle) <= high:
            return _text(puzzle), _text(solution)


def _text(grid: Grid) -> str:
    return "".join(str(digit) if digit else EMPTY for digit in grid.tolist())


class Denoised:
    """The engine as it is served, without a deadline."""

    def __init__(self, engine: InfillEngine, params: SamplingParams, seed: int) -> None:
        self.engine, self.params, self.seed = engine, params, seed

    def __call__(self, puzzle: str) -> tuple[str, int, float]:
        """The grid, how many passes it took and how many milliseconds."""
        infill = self.engine.fill(InfillRequest(template(puzzle), self.params, seed=self.seed))
        return fill_in(puzzle, infill.holes), infill.steps, infill.timings["total"]


class Causal:
    """The same weights cell by cell in reading order, behind a prompt with the whole puzzle.

    Greedy. At each cell it chooses among the digits only, and a clue is given to it when its turn
    comes, so it can neither leave the grid nor lose a clue. Puzzles are as long as each other, so
    many are decoded side by side.
    """

    def __init__(self, engine: InfillEngine) -> None:
        assert isinstance(engine.model, DiffusionGemma)
        self.model, self.tokenizer = engine.model, engine.tokenizer
        ids = [self.tokenizer.id_of(digit) for digit in DIGITS]
        if None in ids:
            raise BadRequest(f"{engine.profile.name} knows no digits; it is no Sudoku model")
        self._digits = torch.tensor(ids, device=engine.model.device)

    @torch.inference_mode()
    def __call__(self, puzzles: Sequence[str]) -> list[str]:
        """The grids."""
        bos, device = self.model.config.bos_id, self.model.device
        start = [] if bos is None else [bos]
        prompts = [start + self.tokenizer.encode(legend() + puzzle) for puzzle in puzzles]
        clues = torch.tensor([self.tokenizer.encode(puzzle) for puzzle in puzzles], device=device)
        empty = torch.tensor([[c == EMPTY for c in puzzle] for puzzle in puzzles], device=device)
        reader = _Reader(self.model, len(puzzles), len(prompts[0]) + CELLS)
        rows = reader.read(torch.tensor(prompts, device=device))
        cells: list[Tensor] = []
        for cell in range(CELLS):
            choice = self._digits[self.model.logits(rows)[:, self._digits].argmax(-1)]
            cells.append(torch.where(empty[:, cell], choice, clues[:, cell]))
            rows = reader.read(cells[-1].unsqueeze(1))
        return [self.tokenizer.text_of(grid) for grid in torch.stack(cells, 1).tolist()]


class _Reader:
    """Reads sequences of one length causally, side by side, and keeps their keys and values."""

    def __init__(self, model: DiffusionGemma, count: int, length: int) -> None:
        self.model, self.length = model, 0
        shapes = [(count, length, layer.kv_heads, layer.head_dim) for layer in model.config.layers]
        self._keys = [torch.empty(s, dtype=model.dtype, device=model.device) for s in shapes]
        self._values = [torch.empty_like(keys) for keys in self._keys]

    def read(self, ids: Tensor) -> Tensor:
        """Reads ids [B, T] behind what was read; the hidden rows of the last ones, [B, d]."""
        begin, end = self.length, self.length + ids.shape[1]
        positions = torch.arange(end, device=ids.device)
        gap = positions[begin:].unsqueeze(1) - positions
        config = self.model.config

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            self._keys[layer][:, begin:end], self._values[layer][:, begin:end] = k, v
            seen = gap >= 0
            if config.layers[layer].sliding:
                seen &= gap < config.sliding_window
            keys, values = self._keys[layer][:, :end], self._values[layer][:, :end]
            return read_masked(q, keys, values, seen)

        self.length = end
        return self.model.encode(ids, positions[begin:], attend)[:, -1]


def judge(puzzle: str, solution: str, grid: str, passes: int, ms: float) -> Record:
    """All that is to know of one answer. cells: the share of empty cells that are right."""
    empty = [cell for cell, clue in enumerate(puzzle) if clue == EMPTY]
    right = sum(grid[cell] == solution[cell] for cell in empty)
    return {"solved": grid == solution, "cells": right / len(empty), "passes": passes, "ms": ms}


def evaluate(
    engine: InfillEngine, journal: Journal, options: argparse.Namespace, console: Console
) -> list[Record]:
    """Has every puzzle answered that the journal does not know yet."""
    params = sampling_of(options)
    denoisers = {
        REFINED: Denoised(engine, params, options.seed),
        ONE_PASS: Denoised(engine, replace(params, max_steps=1), options.seed),
    }
    causal = Causal(engine)
    records: list[Record] = []
    numbers = share_of(range(options.count), options)
    with progress_bar(console) as progress:
        task = progress.add_task("puzzles", total=len(numbers), note="")
        for first in range(0, len(numbers), SIDE_BY_SIDE):
            own = numbers[first : first + SIDE_BY_SIDE]
            some = dict(puzzle_of(number, options.seed) for number in own)
            todo = [puzzle for puzzle in some if puzzle not in journal.records]
            began = time.monotonic()
            grids = dict(zip(todo, causal(todo) if todo else [], strict=True))
            causal_ms = (time.monotonic() - began) * 1000 / max(1, len(todo))
            for puzzle, solution in some.items():
                if puzzle in grids:
                    empty = puzzle.count(EMPTY)
                    record: Record = {"clues": CELLS - empty, "solution": solution}
                    for name, denoiser in denoisers.items():
                        record[name] = judge(puzzle, solution, *denoiser(puzzle))
                    record[CAUSAL] = judge(puzzle, solution, grids[puzzle], empty, causal_ms)
                    journal.add(puzzle, record)
                records.append(journal.records[puzzle])
                solved = sum(one[REFINED]["solved"] for one in records)
                progress.update(task, advance=1, note=f"solved {solved / len(records):.3f}")
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
        others = [str(Estimate(**own[key])) for key in ("cells", "passes")]
        between, ms = interval(solved.low, solved.high), f"{own['ms_p50']:.0f}"
        shown.add_row(name, str(solved), between, *others, ms)
    return shown


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Evaluates on all puzzles; writes and returns the result."""
    options.model = options.model or str(MODEL)
    engine = load_engine(options)
    settings = {"model": describe_model(engine, options), "seed": options.seed}
    with open_journal(options, settings) as journal:
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
    write_result(options, result, console)
    return result


def own_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this evaluation alone."""
    add = parser.add_argument
    add("--count", type=number, default=1000, metavar="N", help="puzzles (default: 1000)")


main = command("sudoku", __doc__, run, own_flags)


if __name__ == "__main__":
    sys.exit(main())
