"""What is open: documents, how they are being typed in, and notebooks with the cells among them.

What a client gets wrong is logged, never raised.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from diffgemma_lsp.text.text import Text

logger = logging.getLogger(__name__)


class Change(NamedTuple):
    """One change of a text: `new` in place of `removed`, which stood from `start` to `end`.

    Both are offsets in characters into the text as it was before.
    """

    start: int
    end: int
    removed: str
    new: str


class Trace(NamedTuple):
    """What is remembered of a change: where it was, and how much was removed and is new.

    removed, new: the texts, or what stands for one that is long: they are only compared.
    """

    start: int
    end: int
    size: int
    removed: str | int
    new: str | int

    @classmethod
    def of(cls, change: Change) -> Trace:
        """The trace that a change leaves, a small one however large the change is."""
        removed, new = (
            text if len(text) <= _LONG else hash(text) for text in (change.removed, change.new)
        )
        return cls(change.start, change.end, len(change.new), removed, new)


# Changes that are looked through for one that was undone.
_RECENT = 16
# Characters of a text that is remembered as it is.
_LONG = 200
# Changes of a document that are remembered. What runs for longer than it takes to make so many has
# no place to come back to.
_CHANGES = 1_000


@dataclass(slots=True)
class Document:
    """An open document, as the client last described it, and what changed last.

    revision: counts the changes. Unlike `version` it is not the client's, so it always rises.
    """

    uri: str
    language_id: str
    version: int
    text: Text
    revision: int = 0
    changes: deque[Trace] = field(default_factory=lambda: deque[Trace](maxlen=_CHANGES))

    def moved(self, revision: int, start: int, end: int) -> tuple[int, int] | None:
        """Where now is what stood from offset `start` to `end` at an earlier revision.

        None if it, or what touches it, was changed, or if that is too long ago to be known.
        """
        count = self.revision - revision
        if count > len(self.changes):
            return None
        for change in islice(self.changes, len(self.changes) - count, None):
            if change.end < start:
                growth = change.size - (change.end - change.start)
                start, end = start + growth, end + growth
            elif change.start <= end:
                return None
        return start, end

    def not_writing(self, offset: int) -> str | None:
        """What the last change was if it left the cursor at `offset` without anything being
        written."""
        if not self.changes:
            return None
        last = self.changes[-1]
        if last.start + last.size != offset:
            return None  # the cursor has moved on since
        if last.size < last.end - last.start:
            return "something was just deleted"
        # A single character is more often typed again than restored.
        if last.size > 1 and any(
            (change.start, change.removed) == (last.start, last.new)
            for change in islice(reversed(self.changes), 1, _RECENT)
        ):
            return "something was just undone"
        return None


MOST_S = 0.15
"""A run never waits longer than this for the next key."""

_BREAK_S = 2.0
_FAST_S = 0.25


class Pace:
    """The rhythm of the keys: a running mean of the seconds between them."""

    def __init__(self) -> None:
        self._last = -1e9
        self._mean = _FAST_S

    def key(self, now: float) -> None:
        """Something was typed."""
        gap = now - self._last
        if gap < _BREAK_S:
            self._mean += 0.3 * (gap - self._mean)
        self._last = now

    def wait_s(self, now: float) -> float:
        """For how long the next key is to be expected: 0 for who types slowly, or has paused.

        A run that begins before it comes is in vain.
        """
        if self._mean >= _FAST_S:
            return 0.0
        return max(0.0, min(1.2 * self._mean, MOST_S) - (now - self._last))


class Documents:
    """The open documents. notebooks: those that some of them are cells of. pace: how fast somebody
    types in any of them."""

    def __init__(self) -> None:
        self._open: dict[str, Document] = {}
        self.notebooks = Notebooks()
        self.pace = Pace()

    @property
    def all(self) -> list[Document]:
        """What is open."""
        return list(self._open.values())

    def get(self, uri: str) -> Document | None:
        """The document at `uri`, if it is open."""
        return self._open.get(uri)

    def version(self, uri: str) -> int | None:
        """The version of what is open at `uri`."""
        document = self._open.get(uri)
        return None if document is None else document.version

    def home(self, uri: str) -> str:
        """The URI of the notebook that a document is a cell of, else its own."""
        return self.notebooks.home(uri) or uri

    def cells_around(self, document: Document) -> tuple[tuple[Text, ...], tuple[Text, ...]]:
        """The code cells before and after a document in its notebook, if it is a cell of one."""

        def texts(uris: Iterable[str]) -> tuple[Text, ...]:
            cells = (self._open.get(uri) for uri in uris)
            # Another language would be read as a part of this one.
            return tuple(cell.text for cell in cells if cell and cell.language_id == own)

        own = document.language_id
        before, after = self.notebooks.around(document.uri)
        return texts(before), texts(after)

    def open(self, document: Document) -> None:
        """Takes `document` in, in place of what was open under its URI."""
        if document.uri in self._open:
            logger.warning("%s was opened again without having been closed", document.uri)
        self._open[document.uri] = document

    def update(self, uri: str, version: int, text: Text, changes: Sequence[Change] = ()) -> None:
        """Gives an open document its new text, which `changes` led to, one after the other."""
        document = self._open[uri]
        if version <= document.version:
            # The edit is taken all the same: without it the text would be wrong for good.
            logger.warning("%s went from version %d to %d", uri, document.version, version)
        document.version, document.text = version, text
        document.changes.extend(map(Trace.of, changes))
        document.revision += len(changes)

    def close(self, uri: str) -> None:
        """Forgets the document."""
        if self._open.pop(uri, None) is None:
            logger.warning("%s was closed but not open", uri)


class Cell(NamedTuple):
    """A cell by the URI of its text. What is not code is prose."""

    uri: str
    code: bool


class Notebooks:
    """The open notebooks."""

    def __init__(self) -> None:
        self._open: dict[str, list[Cell]] = {}

    @property
    def all(self) -> list[str]:
        """Their URIs."""
        return list(self._open)

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
