"""The kind of data "sudoku": batches drawn from puzzles that are made as they are needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engine.errors import TrainingError
from engine.sudoku import CELLS
from engine.training.data import Batch, Opened
from engine.training.puzzles import solved_grid
from engine.training.recipe import Recipe
from engine.training.sudoku_model import (
    BOS,
    EMPTY_ID,
    EOS,
    FIRST_DIGIT,
    NAME_IDS,
    SUDOKU,
    new_sudoku_model,
    write_companions,
)

PREFIX = 1 + 3 * CELLS
"""Tokens of a window: `<bos>`, the names of the cells, a puzzle and its solution."""

VALIDATION_SEED = 0


@dataclass(frozen=True, slots=True)
class Sudoku:
    """The kind "sudoku". fewest, most: clues of most puzzles; one in five has 17 to 80."""

    fewest: int = 28
    most: int = 62

    def __post_init__(self) -> None:
        if not 1 <= self.fewest <= self.most < CELLS:
            raise ValueError(f"fewest and most must lie between 1 and {CELLS - 1}, in this order")

    def prepare(self, recipe: Recipe) -> None:
        """Writes the tokenizer beside the run. The shape of a step is fixed by the grid.

        Raises TrainingError if the recipe asks for another one.
        """
        step = recipe.step
        if (step.context, step.canvas) != (PREFIX, CELLS):
            raise TrainingError(f"a Sudoku needs [step] context = {PREFIX} and canvas = {CELLS}")
        write_companions(_companions(recipe))

    def open(self, recipe: Recipe) -> Opened[Batch]:
        """Batches of as many windows and canvases as the recipe asks for."""
        step = recipe.step
        return Opened(
            SudokuBatches(self, recipe.run.seed, step.windows, step.canvases),
            SudokuBatches(self, VALIDATION_SEED, windows=2, canvases=16),
            SUDOKU,
            _companions(recipe),
            new_sudoku_model,
        )


def _companions(recipe: Recipe) -> Path:
    return recipe.model.tokenizer or recipe.run.out / "companions"


class SudokuBatches:
    """Draws batches by their number and the seed.

    A window is one solved grid: `<bos>`, the names of the cells, a puzzle of it and its solution,
    which is what the causal loss learns to continue. Its canvases are the grid from behind the
    names on, each with other clues; where a grid begins with clues, they may stand in the prefix.
    """

    def __init__(self, data: Sudoku, seed: int, windows: int, canvases: int) -> None:
        self._data, self._seed = data, seed
        self._windows, self._canvases = windows, canvases

    def batch(self, index: int) -> Batch:
        """The batch of a step, 0 and up."""
        shape = (self._windows, self._canvases)
        prefix = np.zeros((self._windows, PREFIX), np.int64)
        canvas = np.full((*shape, CELLS), EOS, np.int64)
        start = np.zeros(shape, np.int64)
        free = np.zeros((*shape, CELLS), np.bool_)
        for row in range(self._windows):
            rng = np.random.default_rng([self._seed, index, row])
            solution = solved_grid(rng)
            ids = solution + FIRST_DIGIT - 1
            masks = [random_clues(rng, self._data) for _ in range(self._canvases)]
            shown = masks[0]
            prefix[row] = [BOS, *NAME_IDS, *np.where(shown, ids, EMPTY_ID), *ids]
            common = _leading(shown)
            masks.sort(key=lambda mask: min(common, _leading(mask)))
            for column, mask in enumerate(masks):
                skip = min(common, _leading(mask))
                start[row, column] = 1 + CELLS + skip
                canvas[row, column, : CELLS - skip] = ids[skip:]
                free[row, column, : CELLS - skip] = ~mask[skip:]
        return Batch(prefix, canvas, start, free, free.astype(np.float32))


def random_clues(rng: np.random.Generator, data: Sudoku) -> npt.NDArray[np.bool_]:
    """Which cells are clues, bool [81]."""
    low, high = (data.fewest, data.most) if rng.random() < 0.8 else (17, CELLS - 1)
    mask = np.zeros(CELLS, np.bool_)
    mask[rng.permutation(CELLS)[: rng.integers(low, high + 1)]] = True
    return mask


def _leading(mask: npt.NDArray[np.bool_]) -> int:
    return int(mask.argmin())
