"""Which lines were offered in the place of others, and which of those nobody wants.

What was refused, undone or passed by stays away as long as it follows the changes of before: a line
that is changed, or a change that came later, may be followed by the same again. Lines are known
wherever they stand by now, in the documents that are open; all of it is bounded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from diffgemma_lsp.text.text import Text

MOST_OFFERS = 256

SEEN_S = 1.0
"""What is offered for less was hardly seen: an answer that came too late, or got lost."""

MOST_PASSES = 3
"""What was seen before so many other edits counts as refused."""


@dataclass(slots=True, eq=False)
class _Offer:
    """`new` in place of `old`, in a line. origin: the number of the last change that it followed.
    since: when it was offered, if nothing was changed since. passes: edits that were made in its
    stead; last: the number of the last of them. refused: the number of changes when it was, -1 if
    it wasn't."""

    uri: str
    line: int
    old: str
    new: str
    origin: int = -1
    since: float | None = None
    passes: int = 0
    last: int = -1
    refused: int = -1


@dataclass(slots=True)
class Offers:
    """count: the changes so far, of all documents."""

    count: int = 0
    _offers: deque[_Offer] = field(default_factory=lambda: deque[_Offer](maxlen=MOST_OFFERS))

    def offered(self, uri: str, line: int, old: str, new: str, origin: int, now: float) -> None:
        """It is offered, after the change `origin`."""
        offer = self._the(uri, line, old, new)
        offer.origin, offer.since = origin, now if offer.since is None else offer.since

    def refuse(self, uri: str, line: int, old: str, new: str) -> None:
        """It is not wanted after any of the changes so far."""
        self._the(uri, line, old, new).refused = self.count

    def refused(self, uri: str, line: int, old: str, new: str, origin: int) -> bool:
        """Whether it is not wanted after the change `origin`."""
        return any(origin <= offer.refused for offer in self._of(uri, line, old, new))

    def followed(self, uri: str, line: int, old: str, new: str) -> int | None:
        """The change that an offer followed which has been taken up; None if it was no offer."""
        found = [one.origin for one in self._of(uri, line, old, new) if one.origin >= 0]
        return found[-1] if found else None

    def passed_by(self, uri: str, edit: int, now: float) -> None:
        """A document is changed, after `edit` edits. Whoever goes on with other edits again and
        again does not want what is offered."""
        for offer in self._offers:
            if offer.uri != uri or offer.since is None:
                continue
            if now - offer.since >= SEEN_S and offer.last != edit:
                offer.last, offer.passes = edit, offer.passes + 1
            if offer.passes >= MOST_PASSES:
                offer.passes, offer.refused = 0, self.count
            offer.since = None

    def changed(self, uri: str, first: int, last: int, grown: int, after: Text) -> None:
        """The lines `first` to `last` were changed, and are more by `grown`."""
        self.count += 1
        for offer in self._offers:
            if offer.uri != uri or offer.line < first or not grown:
                continue
            moved = offer.line + grown
            stays = offer.line < after.line_count and after.content(offer.line) == offer.old
            if offer.line > last or (not stays and _holds(after, moved, offer.old)):
                offer.line = moved

    def closed(self, uri: str) -> None:
        """Forgets a document."""
        self._offers = deque((one for one in self._offers if one.uri != uri), MOST_OFFERS)

    def _the(self, uri: str, line: int, old: str, new: str) -> _Offer:
        for offer in self._of(uri, line, old, new):
            return offer
        self._offers.append(_Offer(uri, line, old, new))
        return self._offers[-1]

    def _of(self, uri: str, line: int, old: str, new: str) -> Iterator[_Offer]:
        for offer in self._offers:
            if (offer.uri, offer.line, offer.old, offer.new) == (uri, line, old, new):
                yield offer


def _holds(text: Text, line: int, content: str) -> bool:
    return 0 <= line < text.line_count and text.content(line) == content
