"""Which notebooks are open, and which cells they have, in their order.

The texts of cells are documents like any other, each under the URI of its cell. What a client gets
wrong is logged, never raised.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import NamedTuple

logger = logging.getLogger(__name__)


class Cell(NamedTuple):
    """A cell by the URI of its text. What is not code is prose."""

    uri: str
    code: bool


class Notebooks:
    """The open notebooks."""

    def __init__(self) -> None:
        self._open: dict[str, list[Cell]] = {}

    def cells(self, uri: str) -> list[Cell] | None:
        """The cells of the notebook at `uri`, if it is open."""
        return self._open.get(uri)

    def open(self, uri: str, cells: Iterable[Cell]) -> None:
        """Takes a notebook in."""
        self._open[uri] = list(cells)

    def splice(self, uri: str, start: int, delete_count: int, cells: Iterable[Cell]) -> None:
        """Puts `cells` in the place of `delete_count` cells from `start` on."""
        known = self._open[uri]
        if start + delete_count > len(known):
            logger.warning("%s has only %d cells", uri, len(known))
        known[start : start + delete_count] = cells

    def update(self, uri: str, cells: Iterable[Cell]) -> None:
        """Takes what was said anew of cells that are there."""
        told = {cell.uri: cell for cell in cells}
        self._open[uri] = [told.get(cell.uri, cell) for cell in self._open[uri]]

    def close(self, uri: str) -> list[Cell]:
        """Forgets a notebook. Its cells, if it was open."""
        return self._open.pop(uri, [])

    def home(self, cell_uri: str) -> str | None:
        """The URI of the notebook that a cell is in."""
        homes = (u for u, cells in self._open.items() if any(c.uri == cell_uri for c in cells))
        return next(homes, None)

    def around(self, cell_uri: str) -> tuple[list[str], list[str]]:
        """The URIs of the code cells before a cell, and of those after it, in its notebook."""
        home = self.home(cell_uri)
        if home is None:
            return [], []
        cells = self._open[home]
        at = next(at for at, cell in enumerate(cells) if cell.uri == cell_uri)
        before, after = cells[:at], cells[at + 1 :]
        return [c.uri for c in before if c.code], [c.uri for c in after if c.code]
