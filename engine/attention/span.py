"""Spans: the rows of one sequence that run in one pass; and the pass that runs many of them.

A span says which rows run, as encoder or decoder, where their keys and values go, and what they
see. Chunks of a prefix, canvases, branches of a beam and other people's requests are spans of one
pass: their rows go through the layers side by side, and only attention parts them.

Shapes: n rows of a span, T rows of a pass, H query heads, K key/value heads, D head_dim, d hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from engine.attention.kv import KVBuffer
from engine.attention.sdpa import folded, read
from engine.backbones.base import Backbone, KVShape

Role = Literal["encoder", "decoder"]


@dataclass(frozen=True, slots=True, eq=False)
class Span:
    """Rows of one sequence that run in the next pass.

    ids, positions: int64 [n]. own: where their keys and values go, from row `at` on.
    sees: bool [n, at + n], which rows of `own` each of them sees; or all of them, or those up to
        itself ("causal").
    places: int64 [at + n], the positions of the rows of `own`; None: row i is position i.
    prefix, seen: the first `seen` rows of `prefix` are seen by all (row i is position i).
    reach: the position from which a sliding window counts back; None: that of each row.
    soft: [n, d], what conditions a decoder's rows.
    first: the least of the positions, where the host knows it: else it waits for the device.
    row: whether the positions are consecutive from `first` on.
    """

    role: Role
    ids: Tensor
    positions: Tensor
    own: KVBuffer
    at: int
    sees: Tensor | Literal["all", "causal"] = "causal"
    places: Tensor | None = None
    prefix: KVBuffer | None = None
    seen: int = 0
    reach: int | None = None
    soft: Tensor | None = None
    first: int | None = None
    row: bool = False

    def __len__(self) -> int:
        return len(self.ids)


def forward(model: Backbone, spans: Sequence[Span]) -> list[Tensor]:
    """One pass over the weights for all spans; returns the hidden rows [n, d] of each.

    A span's rows see what `Span` says and nothing of the others. Without spans nothing runs.
    """
    if not spans:
        return []
    order = sorted(range(len(spans)), key=lambda i: spans[i].role != "decoder")
    ordered = [spans[i] for i in order]
    for span in ordered:
        span.own.reserve(span.at + len(span))
    views = [_View(span, model.kv, model.sliding_window) for span in ordered]
    sizes = [len(span) for span in ordered]

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if len(views) == 1:
            return views[0].read(layer, q, k, v)
        parts = zip(q.split(sizes, 1), k.split(sizes, 1), v.split(sizes, 1), strict=True)
        return torch.cat(
            [view.read(layer, *part) for view, part in zip(views, parts, strict=True)], dim=1
        )

    positions = torch.cat([span.positions for span in ordered])
    decoders = [span for span in ordered if span.role == "decoder"]
    encoders = ordered[len(decoders) :]
    if not decoders:
        hidden = model.encode(_ids(encoders), positions, attend)
    elif not encoders:
        hidden = model.decode(_ids(decoders), positions, attend, _soft(decoders))
    else:
        both = model.run(_ids(decoders), _soft(decoders), _ids(encoders), positions, attend)
        hidden = torch.cat(both, dim=1)
    rows = hidden[0].split(sizes)
    return [rows[order.index(i)] for i in range(len(spans))]


class _View:
    """What a span's rows see: which keys, and with which mask, for both kinds of layers."""

    def __init__(self, span: Span, layers: Sequence[KVShape], window: int) -> None:
        self._span, self._layers = span, layers
        self._end = span.at + len(span)
        kinds = {layer.sliding for layer in layers}
        self._bias: dict[tuple[bool, int], Tensor] = {}
        self._seen = {sliding: self._mask(window if sliding else None) for sliding in kinds}

    def read(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Writes the rows' keys and values, and reads what they see: [1, n, H, D]."""
        span = self._span
        span.own.write(layer, span.at, k, v)
        sliding = self._layers[layer].sliding
        low, own_low, mask = self._seen[sliding]
        keys, values = span.own.read(layer, own_low, self._end)
        if span.prefix is not None and low < span.seen:
            before, their = span.prefix.read(layer, low, span.seen)
            keys, values = torch.cat((before, keys), dim=1), torch.cat((their, values), dim=1)
        groups = q.shape[2] // keys.shape[2]
        if mask is not None and (sliding, groups) not in self._bias:
            self._bias[sliding, groups] = folded(mask, groups, keys.dtype)
        return read(q, keys, values, self._bias.get((sliding, groups)))

    def _mask(self, window: int | None) -> tuple[int, int, Tensor | None]:
        """The first rows of the prefix and of `own` that are seen, and bool [n, keys] of those
        behind them; None if all see all."""
        span, end, device = self._span, self._end, self._span.ids.device
        low = own_low = least = 0
        if window is not None:
            known = span.first if span.reach is None else span.reach
            least = int(span.positions.min()) if known is None else known
            low = min(max(0, least - window + 1), span.seen)
            own_low = max(0, least - window + 1) if span.places is None and span.at else 0
        if span.sees == "all" and (window is None or span.reach is not None):
            return low, own_low, None
        if isinstance(span.sees, Tensor):
            own = span.sees[:, own_low:]
        else:
            rows = torch.arange(span.at, end, device=device).unsqueeze(1)
            own = torch.arange(own_low, end, device=device) <= rows
            own = own | (span.sees == "all")
        before = own.new_ones(len(span), span.seen - low)
        if window is not None:
            rows = span.positions if span.reach is None else torch.full_like(span.positions, least)
            nearest = rows.unsqueeze(1) - window
            places = span.places
            if places is None:
                places = torch.arange(own_low, end, device=device)
            before = before & (torch.arange(low, span.seen, device=device) > nearest)
            own = own & (places > nearest)
        return low, own_low, torch.cat((before, own), dim=1)


def _ids(spans: Sequence[Span]) -> Tensor:
    return torch.cat([span.ids for span in spans]).unsqueeze(0)


def _soft(spans: Sequence[Span]) -> Tensor | None:
    """What conditions the decoder's rows; zeros where nothing does, which is the same."""
    given = [span.soft for span in spans]
    some = next((one for one in given if one is not None), None)
    if some is None:
        return None
    rows = [
        some.new_zeros(len(span), some.shape[-1]) if one is None else one
        for span, one in zip(spans, given, strict=True)
    ]
    return torch.cat(rows).unsqueeze(0)
