"""What was changed last in the open documents: which lines were replaced by which, and when.

Keys that continue one another are one edit. What is undone is no edit any more, and it is refused:
nobody wants to be offered what was just taken back. All of it is bounded, and forgotten with its
document.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from diffgemma_lsp.text.documents import Change
from diffgemma_lsp.text.offers import Offers
from diffgemma_lsp.text.text import Point, Text

CONTINUES_S = 30.0
"""What is changed in the same lines within this time belongs to the same edit."""

MOST_EDITS = 16
MOST_LINES, MOST_CHARS = 40, 4_000
"""An edit of more is not followed up: it is a paste, or another file."""

MOST_STATES = 8
"""So many texts of an edit are known, to tell what was undone."""

MOST_KNOWN = 128


@dataclass(slots=True, eq=False)
class Edit:
    """Lines that were changed. old: what stood there, with line ends; first, count: the lines that
    stand there now. when: of the last change, by time.monotonic(). origin: the number of the last
    change that made it, or, if it `follows` one, of that. had: what has stood
    there since. followed: an offer was taken up that follows it, so that what is changed there from
    now on is a new edit.
    """

    uri: str
    old: str
    first: int
    count: int
    when: float
    origin: int
    had: deque[str] = field(default_factory=lambda: deque[str](maxlen=MOST_STATES))
    follows: bool = False
    followed: bool = False

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
    offers: Offers = field(default_factory=Offers)
    _begun: int = 0  # edits so far
    known: dict[tuple[str, ...], tuple[float, ...]] = field(
        default_factory=dict[tuple[str, ...], tuple[float, ...]]
    )

    def of(self, uri: str) -> Iterator[Edit]:
        """The edits of a document, the newest first."""
        return (edit for edit in reversed(self._edits) if edit.uri == uri)

    def changed(self, uri: str, before: Text, change: Change, after: Text, now: float) -> None:
        """A document was changed; `change` is all that differs between the two texts."""
        start, end = before.point(change.start), before.point(change.end)
        # Whole lines that come or go above a line leave that as it is.
        whole = start.column == end.column == 0 and (not change.new or change.new[-1] in "\r\n")
        first, last = start.line, end.line
        grown = after.line_count - before.line_count
        self.offers.passed_by(uri, self._begun, now)
        self.offers.changed(uri, first, last - whole, grown, after)
        origin = self._origin(uri, first, before.content(first), after) if last == first else None
        continued = False
        for edit in list(self.of(uri)):
            if last - whole < edit.first:
                edit.first += grown
            elif first <= edit.last:
                _widen(edit, before, first, last, grown)
                if edit.new(after) == edit.old:
                    self._undone(edit)
                    continued = continued or not edit.followed
                elif len(edit.old) > MOST_CHARS or edit.count > MOST_LINES:
                    self._edits.remove(edit)
                else:
                    self._goes_on(edit, after, origin)
                    if now - edit.when <= CONTINUES_S and not edit.followed:
                        edit.when, continued = now, True
        last -= whole and bool(change.new)  # an edit has a line
        size = max(len(change.removed), len(change.new))
        if not continued and size <= MOST_CHARS and last - first + grown < MOST_LINES:
            old = lines_of(before, first, last)
            edit = Edit(uri, old, first, last - first + 1 + grown, now, self.offers.count)
            self._goes_on(edit, after, origin)
            self._edits.append(edit)
            self._begun += 1

    def closed(self, uri: str) -> None:
        """Forgets a document."""
        for edit in list(self.of(uri)):
            self._edits.remove(edit)
        self.known = {asked: said for asked, said in self.known.items() if asked[0] != uri}
        self.offers.closed(uri)

    def wanted(
        self, uri: str, line: int, old: str, choices: Iterable[str], origin: int
    ) -> tuple[str, ...]:
        """Those of the choices for a line that nobody refused since the change `origin`."""
        refused = self.offers.refused
        return tuple(new for new in choices if not refused(uri, line, old, new, origin))

    def remember(self, question: tuple[str, ...], gains: tuple[float, ...]) -> None:
        """Keeps what a model said of a place in `known`, for the next time it is asked."""
        self.known[question] = gains
        while len(self.known) > MOST_KNOWN:
            del self.known[next(iter(self.known))]

    def _goes_on(self, edit: Edit, text: Text, origin: int | None) -> None:
        """An edit has just got the text that it has now. origin: of the offer that did it."""
        edit.had.append(edit.new(text))
        if origin is None and edit.count == 1:  # perhaps one that came in several changes
            origin = self._origin(edit.uri, edit.first, edit.old.rstrip("\r\n"), text)
        edit.follows = origin is not None
        edit.origin = self.offers.count if origin is None else origin
        for one in self.of(edit.uri):
            one.followed |= one.origin == origin and not one.follows

    def _origin(self, uri: str, line: int, old: str, text: Text) -> int | None:
        return self.offers.followed(uri, line, old, text.content(line))

    def _follows(self, edit: Edit) -> bool:
        """Whether something still follows it."""
        return any(one.follows and one.origin == edit.origin for one in self.of(edit.uri))

    def _undone(self, edit: Edit) -> None:
        self._edits.remove(edit)
        if edit.follows:  # what it followed may have nothing left that follows it
            for one in self.of(edit.uri):
                one.followed &= one.origin != edit.origin or self._follows(one)
        lines = _contents(edit.old)
        for had in map(_contents, edit.had):
            if len(had) == len(lines):
                for number, (old, new) in enumerate(zip(lines, had, strict=True)):
                    if old != new:
                        self.offers.refuse(edit.uri, edit.first + number, old, new)


def lines_of(text: Text, first: int, last: int) -> str:
    """These lines, both included, with their ends."""
    last = min(last, text.line_count - 1)
    if last < first:
        return ""
    return text.between(Point(first, 0), Point(last, len(text.line(last))))


def _contents(lines: str) -> list[str]:
    text = Text.of(lines)
    return [text.content(number) for number in range(text.line_count)]


def _widen(edit: Edit, before: Text, first: int, last: int, grown: int) -> None:
    """Has an edit take in the lines that were just changed, with what stood there."""
    low, high = min(first, edit.first), max(last, edit.last)
    above, below = lines_of(before, low, edit.first - 1), lines_of(before, edit.last + 1, high)
    edit.old = above + edit.old + below
    edit.had = deque((above + had + below for had in edit.had), MOST_STATES)
    edit.first, edit.count = low, high - low + 1 + grown
