"""How somebody types, how fast and what they did last: when a suggestion is worth a run."""

from __future__ import annotations

from itertools import islice

from diffgemma_lsp.text.documents import Document

MOST_S = 0.15
"""A run never waits longer than this for the next key."""

_BREAK_S = 2.0
_FAST_S = 0.25
_RECENT = 16


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


def not_writing(document: Document, offset: int) -> str | None:
    """What the last change was if it left the cursor at `offset` without anything being written."""
    if not document.changes:
        return None
    last = document.changes[-1]
    if last.start + last.size != offset:
        return None  # the cursor has moved on since
    if last.size < last.end - last.start:
        return "something was just deleted"
    # A single character is more often typed again than restored.
    if last.size > 1 and any(
        (change.start, change.removed) == (last.start, last.new)
        for change in islice(reversed(document.changes), 1, _RECENT)
    ):
        return "something was just undone"
    return None
