"""What may be written into a hole: no special tokens, and first of all what was typed already."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.text.tokenizer import TextTokenizer


class Writable:
    """Which tokens may come next in a hole that begins with the `typed` bytes.

    allowed: bool [V], what may be written at all; what ends the hole is in it and has no bytes.
    """

    def __init__(self, tokenizer: TextTokenizer, typed: bytes, allowed: Tensor) -> None:
        self._tokenizer, self._typed, self._allowed = tokenizer, typed, allowed
        self._first: dict[bytes, Tensor] = {}

    def next(self, ids: Sequence[int]) -> Tensor:
        """Bool [V]: what may come behind `ids`. While the typed bytes are not all there, what goes
        on with them, or begins with all that is left of them."""
        rest = self._typed[len(self._tokenizer.bytes_of(ids)) :] if self._typed else b""
        if not rest:
            return self._allowed
        if rest not in self._first:
            tokens = self._tokenizer.along(rest)
            only = torch.zeros_like(self._allowed)
            only[list(tokens)] = True
            self._first[rest] = only & self._allowed
        return self._first[rest]

    def text(self, ids: Sequence[int]) -> str:
        """What `ids` put behind the typed bytes."""
        return self._tokenizer.text_of(ids, len(self._typed))

    def begun(self, ids: Sequence[int]) -> bool:
        """Whether all that was typed is there."""
        return len(self._tokenizer.bytes_of(ids)) >= len(self._typed)
