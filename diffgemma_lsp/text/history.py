"""What was changed last in the open documents: which lines were replaced by which, and when.

Keys that continue one another are one edit. What is undone is no edit any more, and its place is
remembered: nobody wants to be offered again what was just taken back. All of it is bounded, and
forgotten with its document.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from diffgemma_lsp.text.documents import Change
from diffgemma_lsp.text.text import Point, Text

CONTINUES_S = 30.0
"""What is changed in the same lines within this time belongs to the same edit."""

MOST_EDITS = 16
MOST_LINES, MOST_CHARS = 40, 4_000
"""An edit of more is not followed up: it is a paste, or another file."""

MOST_REFUSED = 256

MOST_KNOWN = 128

MOST_OFFERS = 3
"""After so many edits during which it was offered a place counts as refused."""

Spot = tuple[str, str, str]
"""A line where it stands: the document, the line above, and itself."""


@dataclass(slots=True, eq=False)
class Edit:
    """Lines that were changed. old: what stood there, with line ends; first, count: the lines that
    stand there now. when: of the last change, by time.monotonic()."""

    uri: str
    old: str
    first: int
    count: int
    when: float

    @property
    def last(self) -> int:
        """The last of its lines, or the one above, if none is left."""
        return self.first + self.count - 1

    def new(self, text: Text) -> str:
        """What stands there now. text: the document's."""
        return lines_of(text, self.first, self.last)


@dataclass(slots=True)
class History:
    """The last edits, the newest last."""

    _edits: deque[Edit] = field(default_factory=lambda: deque[Edit](maxlen=MOST_EDITS))
    _refused: deque[Spot] = field(default_factory=lambda: deque[Spot](maxlen=MOST_REFUSED))
    _offered: dict[Spot, tuple[int, int]] = field(default_factory=dict[Spot, tuple[int, int]])
    _begun: int = 0  # edits so far
    known: dict[tuple[str, ...], tuple[float, ...]] = field(
        default_factory=dict[tuple[str, ...], tuple[float, ...]]
    )

    def of(self, uri: str) -> Iterator[Edit]:
        """The edits of a document, the newest first."""
        return (edit for edit in reversed(self._edits) if edit.uri == uri)

    def changed(self, uri: str, before: Text, change: Change, after: Text, now: float) -> None:
        """A document was changed; `change` is all that differs between the two texts."""
        first, last = before.point(change.start).line, before.point(change.end).line
        grown = after.line_count - before.line_count
        continued = False
        for edit in list(self.of(uri)):
            if last < edit.first:
                edit.first += grown
            elif first <= edit.last:
                _widen(edit, before, first, last, grown)
                if edit.new(after) == edit.old:
                    self._undone(edit, after)
                    continued = True
                elif len(edit.old) > MOST_CHARS or edit.count > MOST_LINES:
                    self._edits.remove(edit)
                elif now - edit.when <= CONTINUES_S:
                    edit.when, continued = now, True
        size = max(len(change.removed), len(change.new))
        if not continued and size <= MOST_CHARS and last - first + grown < MOST_LINES:
            old = lines_of(before, first, last)
            self._edits.append(Edit(uri, old, first, last - first + 1 + grown, now))
            self._begun += 1

    def closed(self, uri: str) -> None:
        """Forgets a document."""
        for edit in list(self.of(uri)):
            self._edits.remove(edit)
        self.known = {asked: said for asked, said in self.known.items() if asked[0] != uri}
        self._offered = {spot: said for spot, said in self._offered.items() if spot[0] != uri}
        self._refused = deque((spot for spot in self._refused if spot[0] != uri), MOST_REFUSED)

    def refuse(self, spot: Spot) -> None:
        """Nothing is to be offered there any more."""
        self._refused.append(spot)

    def offered(self, spot: Spot) -> None:
        """Something is offered there. Whoever goes on with other edits again and again does not
        want it."""
        last, times = self._offered.pop(spot, (-1, 0))
        self._offered[spot] = (self._begun, times + (last != self._begun))
        if self._offered[spot][1] >= MOST_OFFERS:
            self.refuse(spot)
        while len(self._offered) > MOST_REFUSED:
            del self._offered[next(iter(self._offered))]

    def remember(self, question: tuple[str, ...], gains: tuple[float, ...]) -> None:
        """Keeps what a model said of a place in `known`, for the next time it is asked."""
        self.known[question] = gains
        while len(self.known) > MOST_KNOWN:
            del self.known[next(iter(self.known))]

    def refused(self, spot: Spot) -> bool:
        """Whether the user took back, or did not want, what was there."""
        return spot in self._refused

    def _undone(self, edit: Edit, text: Text) -> None:
        self._edits.remove(edit)
        for line in range(edit.first, min(edit.last + 1, text.line_count)):
            self.refuse(spot_of(edit.uri, text, line))


def spot_of(uri: str, text: Text, line: int) -> Spot:
    """Line `line` of a document, wherever it will stand later."""
    return uri, text.content(line - 1) if line else "", text.content(line)


def lines_of(text: Text, first: int, last: int) -> str:
    """These lines, both included, with their ends."""
    last = min(last, text.line_count - 1)
    if last < first:
        return ""
    return text.between(Point(first, 0), Point(last, len(text.line(last))))


def _widen(edit: Edit, before: Text, first: int, last: int, grown: int) -> None:
    """Has an edit take in the lines that were just changed, with what stood there."""
    low, high = min(first, edit.first), max(last, edit.last)
    above, below = lines_of(before, low, edit.first - 1), lines_of(before, edit.last + 1, high)
    edit.old = above + edit.old + below
    edit.first, edit.count = low, high - low + 1 + grown
