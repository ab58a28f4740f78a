"""A model behind one prefix, as the denoising loop calls it.

Shapes: T slots of a canvas, n free ones, d hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from engine.attention.batch import Batch, Ticket
from engine.attention.kv import KVBuffer
from engine.attention.prefix_cache import PrefixCache, canvas_span
from engine.attention.span import Span
from engine.attention.token_tree import ROOT, TokenTree
from engine.backbones.base import Backbone

Known = Sequence[int] | None
"""The tokens of a canvas' first slots, as far as they are decided, for who reads them causally."""

Read = Callable[[], tuple[Tensor, Tensor | None]]
"""What was asked of a model: logits at the free slots [n, V], and of a causal reading or None."""


class Denoiser(Protocol):
    """The model as the loop sees it: bound to a prefix, blind to text."""

    def ask(self, ids: Tensor, soft: Tensor | None, slots: Tensor, known: Known) -> Read:
        """Asks for a forward pass; what comes back is called when it is needed, and gives what the
        pass gave. Canvas ids [T], soft embeddings [T, d], free slots [n] -> logits [n, V], float32.

        With them, if the tokens of so many first slots are `known`, logits [known + 1, V] of a
        causal reading: what comes at each of those and behind them, from what is left of it alone.
        None if `known` is None, or the model can't tell.
        """
        ...

    def condition(self, ids: Tensor, probs: Tensor, slots: Tensor) -> Tensor:
        """Soft embeddings [T, d] of canvas ids [T]: these slots [m] as `probs` [m, V] has it, all
        others as the tokens that they hold."""
        ...


class PassDenoiser:
    """What both denoisers below share: passes go into a batch, one at a time."""

    def __init__(self, model: Backbone, batch: Batch) -> None:
        self.model, self._batch = model, batch
        self._own = KVBuffer(model.kv, model.dtype, model.device, growth=1)
        self._ticket: Ticket | None = None

    def withdraw(self) -> None:
        """The request is gone: what it asked for last is not run any more."""
        if self._ticket is not None:
            self._ticket.withdraw()

    def condition(self, ids: Tensor, probs: Tensor, slots: Tensor) -> Tensor:
        """A clamp conditions as itself: the embedding of its token."""
        soft = self.model.embed(ids)
        soft[slots] = self.model.soft_embed(probs)
        return soft


class CanvasDenoiser(PassDenoiser):
    """The whole canvas behind the first `length` tokens of a prefix (None: all), each slot seeing
    all others in both directions.

    What is read causally is encoded in `tree`, once and in one pass with the canvas.
    """

    def __init__(
        self,
        cache: PrefixCache,
        batch: Batch | None = None,
        tree: TokenTree | None = None,
        length: int | None = None,
    ) -> None:
        super().__init__(cache.model, batch or Batch(cache.model))
        self.cache, self.tree = cache, tree
        self.vocab_size = cache.model.config.vocab_size
        self._start = len(cache.ids) if length is None else length

    def ask(self, ids: Tensor, soft: Tensor | None, slots: Tensor, known: Known) -> Read:
        """Posts a pass; the head runs on the rows that are asked for only."""
        spans = [canvas_span(self.cache, self._start, self._own, ids, soft)]
        path: list[int] = []
        if self.tree is not None:
            path = [] if known is None else [ROOT, *self.tree.path(known)]
            spans += self.tree.spans()
        self._ticket = ticket = self._batch.post(spans)

        def read() -> tuple[Tensor, Tensor | None]:
            hidden, *others = ticket()
            if self.tree is not None:
                self.tree.took(others)
            if not path or self.tree is None:
                return self.model.logits(hidden[slots]), None
            logits = self.model.logits(torch.cat((hidden[slots], self.tree.rows(path))))
            return logits[: -len(path)], logits[-len(path) :]

        return read


class WindowDenoiser(PassDenoiser):
    """A window in which everything sees everything: the tokens in front and the canvas are read
    anew in each pass.

    front: ids [f] before the canvas. slack: free slots that hold it are left out of the window, as
    if they were not there. shifted: slot i is read from the row before it.
    """

    def __init__(
        self, model: Backbone, batch: Batch, front: Sequence[int], slack: int | None, shifted: bool
    ) -> None:
        super().__init__(model, batch)
        self._slack, self._shifted = slack, shifted
        self._front = torch.tensor(list(front), dtype=torch.int64, device=model.device)
        self.tree: TokenTree | None = None

    def ask(self, ids: Tensor, soft: Tensor | None, slots: Tensor, known: Known) -> Read:
        """Posts a pass over the whole window; nothing is read causally. What it gives for a slot
        that is left out means nothing: that slot is decided."""
        places = len(self._front) + slots
        if self._slack is not None:
            shown = torch.ones_like(ids, dtype=torch.bool)
            shown[slots] = ids[slots] != self._slack
            places = len(self._front) + (shown.cumsum(0) - 1)[slots]
            ids = ids[shown]
        # The first token of all is read from its own row: there is none before it.
        rows = (places - int(self._shifted)).clamp(min=0)
        window = torch.cat((self._front, ids))
        self._ticket = ticket = self._batch.post([window_span(window, self._own)])

        def read() -> tuple[Tensor, Tensor | None]:
            (hidden,) = ticket()
            return self.model.logits(hidden[rows]), None

        return read


def window_span(ids: Tensor, own: KVBuffer) -> Span:
    """Tokens [T] that all see each other, from position 0 on."""
    positions = torch.arange(len(ids), device=ids.device)
    return Span(
        "decoder", ids, positions, own, 0, sees="all", places=positions, reach=0, first=0, row=True
    )
