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

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.attention.lead import Lead, lead
from engine.training.adapter import AdapterModel, Tokens
from engine.training.middle import EVEN

MASKS = 8
"""Masks behind the frontier; serving has a few less."""

MASK_WEIGHTS = (0.4, 0.3, 0.25, 0.2, 0.15, 0.15, 0.1, 0.1)
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
    rows in [W * T], and back: int64 [W * T], the way back into [C * R]. sees_prefix: bool
    [W, T, N], sees_own: bool [W, T, R]. rows: int64 [P], places in [W * T]; target: int64 [P],
    weight: float32 [P], tag: int64 [P], what a row predicts.
    """

    prefix: Tensor
    ids: Tensor
    positions: Tensor
    index: Tensor
    back: Tensor
    sees_prefix: Tensor
    sees_own: Tensor
    rows: Tensor
    target: Tensor
    weight: Tensor
    tag: Tensor

    def to(self, device: torch.device) -> Packed:
        """The same on a device."""
        moved = {
            f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(Packed)
        }
        return Packed(**moved)


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
    t = _even(max(len(rows.ids) for rows in packed))
    count = sum(len(rows.spans) for rows in packed)
    r = _even(max(one.width for rows in packed for one in rows.spans), 8)
    prefix = np.zeros((len(packed), n), np.int64)
    ids, positions = np.zeros((len(packed), t), np.int64), np.zeros((len(packed), t), np.int64)
    index, back = np.zeros((count, r), np.int64), np.zeros((len(packed), t), np.int64)
    sees_prefix = np.zeros((len(packed), t, n), np.bool_)
    sees_own = np.zeros((len(packed), t, r), np.bool_)
    number = 0
    for w, (window, rows) in enumerate(zip(windows, packed, strict=True)):
        prefix[w, : len(window.ids)] = window.ids
        ids[w, : len(rows.ids)], positions[w, : len(rows.ids)] = rows.ids, rows.positions
        sees_own[w, len(rows.ids) :, 0] = True  # of no use, but something has to be seen
        for one in rows.spans:
            leading, middle, width = len(one.lead), one.width - one.masks, one.width
            index[number, :width] = w * t + one.first + np.arange(width)
            back[w, one.first : one.first + width] = number * r + np.arange(width)
            seen = one.hole.start - one.lead.unseen
            sees_prefix[w, one.first : one.first + width, :seen] = True
            own = sees_own[w, one.first : one.first + width]
            own[:leading, :leading] = one.lead.sees()
            own[leading:middle, :middle] = np.tri(middle - leading, middle, leading, np.bool_)
            own[middle:, : leading + one.decided] = True
            own[middle:, middle:width] = True
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
        sees_prefix=torch.from_numpy(sees_prefix),
        sees_own=torch.from_numpy(sees_own),
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
    own_prefix, own = ~batch.sees_prefix[:, None, :, None], ~batch.sees_own[:, None, :, None]

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return _read(q, k, v, keys[layer], values[layer], batch, own_prefix, own)

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
    own_q = q.flatten(0, 1)[batch.index].permute(0, 2, 1, 3, 4).reshape(c, kv, r * g, d)
    own_k = k.flatten(0, 1)[batch.index].permute(0, 2, 3, 1)  # [C, K, D, R]
    over_own = (own_q @ own_k).view(c, kv, r, g, r)
    over_own = over_own.permute(0, 2, 1, 3, 4).reshape(c * r, kv, g, r)[batch.back]
    over_own = over_own.view(w, t, kv, g, r).permute(0, 2, 1, 3, 4)  # [W, K, T, G, R]
    scores = torch.cat(
        (
            over_prefix.view(w, kv, t, g, n).masked_fill(not_prefix, float("-inf")),
            over_own.masked_fill(not_own, float("-inf")),
        ),
        dim=-1,
    )
    shares = scores.softmax(-1)
    of_prefix = shares[..., :n].reshape(w, kv, t * g, n) @ prefix_v.transpose(1, 2)
    of_prefix = of_prefix.view(w, kv, t, g, d).transpose(1, 2)
    own = shares[..., n:].transpose(1, 2).reshape(w * t, kv, g, r)[batch.index]
    own = own.permute(0, 2, 1, 3, 4).reshape(c, kv, r * g, r)
    own_v = v.flatten(0, 1)[batch.index].transpose(1, 2)  # [C, K, R, D]
    of_own = (own @ own_v).view(c, kv, r, g, d)
    of_own = of_own.permute(0, 2, 1, 3, 4).reshape(c * r, kv, g, d)[batch.back]
    return (of_prefix + of_own.view(w, t, kv, g, d)).reshape(w, t, heads, d)
