"""`diffgemma-lsp demo sudoku`: a grid settles, and corrects itself, by denoising alone.

The puzzle is a template like any other: clues are fixed text, empty cells are holes, and the engine
fills them as it fills code. Nothing in it knows the rules; they are checked when it is done. The
passes take moments, so they are kept and then shown one after the other, slowly enough to be seen.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from diffgemma_lsp.commands import UsageError
from diffgemma_lsp.commands.streaming import connected, follow
from diffgemma_lsp.commands.view import tint
from engine.errors import BadRequest
from engine.sudoku import EMPTY, MODEL, contradiction_in, fill_in, parse_grid, template
from engine.types import Frame, Infill, InfillRequest

PUZZLE = """
53. .7. ...
6.. 195 ...
.98 ... .6.
8.. .6. ..3
4.. 8.3 ..1
7.. .2. ..6
.6. ... 28.
... 419 ..5
... .8. .79
"""

SECONDS_PER_PASS = 0.4
SEED = 0

_CLUE, _FRAME, _CHANGED = "grey62", "grey39", "reverse"


@dataclass(frozen=True, slots=True)
class Cell:
    """What a cell shows. certainty: None for a clue. changed: whether its digit was another one
    a pass ago."""

    text: str
    certainty: float | None
    changed: bool = False


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this show."""
    parser.add_argument(
        "--grid",
        metavar="FILE",
        help="a Sudoku to solve: 81 digits and dots, with any frames (default: one with 30 clues)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Has the model fill the grid, shows its passes, and says whether the grid is right."""
    puzzle = _read(arguments.grid)
    arguments.model = arguments.model or str(MODEL)
    frames, infill = asyncio.run(_fill(arguments, puzzle))
    console = Console(highlight=False)
    shown = pictures(puzzle, frames)
    if console.is_terminal:
        _play(console, shown)
    else:
        console.print(shown[-1])
    grid = fill_in(puzzle, infill.holes)
    ms = infill.timings.get("total", 0.0)
    console.print(f"{verdict(puzzle, grid)} {infill.steps} passes in {ms:.0f} ms.")
    return 0


def pictures(puzzle: str, frames: Sequence[Frame]) -> list[RenderableType]:
    """What there is to see: the puzzle, and the grid after each pass."""
    before = [Cell("·" if clue == EMPTY else clue, None) for clue in puzzle]
    shown: list[RenderableType] = [draw(before, "the puzzle")]
    for frame in frames:
        after = cells_of(puzzle, frame, before)
        shown.append(draw(after, _counter(frame)))
        before = after
    return shown


def cells_of(puzzle: str, frame: Frame, before: Sequence[Cell]) -> list[Cell]:
    """The 81 cells as a pass left them. before: as they were a pass earlier."""
    pieces = iter([piece for hole in frame.holes for piece in hole])
    cells: list[Cell] = []
    for clue, old in zip(puzzle, before, strict=True):
        if clue == EMPTY:
            piece = next(pieces)
            changed = old.certainty is not None and old.text != piece.text
            cells.append(Cell(piece.text, piece.certainty, changed))
        else:
            cells.append(Cell(clue, None))
    return cells


def draw(cells: Sequence[Cell], note: str) -> Panel:
    """The grid in a frame: clues grey, digits tinted by certainty, changed ones reversed."""
    lines: list[Text] = []
    for row in range(9):
        if row in (3, 6):
            lines.append(Text("──────┼───────┼──────", _FRAME))
        line = Text()
        for column, cell in enumerate(cells[9 * row : 9 * row + 9]):
            if column in (3, 6):
                line.append("│ ", _FRAME)
            line.append(cell.text, _style(cell))
            line.append(" " if column < 8 else "")
        lines.append(line)
    return Panel(
        Text("\n").join(lines),
        title="sudoku",
        subtitle=Text(note),
        title_align="left",
        subtitle_align="right",
        border_style=_FRAME,
        padding=(0, 1),
        width=44,
    )


def verdict(puzzle: str, grid: str) -> str:
    """Whether a grid keeps to the rules; only here are they checked."""
    assert all(clue in (EMPTY, cell) for clue, cell in zip(puzzle, grid, strict=True))
    contradiction = contradiction_in(grid)
    if contradiction:
        return f"Not solved: {contradiction}."
    return "Not solved: cells are empty." if EMPTY in grid else "Solved."


async def _fill(arguments: argparse.Namespace, puzzle: str) -> tuple[list[Frame], Infill]:
    frames: list[Frame] = []
    async with connected(arguments) as client:
        request = InfillRequest(template(puzzle), seed=SEED)
        infill = await follow(client, request, frames.append)
    return frames, infill


def _play(console: Console, shown: Sequence[RenderableType]) -> None:
    with Live(shown[0], console=console, auto_refresh=False) as live:
        for picture in shown[1:]:
            time.sleep(SECONDS_PER_PASS)
            live.update(picture, refresh=True)


def _counter(frame: Frame) -> str:
    pieces = [piece for hole in frame.holes for piece in hole]
    settled = sum(piece.certainty > 0.9 for piece in pieces)
    return f"pass {frame.step} · {settled} of {len(pieces)} cells settled"


def _style(cell: Cell) -> str:
    if cell.certainty is None:
        return _CLUE
    return f"{tint(cell.certainty)} {_CHANGED if cell.changed else ''}".strip()


def _read(name: str | None) -> str:
    if name is None:
        return parse_grid(PUZZLE)
    try:
        return parse_grid(Path(name).expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"can't read {name}: {error}") from error
    except BadRequest as error:
        raise UsageError(f"{name}: {error}") from error
