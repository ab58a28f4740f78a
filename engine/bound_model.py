"""A model behind one prefix, as the denoising loop calls it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.model import DiffusionGemma
from engine.prefix_cache import PrefixCache, beginning


class BoundModel:
    """A model behind one prefix: what the denoising loop calls (see engine.denoise.Denoiser)."""

    def __init__(self, model: DiffusionGemma, cache: PrefixCache) -> None:
        self.model, self.cache = model, cache
        self.vocab_size = model.config.vocab_size
        self._reading: Reading | None = None

    def logits(
        self, ids: Tensor, soft: Tensor | None, free: Tensor, known: int | None
    ) -> tuple[Tensor, Tensor | None]:
        """One pass; the head runs on the rows that are asked for only."""
        if known is None or self.cache.last is None:
            return self.model.logits(self.cache.canvas(ids, soft)[free]), None
        if self._reading is None:
            self._reading = Reading(self.cache, self.model.config.canvas_length)
        hidden, expected = self._reading.with_canvas(ids, soft, ids[:known].tolist())
        logits = self.model.logits(torch.cat((hidden[free], expected)))
        return logits[: -len(expected)], logits[-len(expected) :]

    def condition(self, ids: Tensor, probs: Tensor, open_slots: Tensor) -> Tensor:
        """A clamp conditions as itself: the embedding of its token."""
        soft = self.model.embed(ids)
        soft[open_slots] = self.model.soft_embed(probs)
        return soft


class Reading:
    """A causal reading of what stands behind a prefix, which changes from pass to pass.

    Only what is new since the last time is encoded, in one pass with the canvas. In a copy of the
    prefix, since behind the prefix itself lie the canvas' own keys and values. The prefix must
    have a last row, and stay as it is.
    """

    def __init__(self, prefix: PrefixCache, room: int) -> None:
        assert prefix.last is not None
        self._prefix = prefix
        self._cache = prefix.copy(room)
        self._rows = prefix.last

    def with_canvas(
        self, canvas: Tensor, soft: Tensor | None, ids: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """The prefix' `canvas` [T, d], and what is expected at each of `ids` and behind them:
        hidden rows [len(ids) + 1, d]."""
        start = len(self._prefix.ids)
        shared = beginning(self._cache.ids[start:], ids)
        if shared == len(ids):
            return self._prefix.canvas(canvas, soft), self._rows[: len(ids) + 1]
        del self._cache.ids[start + shared :]
        hidden, fresh = self._prefix.canvas_and_reading(canvas, soft, self._cache, ids[shared:])
        self._rows = torch.cat((self._rows[: shared + 1], fresh))
        return hidden, self._rows
