"""Continuations of a prefix that share their beginnings.

Every token is encoded once, and sees the prefix and the tokens above it (tree attention: Miao et
al., arXiv 2305.09781). So many continuations are gone on with in one pass, and none of their keys
and values is ever moved.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.prefix_cache import PrefixCache

ROOT = -1
"""The place of the prefix' last token, below which the first tokens stand."""


class TokenTree:
    """A tree behind `prefix`, with room for so many tokens.

    Its keys and values stand where a canvas' would: the next canvas overwrites them, and the tree
    is done for.
    """

    def __init__(self, prefix: PrefixCache, room: int) -> None:
        self._prefix = prefix
        device = prefix.model.device
        self._depths = torch.zeros(0, dtype=torch.long, device=device)
        self._above = torch.zeros(0, 0, dtype=torch.bool, device=device)
        prefix.reserve(len(prefix.ids) + room)

    def __len__(self) -> int:
        return len(self._depths)

    def grow(self, ids: Sequence[int], parents: Sequence[int]) -> Tensor:
        """Adds `ids`, each below the token at its parent's place; returns hidden rows [n, d].

        Places count from 0 in the order in which tokens were added, also within one call; a
        parent stands before its child.
        """
        old, total = len(self), len(self) + len(ids)
        above = torch.zeros(total, total, dtype=torch.bool, device=self._above.device)
        above[:old, :old] = self._above
        for place, parent in enumerate(parents, old):
            if parent != ROOT:
                above[place] = above[parent]
            above[place, place] = True
        self._above = above
        self._depths = above.sum(1) - 1
        return self._prefix.branches(ids, self._depths, above[old:])
