"""Continuations of a prefix that share their beginnings.

Every token is encoded once, and sees the prefix and the tokens above it (tree attention: Miao et
al., arXiv 2305.09781). So many continuations are gone on with in one pass, alone or beside a
canvas, what was encoded for one is there for all, and no keys and values are ever moved.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from engine.attention.prefix_cache import Branches, PrefixCache

ROOT = -1
"""The place of the prefix' last token, below which the first tokens stand."""


class TokenTree:
    """A tree behind a prefix, in a copy of it: the prefix itself stays free for canvases.

    Places count from 0 in the order in which tokens are added. What is added is encoded by the
    next `encode` or `encode_beside`; only then its row is known. The prefix' last row must be.
    """

    def __init__(self, prefix: PrefixCache, room: int = 512) -> None:
        assert prefix.last is not None
        self._cache = prefix.copy(room)
        self._places: dict[tuple[int, int], int] = {}
        self._ids: list[int] = []
        self._parents: list[int] = []
        self._rows = [prefix.last[0]]  # the root's first
        self._above = torch.zeros(0, 0, dtype=torch.bool, device=prefix.model.device)

    @property
    def pending(self) -> bool:
        """Whether there is something to encode."""
        return len(self._ids) + 1 > len(self._rows)

    def add(self, token: int, parent: int = ROOT) -> int:
        """The place of `token` below the one at `parent`; a new one if it is not there yet."""
        place = self._places.setdefault((parent, token), len(self._ids))
        if place == len(self._ids):
            self._ids.append(token)
            self._parents.append(parent)
        return place

    def path(self, ids: Iterable[int], parent: int = ROOT) -> list[int]:
        """The places of tokens that stand one below the other."""
        places: list[int] = []
        for token in ids:
            parent = self.add(token, parent)
            places.append(parent)
        return places

    def rows(self, places: Sequence[int]) -> Tensor:
        """Hidden rows [n, d] of what is encoded."""
        return torch.stack([self._rows[place + 1] for place in places])

    def log_probs(self, places: Sequence[int]) -> Tensor:
        """What may come below each of them: log-probabilities [n, V] in nats."""
        return self._cache.model.logits(self.rows(places)).log_softmax(-1)

    def encode(self) -> None:
        """Encodes what was added, if anything was."""
        if self.pending:
            ids, positions, attend = self._branches()
            model = self._cache.model
            self._rows += model.encode(ids.unsqueeze(0), positions, attend)[0].unbind()

    def encode_beside(self, prefix: PrefixCache, canvas: Tensor, soft: Tensor | None) -> Tensor:
        """The same in one pass with a canvas behind `prefix`; returns its hidden rows [T, d]."""
        if not self.pending:
            return prefix.canvas(canvas, soft)
        hidden, rows = prefix.canvas_beside(canvas, soft, self._branches())
        self._rows += rows.unbind()
        return hidden

    def _branches(self) -> Branches:
        known, total = len(self._rows) - 1, len(self._ids)
        above = self._above.new_zeros(total, total)
        above[:known, :known] = self._above
        for place in range(known, total):
            parent = self._parents[place]
            if parent != ROOT:
                above[place] = above[parent]
            above[place, place] = True
        self._above = above
        return self._cache.branches(self._ids[known:], above.sum(1) - 1, above[known:])
