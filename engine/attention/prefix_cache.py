"""The prefix' KV cache, kept between requests and shared by those that run side by side.

The encoder is causal, so what it computed for a prefix holds for every text that begins with it:
only what comes after the longest shared beginning is computed anew. All layers keep all positions
(sliding ones too), so the cache can be cut at any point and stays exact.

What stands behind the prefix (canvases, trees) has buffers of its own, so that any number of
requests can read one prefix.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.attention.kv import GROWTH, KVBuffer
from engine.attention.span import Span, forward
from engine.backbones.base import Backbone

__all__ = ["GROWTH", "PrefixCache", "PrefixStore", "cache_bytes"]

CACHE_BYTES = 128 * 2**20
"""What all prefix caches may take on a CPU; on a GPU it is a tenth of its memory."""


class PrefixCache:
    """Keys and values of one sequence. `ids` are the prefix tokens that it holds.

    users: how many requests read it. While there are any, it is only ever extended.
    """

    def __init__(self, model: Backbone) -> None:
        self.model = model
        self.ids: list[int] = []
        self.users = 0
        self.buffer = KVBuffer(model.kv, model.dtype, model.device)
        self.writing = False  # a span of it waits for its pass
        self._hidden: Tensor | None = None  # [capacity, d]: what each token leads to

    def shared(self, ids: Sequence[int]) -> int:
        """How many tokens of `ids` are here, from the beginning."""
        return _shared(self.ids, ids)

    def keep(self, ids: Sequence[int], multiple: int = 1) -> int:
        """Drops all but what is shared with `ids`; returns how many tokens are left.

        Cut at a multiple of `multiple`, the rest is computed in the same pieces as without a
        cache, and so to the last bit the same.
        """
        shared = self.shared(ids) // multiple * multiple
        self.cut(shared)
        return shared

    def cut(self, length: int) -> None:
        """Drops what stands behind the first `length` tokens."""
        del self.ids[length:]

    def span(self, ids: Sequence[int]) -> Span:
        """What encodes `ids` behind what is there; `took` takes its rows."""
        start = len(self.ids)
        self.writing = True
        tokens = torch.tensor(list(ids), device=self.model.device)
        positions = torch.arange(start, start + len(ids), device=self.model.device)
        return Span("encoder", tokens, positions, self.buffer, start, first=start)

    def took(self, ids: Sequence[int], hidden: Tensor) -> None:
        """The span of `ids` has run, and gave these rows [n, d]."""
        start, end = len(self.ids), len(self.ids) + len(ids)
        if self._hidden is None or len(self._hidden) < end:
            grown = hidden.new_empty(max(end, self.buffer.capacity), hidden.shape[-1])
            if self._hidden is not None:
                grown[:start] = self._hidden[:start]
            self._hidden = grown
        self._hidden[start:end] = hidden
        self.ids.extend(ids)
        self.writing = False

    def extend(self, ids: Sequence[int]) -> Tensor:
        """Encodes `ids` behind what is there, now; returns their hidden rows, [len(ids), d]."""
        try:
            (hidden,) = forward(self.model, [self.span(ids)])
            self.took(ids, hidden)
        finally:
            self.writing = False
        return hidden

    @property
    def last(self) -> Tensor | None:
        """The hidden row [1, d] of the last id; None if there is none."""
        return self.row(len(self.ids))

    def row(self, length: int) -> Tensor | None:
        """The hidden row [1, d] of the last of the first `length` ids; None if there is none."""
        if not length or self._hidden is None:
            return None
        return self._hidden[length - 1 : length]

    def fork(self, length: int) -> PrefixCache:
        """The first `length` tokens once more, in buffers of its own."""
        twin = PrefixCache(self.model)
        twin.buffer.copy_from(self.buffer, length)
        twin.ids = self.ids[:length]
        twin._hidden = None if self._hidden is None else self._hidden[:length].clone()
        return twin

    def canvas(self, canvas: Tensor, soft: Tensor | None = None) -> Tensor:
        """Runs the decoder on a canvas [T] behind the prefix, now; returns hidden rows [T, d].

        soft: the last pass' soft embeddings, [T, d]. The prefix itself stays as it is.
        """
        own = KVBuffer(self.model.kv, self.model.dtype, self.model.device, growth=1)
        (hidden,) = forward(self.model, [canvas_span(self, len(self.ids), own, canvas, soft)])
        return hidden

    @property
    def bytes(self) -> int:
        """Memory that keys, values and rows take."""
        rows = self._hidden
        return self.buffer.bytes + (0 if rows is None else rows.numel() * rows.element_size())


def canvas_span(
    cache: PrefixCache, start: int, own: KVBuffer, canvas: Tensor, soft: Tensor | None
) -> Span:
    """A canvas [T] behind the first `start` tokens of a prefix, each slot seeing all of both.

    A sliding layer shows every canvas row the last `window - 1` prefix tokens and the whole canvas,
    as transformers' dynamic cache does.
    """
    positions = torch.arange(start, start + len(canvas), device=canvas.device)
    return Span(
        "decoder",
        canvas,
        positions,
        own,
        0,
        sees="all",
        places=positions,
        prefix=cache.buffer,
        seen=start,
        reach=start,
        soft=soft,
        first=start,
        row=True,
    )


class PrefixStore:
    """The prefix caches of all documents: at most `most_bytes`, least recently used ones first.

    Requests of one document share one: a cache that others read is extended, and never cut; who
    needs another text gets a copy of what is shared.
    """

    def __init__(self, model: Backbone, most_bytes: int, most: int = 16) -> None:
        self._model, self.most_bytes, self._most = model, most_bytes, most
        self.caches: list[PrefixCache] = []  # the most recently used one last

    def take(self, ids: Sequence[int], multiple: int = 1) -> tuple[PrefixCache, int]:
        """A cache for a request that gives it back, and how many of `ids` it holds.

        It may hold more than those: `part` gives one that does not. multiple: as in `PrefixCache`.
        """
        best = max(self.caches, key=lambda cache: cache.shared(ids), default=None)
        known = 0 if best is None else best.shared(ids)
        shared = known // multiple * multiple
        if best is None or known < min(len(ids), len(best.ids)) // 2:
            taken, shared = PrefixCache(self._model), 0
        elif known in (len(ids), len(best.ids)) or not best.users:
            taken = best
        else:
            taken = best.fork(shared)
        taken.users += 1
        if taken in self.caches:
            self.caches.remove(taken)
        self.caches.append(taken)
        self._shed()
        return taken, shared

    def part(self, cache: PrefixCache, length: int) -> PrefixCache:
        """A cache of the first `length` tokens of one that a request has: that one if nobody else
        reads it, else a copy."""
        if cache.users == 1:
            cache.cut(length)
            return cache
        own = cache.fork(length)
        own.users = 1
        self.caches.append(own)
        self.give_back(cache)
        return own

    def give_back(self, cache: PrefixCache, whole: bool = True) -> None:
        """The request has ended. whole: False if it failed, and what it wrote is not to be kept."""
        cache.users -= 1
        if not whole and cache in self.caches:
            self.caches.remove(cache)
        self._shed()

    def shed(self) -> None:
        """Drops every cache that nobody reads."""
        self.caches = [cache for cache in self.caches if cache.users]

    @property
    def bytes(self) -> int:
        """Memory of all caches."""
        return sum(cache.bytes for cache in self.caches)

    def _shed(self) -> None:
        idle = [cache for cache in self.caches if not cache.users]
        while idle and (self.bytes > self.most_bytes or len(self.caches) > self._most):
            self.caches.remove(idle.pop(0))


def _shared(known: Sequence[int], ids: Sequence[int]) -> int:
    """How many tokens the two have in common, from the beginning."""
    pairs = enumerate(zip(known, ids, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(known), len(ids)))


def cache_bytes(device: torch.device) -> int:
    """What the prefix caches of a device may take."""
    if device.type != "cuda":
        return CACHE_BYTES
    return torch.cuda.get_device_properties(device).total_memory // 10
