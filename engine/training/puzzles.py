"""Sudoku grids and puzzles.

A solved grid is filled at random and then moved by the symmetries of Sudoku. Which of its cells are
clues is random too, so most training puzzles with few clues have more than one solution: the model
learns what is likely. Puzzles for measuring have exactly one. Solving is for making data only: what
answers at inference is the model alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from engine.sudoku import CELLS, UNITS

Grid = npt.NDArray[np.int64]
"""81 cells in reading order, 1 to 9, and 0 where a cell is empty."""

_PEERS = tuple(
    tuple(sorted({other for unit in UNITS if cell in unit for other in unit} - {cell}))
    for cell in range(CELLS)
)
_ALL = 0b111_111_111


def solutions(puzzle: Grid, most: int, rng: np.random.Generator | None = None) -> list[Grid]:
    """Up to `most` solutions of a puzzle, in an order that is random if there is an `rng`.

    Depth-first search in the cell with the fewest candidates.
    """
    candidates = [_ALL] * CELLS
    grid = [0] * CELLS
    for cell, digit in enumerate(puzzle.tolist()):
        if digit:
            bit = 1 << (digit - 1)
            if not candidates[cell] & bit:
                return []
            grid[cell] = digit
            for peer in _PEERS[cell]:
                candidates[peer] &= ~bit
    found: list[Grid] = []
    for solution in _search(grid, candidates, rng):
        found.append(np.array(solution, np.int64))
        if len(found) == most:
            break
    return found


def _search(
    grid: list[int], candidates: list[int], rng: np.random.Generator | None
) -> Iterator[list[int]]:
    empty = [cell for cell in range(CELLS) if not grid[cell]]
    if not empty:
        yield grid
        return
    cell = min(empty, key=lambda c: candidates[c].bit_count())
    digits = [digit for digit in range(1, 10) if candidates[cell] >> (digit - 1) & 1]
    if rng is not None:
        rng.shuffle(digits)
    for digit in digits:
        bit = 1 << (digit - 1)
        next_grid, next_candidates = grid.copy(), candidates.copy()
        next_grid[cell] = digit
        for peer in _PEERS[cell]:
            next_candidates[peer] &= ~bit
        if all(next_grid[peer] or next_candidates[peer] for peer in _PEERS[cell]):
            yield from _search(next_grid, next_candidates, rng)


def solved_grid(rng: np.random.Generator) -> Grid:
    """A solved grid: filled at random, then moved by random symmetries."""
    return shuffled(solutions(np.zeros(CELLS, np.int64), 1, rng)[0], rng)


def shuffled(grid: Grid, rng: np.random.Generator) -> Grid:
    """The grid under random symmetries: its digits renamed, bands, stacks, rows and columns
    swapped, and one time in two transposed. What is empty stays empty."""
    names = np.concatenate(([0], rng.permutation(9) + 1))
    square = names[grid].reshape(9, 9)[_line_order(rng)][:, _line_order(rng)]
    return (square.T if rng.random() < 0.5 else square).flatten()


def _line_order(rng: np.random.Generator) -> npt.NDArray[np.int64]:
    return np.concatenate([3 * band + rng.permutation(3) for band in rng.permutation(3)])


def unique_puzzle(rng: np.random.Generator, clues: int) -> tuple[Grid, Grid]:
    """A puzzle with one solution and `clues` clues or a few more, and its solution.

    Clues are taken away in random order for as long as the solution stays the only one.
    """
    solution = solved_grid(rng)
    puzzle = solution.copy()
    for cell in rng.permutation(CELLS).tolist():
        if np.count_nonzero(puzzle) <= clues:
            break
        puzzle[cell] = 0
        if len(solutions(puzzle, 2)) > 1:
            puzzle[cell] = solution[cell]
    return puzzle, solution
