"""Sudoku as text: how a grid is written for the model in engine/weights/sudoku. No torch.

A grid is 81 characters in reading order, a digit or "." for an empty cell. The model reads the
names of all cells first (A1 to I9, row by row), so that each cell of the grid that follows has its
name at the same distance before it; then the grid itself, of which each empty cell is a slot to be
filled. Blanks and line ends are for people: the tokenizer leaves them out.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from engine.errors import BadRequest
from engine.types import Fixed, Hole, Template

MODEL = Path(__file__).resolve().parent / "weights" / "sudoku"
"""The folder of the model that was trained on this."""

CELLS = 81
EMPTY = "."
DIGITS = "123456789"
NAMES = tuple(row + column for row in "ABCDEFGHI" for column in DIGITS)


def parse_grid(text: str) -> str:
    """A grid as people write it: "." or "0" for an empty cell, with blanks, lines and frames.

    Raises BadRequest if these are not 81 cells, or if two clues contradict each other.
    """
    grid = "".join(EMPTY if c in ".0" else c for c in text if c in DIGITS + ".0")
    if len(grid) != CELLS:
        raise BadRequest(f"a Sudoku has 81 cells, digits and dots; this one has {len(grid)}")
    contradiction = contradiction_in(grid)
    if contradiction:
        raise BadRequest(f"this Sudoku has no solution: {contradiction}")
    return grid


def contradiction_in(grid: str) -> str | None:
    """Two cells of a row, column or box that hold the same digit, in words; None without any."""
    for unit in UNITS:
        for digit in DIGITS:
            twice = [NAMES[cell] for cell in unit if grid[cell] == digit]
            if len(twice) > 1:
                return f"{twice[0]} and {twice[1]} are both {digit}"
    return None


def legend() -> str:
    """What stands in front of every grid: the names of its cells, a line for each row."""
    rows = (" ".join(NAMES[first : first + 9]) for first in range(0, CELLS, 9))
    return "".join(row + "\n" for row in rows)


def template(puzzle: str) -> Template:
    """A puzzle of 81 characters as a template: clues are fixed, each run of empty cells a hole.

    What a hole holds is its cells' digits, in order. Raises BadRequest if no cell is empty.
    """
    if EMPTY not in puzzle:
        raise BadRequest("this Sudoku has no empty cell")
    parts: list[Fixed | Hole] = [Fixed(legend())]
    for is_empty, cells in groupby(puzzle, EMPTY.__eq__):
        run = "".join(cells)
        parts.append(Hole(max_tokens=len(run)) if is_empty else Fixed(run))
    return tuple(parts)


def fill_in(puzzle: str, holes: tuple[str, ...]) -> str:
    """The puzzle with what its holes hold. Clues stay; a cell that got nothing stays empty."""
    texts = iter(holes)
    parts: list[str] = []
    for is_empty, cells in groupby(puzzle, EMPTY.__eq__):
        run = "".join(cells)
        parts.append(next(texts).ljust(len(run), EMPTY)[: len(run)] if is_empty else run)
    return "".join(parts)


def _units() -> tuple[tuple[int, ...], ...]:
    rows = [tuple(range(9 * r, 9 * r + 9)) for r in range(9)]
    columns = [tuple(range(c, CELLS, 9)) for c in range(9)]
    boxes = [
        tuple(9 * (r + i) + c + j for i in range(3) for j in range(3))
        for r in (0, 3, 6)
        for c in (0, 3, 6)
    ]
    return (*rows, *columns, *boxes)


UNITS = _units()
"""The cells of each row, column and box."""
