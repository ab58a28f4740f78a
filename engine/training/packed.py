"""One training step of a decoder that fills from the left: many holes of a window, as flat rows.

Of each hole the decoder's rows are those that serving has (engine.attention.token_tree): what leads
to it (engine.attention.lead); what is in it, read causally with the text behind it in view, each
row predicting the next slot and the last one the end; and masks behind a frontier, which see what
is decided and each other and predict the slots behind theirs. So a hole teaches all its slots in
one pass. The prefix is read once, by the frozen encoder.

Rows of all holes of a window lie one behind the other: nothing is padded but to an even length.

Shapes: W windows, N prefix tokens, T decoder rows of a window, C holes (of all windows), R rows of
the longest hole, P predictions, H query heads, K key/value heads, G = H / K, D head_dim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.attention.lead import Lead, lead
from engine.training.adapter import AdapterModel, Tokens
from engine.training.middle import EVEN

MASKS = 8
"""Masks behind the frontier; serving has a few less."""

MASK_WEIGHTS = (0.7, 0.55, 0.4, 0.3, 0.25, 0.2, 0.15, 0.15)
"""What a mask counts in the loss, where the row of a token counts 1: the nearer, the more."""

BEHIND_WEIGHT = 0.03
"""What a mask counts that stands behind the end."""

AT_START = 0.15
"""The share of holes whose masks stand at the start; in the others anywhere in it."""

SECOND_HOLE = 0.1
"""The share of holes behind which there is another one, as masks in the text that follows."""

FIRST, MIDDLE, END, MASK, FURTHER, BEHIND = range(6)
"""What a row predicts: a hole's first token, another one, its end; what the first mask does, a
further one, one behind the end."""


@dataclass(frozen=True, slots=True)
class Hole:
    """A hole in a window: it begins behind `start` tokens and holds the tokens `middle`; `after`
    are those behind it. slots: the most that it could hold. kind: how it was cut."""

    start: int
    middle: list[int]
    after: list[int]
    slots: int
    kind: str


@dataclass(frozen=True, slots=True)
class Window:
    """The tokens of a piece of a document, and holes in it."""

    ids: list[int]
    holes: list[Hole]


Windows = list[Window]
"""What a batch is."""


@dataclass(frozen=True, slots=True)
class Packed:
    """Windows as the rows of a step.

    prefix: int64 [W, N]. ids, positions: int64 [W, T]. index: int64 [C, R], the places of a hole's
    rows in [W * T], and back: int64 [W * T], the way back into [C * R]; each hole has a place that
    is no row's, and each window a row that is no hole's, to which the padding of the other leads.
    seen: int64 [W, T], how much of the prefix a row sees. own: int64 [W, T, 3], a, b and c of the
    rows that it sees of its hole: those before a, and from b to c. rows: int64 [P], places in
    [W * T]; target: int64 [P], weight: float32 [P], tag: int64 [P], what a row predicts.
    """

    prefix: Tensor
    ids: Tensor
    positions: Tensor
    index: Tensor
    back: Tensor
    seen: Tensor
    own: Tensor
    rows: Tensor
    target: Tensor
    weight: Tensor
    tag: Tensor

    def to(self, device: torch.device) -> Packed:
        """The same on a device."""
        return self._made(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Packed:
        """The same in memory that a GPU can fetch it from while it computes."""
        return self._made(Tensor.pin_memory)

    def sees_prefix(self) -> Tensor:
        """Bool [W, T, N]."""
        return _places(self.prefix.shape[1], self.seen) < self.seen.unsqueeze(-1)

    def sees_own(self) -> Tensor:
        """Bool [W, T, R]."""
        place = _places(self.index.shape[1], self.own)
        before, begin, end = self.own.unsqueeze(-1).unbind(2)
        return (place < before) | ((place >= begin) & (place < end))

    def _made(self, change: Callable[[Tensor], Tensor]) -> Packed:
        return Packed(**{f.name: change(getattr(self, f.name)) for f in fields(Packed)})


def _places(count: int, like: Tensor) -> Tensor:
    return torch.arange(count, device=like.device)


@dataclass(frozen=True, slots=True)
class _Placed:
    """A hole's rows, from row `first` of its window on. decided: the slots before its masks."""

    hole: Hole
    lead: Lead
    first: int
    decided: int
    masks: int

    @property
    def width(self) -> int:
        return len(self.lead) + len(self.hole.middle) + self.masks


class _Rows:
    """The rows of one window, hole behind hole."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.positions: list[int] = []
        self.spans: list[_Placed] = []
        self.predicted: list[tuple[int, int, float, int]] = []  # row, target, weight, tag

    def add(self, hole: Hole, last: int, tokens: Tokens, rng: np.random.Generator) -> None:
        """last: the prefix' last token."""
        behind, n, first = len(hole.after), len(hole.middle), len(self.ids)
        decided = int(rng.integers(n + 1)) if rng.random() >= AT_START else 0
        after = list(hole.after)
        if behind > 12 and rng.random() < SECOND_HOLE:
            low = int(rng.integers(2, behind - 6))
            high = min(low + int(rng.integers(2, 8)), behind)
            after[low:high] = [tokens.mask] * (high - low)
        masks = min(MASKS, hole.slots - decided)
        front = lead(after, hole.slots, last, tokens.marks)
        self.ids += [*front.ids, *hole.middle, *[tokens.mask] * masks]
        start = hole.start + front.first
        self.positions += [hole.start + offset for offset in front.offsets]
        self.positions += range(start, start + n)
        self.positions += range(start + decided, start + decided + masks)
        root, end = first + len(front) - 1, tokens.end
        whole = [*hole.middle, end]
        for slot, token in enumerate(whole):
            tag = FIRST if slot == 0 else MIDDLE if slot < n else END
            self.predicted.append((root + slot, token, 1.0, tag if n else END))
        for ahead in range(masks):
            slot = decided + ahead + 1
            if slot >= hole.slots:
                break
            inside = slot <= n
            self.predicted.append(
                (
                    root + n + 1 + ahead,
                    whole[slot] if inside else end,
                    MASK_WEIGHTS[ahead] if inside else BEHIND_WEIGHT,
                    (FURTHER if ahead else MASK) if inside else BEHIND,
                )
            )
        self.spans.append(_Placed(hole, front, first, decided, masks))


def pack(windows: Sequence[Window], tokens: Tokens, rng: np.random.Generator) -> Packed:
    """The rows of all windows, with frontiers drawn from `rng`."""
    packed: list[_Rows] = []
    for window in windows:
        packed.append(_Rows())
        for hole in window.holes:
            packed[-1].add(hole, window.ids[hole.start - 1], tokens, rng)
    n = _even(max(len(window.ids) for window in windows))
    t = _even(max(len(rows.ids) for rows in packed) + 1)
    count = sum(len(rows.spans) for rows in packed)
    r = _even(max(one.width for rows in packed for one in rows.spans) + 1, 8)
    prefix = np.zeros((len(packed), n), np.int64)
    ids, positions = np.zeros((len(packed), t), np.int64), np.zeros((len(packed), t), np.int64)
    index, back = np.zeros((count, r), np.int64), np.full((len(packed), t), r - 1, np.int64)
    seen, own = np.zeros((len(packed), t), np.int64), np.zeros((len(packed), t, 3), np.int64)
    number = 0
    for w, (window, rows) in enumerate(zip(windows, packed, strict=True)):
        prefix[w, : len(window.ids)] = window.ids
        ids[w, : len(rows.ids)], positions[w, : len(rows.ids)] = rows.ids, rows.positions
        own[w, len(rows.ids) :, 0] = 1  # of no use, but something has to be seen
        for one in rows.spans:
            leading, middle, width = len(one.lead), one.width - one.masks, one.width
            index[number] = w * t + t - 1
            index[number, :width] = w * t + one.first + np.arange(width)
            back[w, one.first : one.first + width] = number * r + np.arange(width)
            seen[w, one.first : one.first + width] = one.hole.start - one.lead.unseen
            sees = own[w, one.first : one.first + width]
            sees[:middle, 0] = np.arange(1, middle + 1)
            sees[:leading, 1:] = (leading - 1, leading) if one.lead.last_for_all else 0
            sees[middle:] = leading + one.decided, middle, width
            number += 1
    predicted = [
        (w * t + row, *rest) for w, rows in enumerate(packed) for row, *rest in rows.predicted
    ]
    places, targets, weights, tags = zip(*predicted, strict=True)
    return Packed(
        prefix=torch.from_numpy(prefix),
        ids=torch.from_numpy(ids),
        positions=torch.from_numpy(positions),
        index=torch.from_numpy(index),
        back=torch.from_numpy(back.reshape(-1)),
        seen=torch.from_numpy(seen),
        own=torch.from_numpy(own),
        rows=torch.tensor(places),
        target=torch.tensor(targets),
        weight=torch.tensor(weights, dtype=torch.float32),
        tag=torch.tensor(tags),
    )


def _even(size: int, multiple: int = EVEN) -> int:
    return size + -size % multiple


def logits(model: AdapterModel, batch: Packed) -> Tensor:
    """What is said of every prediction, [P, V]; with gradients."""
    keys, values = encode(model, batch.prefix)
    not_prefix, not_own = (
        ~sees[:, None, :, None] for sees in (batch.sees_prefix(), batch.sees_own())
    )

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return _read(q, k, v, keys[layer], values[layer], batch, not_prefix, not_own)

    hidden = model.decode(batch.ids, batch.positions, attend)
    return model.logits(hidden.flatten(0, 1)[batch.rows])


def nats(model: AdapterModel, batch: Packed) -> Tensor:
    """The loss of every prediction, [P]: cross entropy in nats, not yet weighted."""
    return F.cross_entropy(logits(model, batch), batch.target, reduction="none")


@torch.no_grad()
def encode(model: AdapterModel, prefix: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Keys and values [W, N, K, D] of each layer for prefixes [W, N], read by the encoder."""
    keys: list[Tensor] = []
    values: list[Tensor] = []

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys.append(k)
        values.append(v)
        share = q.shape[2] // k.shape[2]
        k, v = k.repeat_interleave(share, 2), v.repeat_interleave(share, 2)
        q, k, v = (each.transpose(1, 2) for each in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0)
        return out.transpose(1, 2)

    model.encode(prefix, torch.arange(prefix.shape[1], device=prefix.device), attend)
    return keys, values


def _read(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    prefix_k: Tensor,
    prefix_v: Tensor,
    batch: Packed,
    not_prefix: Tensor,
    not_own: Tensor,
) -> Tensor:
    """Rows q [W, T, H, D] over the prefix [W, N, K, D] and the rows k, v [W, T, K, D] of their own
    hole, in one softmax.

    Scores over the prefix are one product for all rows of a window, since nothing of it is copied
    for a hole; only those over a hole's own rows are made hole by hole, padded.
    """
    w, t, heads, d = q.shape
    kv, n = k.shape[2], prefix_k.shape[1]
    g = heads // kv
    c, r = batch.index.shape
    q = q.view(w, t, kv, g, d)
    over_prefix = q.permute(0, 2, 1, 3, 4).reshape(w, kv, t * g, d) @ prefix_k.permute(0, 2, 3, 1)
    own_q = _by_hole(q, batch).permute(0, 2, 1, 3, 4).reshape(c, kv, r * g, d)
    own_k = _by_hole(k, batch).permute(0, 2, 3, 1)  # [C, K, D, R]
    over_own = (own_q @ own_k).view(c, kv, r, g, r)
    over_own = _by_window(over_own.permute(0, 2, 1, 3, 4), batch).permute(0, 2, 1, 3, 4)
    scores = torch.cat(
        (
            over_prefix.view(w, kv, t, g, n).masked_fill(not_prefix, float("-inf")),
            over_own.masked_fill(not_own, float("-inf")),  # [W, K, T, G, R]
        ),
        dim=-1,
    )
    shares = scores.softmax(-1)
    of_prefix = shares[..., :n].reshape(w, kv, t * g, n) @ prefix_v.transpose(1, 2)
    of_prefix = of_prefix.view(w, kv, t, g, d).transpose(1, 2)
    own = _by_hole(shares[..., n:].transpose(1, 2), batch)  # [C, R, K, G, R]
    own = own.permute(0, 2, 1, 3, 4).reshape(c, kv, r * g, r)
    own_v = _by_hole(v, batch).transpose(1, 2)  # [C, K, R, D]
    of_own = _by_window((own @ own_v).view(c, kv, r, g, d).permute(0, 2, 1, 3, 4), batch)
    return (of_prefix + of_own).reshape(w, t, heads, d)


def _by_hole(x: Tensor, batch: Packed) -> Tensor:
    """Rows [W, T, ...] of windows as those of holes, [C, R, ...]."""
    moved = _Moved.apply(x.flatten(0, 1), batch.index.flatten(), batch.back)
    return moved.unflatten(0, batch.index.shape)


def _by_window(x: Tensor, batch: Packed) -> Tensor:
    """The way back."""
    moved = _Moved.apply(x.flatten(0, 1), batch.back, batch.index.flatten())
    return moved.unflatten(0, batch.ids.shape)


class _Moved(torch.autograd.Function):
    """x [M, ...] -> x[there] for places `there` [L], whose inverse is `back` [M].

    The gradient goes back by reading, too. Indexing by itself would add it up place by place, all
    of the padding in one. What stands at padding gets no gradient: none of it is seen by a row that
    counts.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, there: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(back)
        return x[there]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0][ctx.saved_tensors[0]], None, None
