"""A model behind one prefix, as the denoising loop calls it."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.attention.prefix_cache import PrefixCache
from engine.attention.token_tree import ROOT, TokenTree
from engine.choice.beam import Beam


class BoundModel:
    """A model behind one prefix: what the denoising loop calls (engine.diffusion.loop.Denoiser).

    What it reads causally is encoded in `tree`, once and in one pass with the canvas; a `beam` in
    that tree gets on by a token in every pass. The prefix must stay as it is.
    """

    def __init__(
        self, cache: PrefixCache, tree: TokenTree | None = None, beam: Beam | None = None
    ) -> None:
        self.model, self.cache, self.tree, self.beam = cache.model, cache, tree, beam
        self.vocab_size = cache.model.config.vocab_size

    def logits(
        self, ids: Tensor, soft: Tensor | None, free: Tensor, known: int | None
    ) -> tuple[Tensor, Tensor | None]:
        """One pass; the head runs on the rows that are asked for only."""
        if self.tree is None:
            return self.model.logits(self.cache.canvas(ids, soft)[free]), None
        path = [] if known is None else [ROOT, *self.tree.path(ids[:known].tolist())]
        hidden = self.tree.encode_beside(self.cache, ids, soft)
        if self.beam is not None:
            self.beam.step()
        if known is None:
            return self.model.logits(hidden[free]), None
        logits = self.model.logits(torch.cat((hidden[free], self.tree.rows(path))))
        return logits[: -len(path)], logits[-len(path) :]

    def condition(self, ids: Tensor, probs: Tensor, open_slots: Tensor) -> Tensor:
        """A clamp conditions as itself: the embedding of its token."""
        soft = self.model.embed(ids)
        soft[open_slots] = self.model.soft_embed(probs)
        return soft
