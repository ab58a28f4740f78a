"""What became of a suggestion, read off the document: no client has to tell.

Whoever accepts a suggestion, all of it or a word, has two characters or more of it put in at its
place by one change; who types through it has one at a time. So a single character is never taken
for accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from diffgemma_lsp.stats.counts import Kind
from diffgemma_lsp.text.documents import Change, Documents

LOOKS: tuple[tuple[float, Kind, Kind], ...] = (
    (30.0, "seen_after_30s", "kept_30s"),
    (300.0, "seen_after_5min", "kept_5min"),
)
"""Seconds after which what was accepted is looked for, and what is counted then."""


class Timer(Protocol):
    """What `later` gives."""

    def cancel(self) -> None: ...


Later = Callable[[float, Callable[[], None]], Timer]
"""Calls something after so many seconds."""


@dataclass(slots=True)
class Shown:
    """A suggestion that an editor shows. at: the offset of what is left of it. taken: what was
    accepted; before: what stood before that in its line."""

    uri: str
    language: str
    confidence: float | None
    at: int
    left: str
    before: str = ""
    taken: str = ""


class Sent(NamedTuple):
    """What an editor was sent: at the cursor's offset it shows what `edit` would put in there."""

    at: int
    edit: Change
    confidence: float | None


@dataclass(slots=True)
class Acceptances:
    """Counts what is shown, accepted and kept.

    count: is told of each. later: of the event loop. sent: what an editor was sent last for each
    document: who answers leaves it here and goes on, and it is looked at when something happens.
    """

    documents: Documents
    count: Callable[[Kind, str, float | None, int], None]
    later: Later
    sent: dict[str, Sent] = field(default_factory=dict[str, "Sent"])
    _shown: dict[str, Shown] = field(default_factory=dict[str, Shown])
    _timers: set[Any] = field(default_factory=set[Any])

    def settle(self) -> None:
        """Looks at all that was sent."""
        for uri in list(self.sent):
            self._show(uri, *self.sent.pop(uri))

    def changed(self, uri: str, changes: Sequence[Change]) -> None:
        """The document was changed."""
        self.settle()
        for change in changes:
            shown = self._shown.get(uri)
            if shown is not None and not self._went_along(shown, change):
                del self._shown[uri]

    def closed(self, uri: str) -> None:
        """The document is about to be forgotten."""
        self.settle()
        self._shown.pop(uri, None)

    def stop(self) -> None:
        """Looks for nothing any more."""
        self.settle()
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def _show(self, uri: str, at: int, edit: Change, confidence: float | None) -> None:
        document, new = self.documents.get(uri), _put_in(edit, at)
        if document is None or not new:
            return
        known = self._shown.get(uri)
        if known is not None and known.at == at and known.left.startswith(new):
            known.left = new  # the rest of what is being typed, or taken word by word
            return
        self._shown[uri] = Shown(uri, document.language_id, confidence, at, new)
        self.count("shown", document.language_id, confidence, 1)

    def _went_along(self, shown: Shown, change: Change) -> bool:
        """Whether the change wrote what was shown, and some of it is left."""
        new = _put_in(change, shown.at)
        if not new or not shown.left.startswith(new):
            return False
        shown.at, shown.left = shown.at + len(new), shown.left[len(new) :]
        if len(new) > 1:
            self._accepted(shown, new)
        return bool(shown.left)

    def _accepted(self, shown: Shown, new: str) -> None:
        first, shown.taken = not shown.taken, shown.taken + new
        counted = (shown.language, shown.confidence)
        self.count("characters", *counted, len(new))
        if not shown.left:
            self.count("accepted_whole", *counted, 1)
        if first:
            self.count("accepted", *counted, 1)
            shown.before = self._line_before(shown.uri, shown.at - len(new))
            for seconds, seen, kept in LOOKS:
                self._look_later(seconds, shown, seen, kept)

    def _line_before(self, uri: str, at: int) -> str:
        document = self.documents.get(uri)
        if document is None:
            return ""
        point = document.text.point(min(at, len(document.text)))
        return document.text.line(point.line)[: point.column]

    def _look_later(self, seconds: float, shown: Shown, seen: Kind, kept: Kind) -> None:
        def look() -> None:
            self._timers.discard(timer)
            document = self.documents.get(shown.uri)
            if document is None:
                return
            self.count(seen, shown.language, shown.confidence, 1)
            # White space aside: a formatter may have been there.
            wanted = "".join((shown.before + shown.taken).split())
            if wanted in "".join(str(document.text).split()):
                self.count(kept, shown.language, shown.confidence, 1)

        timer = self.later(seconds, look)
        self._timers.add(timer)


def _put_in(change: Change, at: int) -> str:
    """What a change puts in at an offset, if that is all it does; editors replace the word under
    the cursor by one that begins with it, and some the whole document."""
    inside = at - change.start
    if not 0 <= inside <= len(change.removed):
        return ""
    before, after = change.removed[:inside], change.removed[inside:]
    grows = len(change.new) > len(change.removed)
    if not grows or not change.new.startswith(before) or not change.new.endswith(after):
        return ""
    return change.new[inside : len(change.new) - len(after)]
