"""The prefix's keys and values, kept between requests.

The encoder is causal, so what it computed for a prefix holds for every text that begins with it:
only what comes after the longest shared beginning is computed anew. All layers keep all positions
(sliding ones too), so the cache can be cut at any point and stays exact.

The canvas' keys and values are written behind the prefix' in the same buffers, and overwritten by
the next pass: for a canvas the prefix is never copied. What is read causally has a copy of its own
(engine/attention/token_tree.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from engine.backbones.config import ModelConfig
from engine.backbones.diffusion_gemma import Attend, DiffusionGemma, read

GROWTH = 1024
"""Buffers grow by at least so many tokens, so that typing doesn't move them at each key."""


class Branches(NamedTuple):
    """Tokens of a tree that are to be encoded: ids [n], positions [n], and how they read."""

    ids: Tensor
    positions: Tensor
    attend: Attend


class PrefixCache:
    """Keys and values of one sequence. `ids` are the prefix tokens that it holds."""

    def __init__(self, model: DiffusionGemma) -> None:
        self.model = model
        self.config: ModelConfig = model.config
        self.ids: list[int] = []
        self._last: tuple[int, Tensor] | None = None  # the hidden row of the last id, and its place
        self._capacity = 0
        self._keys: list[Tensor] = []  # per layer [1, capacity, K, D]
        self._values: list[Tensor] = []

    def shared(self, ids: Sequence[int]) -> int:
        """How many tokens of `ids` are here, from the beginning."""
        return _shared(self.ids, ids)

    def keep(self, ids: Sequence[int], multiple: int = 1) -> int:
        """Drops all but what is shared with `ids`; returns how many tokens are left.

        Cut at a multiple of `multiple`, the rest is computed in the same pieces as without a
        cache, and so to the last bit the same.
        """
        shared = self.shared(ids) // multiple * multiple
        if shared == len(ids) and (self._last is None or self._last[0] != shared):
            # All of it is here but for what the last id leads to.
            shared = max(0, shared - multiple)
        del self.ids[shared:]
        return shared

    def extend(self, ids: Sequence[int]) -> Tensor:
        """Encodes `ids` behind what is there; returns their hidden rows, [len(ids), d]."""
        tokens = torch.tensor([list(ids)], device=self.model.device)
        positions = self._positions(len(ids))
        hidden = self.model.encode(tokens, positions, self._causally(len(ids)))[0]
        self.ids.extend(ids)
        self._last = (len(self.ids), hidden[-1:])
        return hidden

    @property
    def last(self) -> Tensor | None:
        """The hidden row [1, d] of the last id; None if there is none, or it is not known."""
        known = self._last is not None and self._last[0] == len(self.ids)
        return self._last[1] if known and self._last is not None else None

    def copy(self, room: int) -> PrefixCache:
        """The same once more, in buffers of its own with room for so many further tokens."""
        twin = PrefixCache(self.model)
        twin._reserve(len(self.ids) + room)
        for mine, others in ((twin._keys, self._keys), (twin._values, self._values)):
            for buffer, other in zip(mine, others, strict=True):
                buffer[:, : len(self.ids)] = other[:, : len(self.ids)]
        twin.ids = list(self.ids)
        return twin

    def canvas(self, canvas: Tensor, soft: Tensor | None = None) -> Tensor:
        """Runs the decoder on a canvas [T] behind the prefix; returns hidden rows [T, d].

        soft: the last pass' soft embeddings, [T, d]. The prefix itself stays as it is.
        A sliding layer shows every canvas row the last `window - 1` prefix tokens and the whole
        canvas, as transformers' dynamic cache does.
        """
        count = len(canvas)
        soft = None if soft is None else soft.unsqueeze(0)
        attend = self._both_ways(count)
        return self.model.decode(canvas.unsqueeze(0), self._positions(count), attend, soft)[0]

    def canvas_beside(
        self, canvas: Tensor, soft: Tensor | None, others: Branches
    ) -> tuple[Tensor, Tensor]:
        """`canvas`, and tokens of a tree of the same model, in one pass over the weights; returns
        the hidden rows of both, [T, d] and [n, d]."""
        t = len(canvas)
        mine = self._both_ways(t)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            here = mine(layer, q[:, :t], k[:, :t], v[:, :t])
            return torch.cat((here, others.attend(layer, q[:, t:], k[:, t:], v[:, t:])), dim=1)

        soft = None if soft is None else soft.unsqueeze(0)
        positions = torch.cat((self._positions(t), others.positions))
        ids = others.ids.unsqueeze(0)
        hidden, rows = self.model.run(canvas.unsqueeze(0), soft, ids, positions, attend)
        return hidden[0], rows[0]

    def branches(self, ids: Sequence[int], depths: Tensor, seen: Tensor) -> Branches:
        """`ids` as the last n of a tree of m tokens behind what is here, which stays as it is.

        depths: int64 [m], how far behind it each token of the tree stands. seen: bool [n, m],
        which of them each of the n sees. The other m - n are those of earlier calls, as long as
        nothing else ran in this cache.
        """
        start, count = len(self.ids), len(ids)
        at = start + len(depths) - count
        self._reserve(at + count)
        positions = torch.cat((torch.arange(start, device=depths.device), start + depths))
        rows = positions[at:]
        whole = torch.cat((seen.new_ones(count, start), seen), dim=1)
        near = whole & (positions > rows.unsqueeze(1) - self.config.sliding_window)
        low = max(0, start - self.config.sliding_window + 1)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            sliding = self.config.layers[layer].sliding
            first, mask = (low, near[:, low:]) if sliding else (0, whole)
            return read(q, *self._written(layer, at, k, v, first), mask)

        return Branches(torch.tensor(list(ids), device=self.model.device), rows, attend)

    @property
    def bytes(self) -> int:
        """Memory that the buffers take."""
        return sum(t.numel() * t.element_size() for t in (*self._keys, *self._values))

    def _positions(self, count: int) -> Tensor:
        start = len(self.ids)
        return torch.arange(start, start + count, device=self.model.device)

    def _causally(self, count: int) -> Attend:
        """How the next `count` prefix tokens read what stands before them."""
        start = len(self.ids)
        self._reserve(start + count)
        masks = {
            sliding: self._causal_mask(start, count, sliding)
            for sliding in {layer.sliding for layer in self.config.layers}
        }

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            mask = masks[self.config.layers[layer].sliding]
            end = start + count
            keys, values = self._written(layer, start, k, v, low=end - mask.shape[1])
            return read(q, keys, values, mask)

        return attend

    def _both_ways(self, count: int) -> Attend:
        """How `count` canvas tokens behind the prefix read it, and each other."""
        start = len(self.ids)
        self._reserve(start + count)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            sliding = self.config.layers[layer].sliding
            low = max(0, start - self.config.sliding_window + 1) if sliding else 0
            return read(q, *self._written(layer, start, k, v, low))

        return attend

    def _written(
        self, layer: int, start: int, k: Tensor, v: Tensor, low: int
    ) -> tuple[Tensor, Tensor]:
        """Writes keys and values from `start` on; returns all from `low` on."""
        end = start + k.shape[1]
        self._keys[layer][:, start:end] = k
        self._values[layer][:, start:end] = v
        return self._keys[layer][:, low:end], self._values[layer][:, low:end]

    def _causal_mask(self, start: int, count: int, sliding: bool) -> Tensor:
        """[count, seen] for rows start … start + count, without keys that no row can see."""
        window = self.config.sliding_window if sliding else start + count
        low = max(0, start - window + 1)
        rows = torch.arange(start, start + count, device=self.model.device).unsqueeze(1)
        keys = torch.arange(low, start + count, device=self.model.device).unsqueeze(0)
        return (keys <= rows) & (keys > rows - window)

    def _reserve(self, tokens: int) -> None:
        if tokens <= self._capacity:
            return
        capacity = max(tokens, self._capacity + GROWTH)
        keys, values = self._keys, self._values
        self._keys, self._values = [], []
        for index, layer in enumerate(self.config.layers):
            shape = (1, capacity, layer.kv_heads, layer.head_dim)
            for old, new in ((keys, self._keys), (values, self._values)):
                buffer = torch.empty(shape, dtype=self.model.dtype, device=self.model.device)
                if old:
                    buffer[:, : self._capacity] = old[index]
                new.append(buffer)
        self._capacity = capacity


def _shared(known: Sequence[int], ids: Sequence[int]) -> int:
    """How many tokens the two have in common, from the beginning."""
    pairs = enumerate(zip(known, ids, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(known), len(ids)))
