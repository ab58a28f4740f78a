"""A pass of canvases whose shapes do not depend on what is in them, so that it can be recorded once
and played back (engine.attention.graphs).

What differs between passes is in tensors that stay where they are: the tokens, what conditions
them, and three numbers for each canvas. A prefix ends where its canvas begins, so that the canvas'
keys and values always go to the same places, and what is in front of a shorter prefix or behind a
shorter canvas is hidden by a bias.

Shapes: B canvases, T rows of each, P prefix rows, R >= T rows that there is room for, K key/value
heads, D head_dim, d hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.attention.kv import KVBuffer
from engine.attention.sdpa import read
from engine.attention.span import Span
from engine.backbones.base import Backbone

ALIGNED = 16
"""Numbers of rows are multiples of it: the kernels of attention load so many at a time."""


def is_canvas(span: Span) -> bool:
    """Whether a pass of fixed shapes can have it: rows that all see each other and one prefix."""
    behind = span.prefix is None or span.seen == span.first
    alone = span.role == "decoder" and span.at == 0 and span.row
    return alone and span.sees == "all" and behind and span.first == span.reach


class Seats:
    """Keys and values of several canvases and of the prefixes before them.

    keys, values: [B, P + R, K, D] for each layer; a sliding one keeps its window of a prefix only.
    """

    def __init__(self, model: Backbone, canvases: int, prefix: int, rows: int) -> None:
        self._model, self.canvases, self.prefix = model, canvases, prefix
        self._window = min(prefix, aligned(model.sliding_window - 1))
        # Whoever has canvases has a buffer of its own as long as their prefix stays as it is.
        self._sits: list[tuple[KVBuffer, int] | None] = [None] * canvases
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        for layer in model.kv:
            shape = (canvases, self.before(layer.sliding) + rows, layer.kv_heads, layer.head_dim)
            # Zeros: a hidden row counts nothing, but nothing times what is no number would count.
            self.keys.append(torch.zeros(shape, dtype=model.dtype, device=model.device))
            self.values.append(torch.zeros_like(self.keys[-1]))

    def before(self, sliding: bool) -> int:
        """How many rows of a prefix a layer has room for."""
        return self._window if sliding else self.prefix

    def take(self, spans: Sequence[Span]) -> list[int]:
        """The seat of each canvas. The prefix of one that comes anew is copied to it."""
        here = [(span.own, span.seen) for span in spans]
        free = [seat for seat, sits in enumerate(self._sits) if sits not in here]
        seats: list[int] = []
        for span, one in zip(spans, here, strict=True):
            if one in self._sits:
                seats.append(self._sits.index(one))
                continue
            seats.append(free.pop())
            self._copy(seats[-1], span)
            self._sits[seats[-1]] = one
        return seats

    def write(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Takes the canvases' keys and values [B, T, K, D]; returns all that they see,
        [B, P + T, K, D]."""
        low = self.before(self._model.kv[layer].sliding)
        high = low + k.shape[1]
        keys, values = self.keys[layer], self.values[layer]
        keys[:, low:high], values[:, low:high] = k, v
        return keys[:, :high], values[:, :high]

    def bias(self, sliding: bool, seen: Tensor, counts: Tensor, rows: int) -> Tensor:
        """What is added to the scores, [B, 1, 1, P + rows]: -inf in front of a prefix of `seen` [B]
        rows and behind a canvas of `counts` [B] ones."""
        low = self.before(sliding)
        if sliding:
            seen = seen.clamp(max=self._model.sliding_window - 1)
        places = torch.arange(low + rows, device=seen.device)
        hidden = (places < (low - seen).unsqueeze(1)) | (places >= (low + counts).unsqueeze(1))
        bias = torch.zeros(hidden.shape, dtype=self._model.dtype, device=seen.device)
        return bias.masked_fill_(hidden, float("-inf"))[:, None, None]

    def _copy(self, seat: int, span: Span) -> None:
        if span.prefix is None or not span.seen:
            return
        for index, layer in enumerate(self._model.kv):
            room = self.before(layer.sliding)
            low = max(0, span.seen - room)
            keys, values = span.prefix.read(index, low, span.seen)
            self.keys[index][seat, room - (span.seen - low) : room] = keys[0]
            self.values[index][seat, room - (span.seen - low) : room] = values[0]


class StaticPass:
    """Canvases of at most `rows` rows in `seats`. conditioned: whether they have soft embeddings.

    hidden: [B, T, d], what `run` gives. It stays until `run` is called again.
    """

    def __init__(self, model: Backbone, seats: Seats, rows: int, conditioned: bool) -> None:
        self._model, self._seats, self._rows = model, seats, rows
        shape, device = (seats.canvases, rows), model.device
        self._ids = torch.zeros(shape, dtype=torch.int64, device=device)
        self.hidden = torch.zeros(
            *shape, model.config.hidden_size, dtype=model.dtype, device=device
        )
        self._soft = torch.zeros_like(self.hidden) if conditioned else None
        # Of each canvas: its first position, how much of a prefix it sees, how many rows it has. A
        # seat that is empty has one, since something has to be seen.
        self._told = [[0, 0, 1] for _ in range(seats.canvases)]
        self._numbers = torch.tensor(self._told, device=device)

    def load(self, spans: Sequence[Span], seats: Sequence[int]) -> None:
        """Brings what the next `run` is about to where it looks for it."""
        told = [[0, 0, 1] for _ in self._told]
        for span, seat in zip(spans, seats, strict=True):
            assert span.first is not None
            told[seat] = [span.first, span.seen, len(span)]
            self._ids[seat, : len(span)] = span.ids
            if self._soft is not None:
                soft = self._soft[seat, : len(span)]
                soft.zero_() if span.soft is None else soft.copy_(span.soft)
        if told != self._told:
            self._told = told
            self._numbers.copy_(torch.tensor(told), non_blocking=True)

    def run(self) -> None:
        """The pass: nothing but operations on tensors whose shapes and places are always the
        same."""
        first, seen, counts = self._numbers.unbind(1)
        positions = first.unsqueeze(1) + torch.arange(self._rows, device=first.device)
        kinds = {layer.sliding for layer in self._model.kv}
        biases = {kind: self._seats.bias(kind, seen, counts, self._rows) for kind in kinds}

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = self._seats.write(layer, k, v)
            return read(q, keys, values, biases[self._model.kv[layer].sliding])

        self.hidden.copy_(self._model.decode(self._ids, positions, attend, self._soft))

    def rows(self, span: Span, seat: int) -> Tensor:
        """What the last `run` gave for a canvas, [n, d], in a place of its own."""
        return self.hidden[seat, : len(span)].clone()


def aligned(rows: int) -> int:
    """The next multiple of ALIGNED."""
    return -(-rows // ALIGNED) * ALIGNED
