"""Guesses at how a continuation goes on, which a pass reads beside what it has to.

Behind the likeliest continuation stand the tokens that the masks of the last pass guessed, or those
that followed the same two tokens elsewhere in the text (prompt lookup), and behind these new masks.
Where a guess turns out to be what comes next, its row is there already, and a pass gives several
tokens.

Sources: masks that guess several tokens (arXiv 2507.11851), speculation in a tree (2305.09781).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log

from torch import Tensor

from engine.text.typed import Writable

FURTHEST = 4
"""Tokens that are guessed at a time."""

MASKS = 3
"""Masks that guess them."""

SURE = 0.35
"""A mask's token is worth a row from this probability on."""


class Ahead:
    """Guesses by what the masks of the last pass said, and by what stands around the hole.

    before, after: the ids around the hole. end: what ends a hole, which is not guessed.
    """

    def __init__(
        self, writable: Writable, before: Sequence[int], after: Sequence[int], end: int
    ) -> None:
        self._writable, self._end = writable, end
        self._last = tuple(before[-2:])
        self._follows: dict[
            tuple[int, ...], list[int]
        ] = {}  # two tokens, by the last place of them
        for side in (after, before):
            for i in range(2, len(side)):
                pair, follows = tuple(side[i - 2 : i]), list(side[i : i + FURTHEST])
                if len(follows) == FURTHEST or pair not in self._follows:
                    self._follows[pair] = follows
        self._behind: tuple[int, ...] = ()  # what the masks of the last pass stood behind
        self._guesses: list[int] = []

    def masks(self, room: int) -> int:
        """How many masks to read, if so many rows are free."""
        return min(MASKS, room)

    def asked(self, ids: tuple[int, ...]) -> None:
        """The next pass reads masks behind `ids`."""
        self._behind, self._guesses = ids, []

    def learn(self, logs: Tensor) -> None:
        """Takes the log-probabilities [m, V] that the masks gave."""
        if not len(logs):
            return
        top, best = (each.tolist() for each in logs.max(-1))
        for share, token in zip(top, best, strict=True):
            if share < log(SURE) or token == self._end or not self._writable.next(())[token]:
                break
            self._guesses.append(token)

    def guess(self, ids: tuple[int, ...]) -> list[int]:
        """How `ids` may go on."""
        known = self._behind
        if self._guesses and len(ids) > len(known) and ids[: len(known)] == known:
            # The first mask stands behind the token that `ids` has gone on with.
            return self._guesses[len(ids) - len(known) - 1 :][:FURTHEST]
        follows = self._follows.get((*self._last, *ids)[-2:], [])
        return follows[: follows.index(self._end)] if self._end in follows else follows
