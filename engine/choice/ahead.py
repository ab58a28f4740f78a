"""Guesses at how the likeliest continuation of a beam goes on.

A pass costs the same for one row as for eight, and a beam seldom fills them. What is left is used
to read ahead: behind the likeliest continuation stand the tokens that the masks of the last pass
guessed, or those that followed the same two tokens elsewhere in the text (prompt lookup), and
behind these new masks. Where a guess turns out to be what the beam goes on with, its row is there
already, and the beam takes several steps a pass. What it finds is the same as without.

Sources: masks that guess several tokens (arXiv 2507.11851), speculation in a tree (2305.09781).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from engine.attention.token_tree import ROOT, TokenTree, Written
from engine.text.typed import Writable

ROWS = 8
"""What a pass reads at the price of one row."""

FURTHEST = 3
"""Tokens that are guessed at a time."""

MASKS = 4
"""Masks that guess them."""

SURE = 0.35
"""A mask's token is worth a row from this probability on."""


class Ahead:
    """Adds guesses to a decoder's tree.

    context: the ids around the hole. end: what ends a hole, which is not guessed.
    """

    def __init__(
        self, tree: TokenTree, writable: Writable, context: Sequence[int], end: int | None
    ) -> None:
        self._tree, self._writable, self._end = tree, writable, end
        self._context = list(context)
        self._next = {pair: i + 2 for i, pair in enumerate(itertools.pairwise(context))}
        self._masked = Written()  # what the masks of the last pass stood behind
        self._guesses: list[int] = []
        self._asked = 0

    def add(self, best: Written, before: Sequence[int]) -> tuple[int, int]:
        """Guesses how `best` goes on, which the next pass reads; `before` are the ids in front of
        it. Returns what the tree's `spans` are to be asked for."""
        spare = -self._tree.unread % ROWS or (0 if self._tree.unread else ROWS)
        path = self._guess(best, before)[: min(FURTHEST, spare)]
        place = best.place
        for token in path:
            place = self._tree.add(token, place)
        self._asked = min(MASKS, spare - len(path))
        self._masked = Written((*best.ids, *path), 0.0, place)
        return place, self._asked

    def learn(self) -> None:
        """Takes what the masks of the last pass have guessed."""
        self._guesses = []
        if not self._asked:
            return
        probs = self._tree.model.logits(self._tree.masked).softmax(-1)
        top, best = (each.tolist() for each in probs.max(-1))
        for share, token in zip(top, best, strict=True):
            if share < SURE or token == self._end or not self._writable.next(())[token]:
                break
            self._guesses.append(token)

    def _guess(self, best: Written, before: Sequence[int]) -> list[int]:
        known, ids = self._masked.ids, best.ids
        if self._guesses and len(ids) > len(known) and ids[: len(known)] == known:
            # The first mask stands behind the token that `best` has gone on with.
            return self._guesses[len(ids) - len(known) - 1 :]
        if len(ids) + len(before) < 2 or best.place == ROOT:
            return []
        last = (*before[-2:], *ids)[-2:]
        at = self._next.get((last[0], last[1]))
        if at is None:
            return []
        follows = self._context[at : at + FURTHEST]
        return follows[: follows.index(self._end)] if self._end in follows else follows
