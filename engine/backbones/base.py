"""What the engine needs of a network. A family is a file with a class of this shape, and a line in
`engine.backbones.registry`.

Shapes: B batch, T rows, H query heads, K key/value heads, D head_dim, d hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from engine.backbones.quantized import Format


class Attend(Protocol):
    """What a caller of the stack supplies: attention itself."""

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [B, T, H, D] (scaled), k and v [B, T, K, D] -> what was read, [B, T, H, D]."""
        ...


class KVShape(Protocol):
    """What one layer keeps of a row. sliding: whether it sees a window only."""

    @property
    def sliding(self) -> bool: ...
    @property
    def head_dim(self) -> int: ...
    @property
    def kv_heads(self) -> int: ...


class BackboneConfig(Protocol):
    """What is known of a network's shape, whatever its family. Lengths are in tokens."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def canvas_length(self) -> int: ...
    @property
    def max_positions(self) -> int: ...
    @property
    def bos_id(self) -> int | None: ...
    @property
    def eos_ids(self) -> tuple[int, ...]: ...


class Backbone(Protocol):
    """A stack of layers that reads as encoder (the prefix) and as decoder (the canvas).

    Who sees whom is the caller's: `attend` gets each layer's scaled queries, keys and values.
    """

    @property
    def config(self) -> BackboneConfig: ...
    @property
    def kv(self) -> Sequence[KVShape]:
        """What each layer keeps of a row."""
        ...

    @property
    def sliding_window(self) -> int: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def count(self) -> int:
        """How many numbers its weights have."""
        ...

    @property
    def format(self) -> Format:
        """What its weights are kept in."""
        ...

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids [...] -> embeddings [..., d]."""
        ...

    def soft_embed(self, probs: Tensor) -> Tensor:
        """Probabilities [..., V] -> the embedding expected under them, [..., d]."""
        ...

    def encode(self, ids: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """Tokens [B, T] at positions [T] or [B, T] -> hidden rows [B, T, d]."""
        ...

    def decode(
        self, ids: Tensor, positions: Tensor, attend: Attend, soft: Tensor | None = None
    ) -> Tensor:
        """The same by the decoder; soft [B, T, d]: what the last pass believed, as embeddings."""
        ...

    def run(
        self, canvas: Tensor, soft: Tensor | None, ids: Tensor, positions: Tensor, attend: Attend
    ) -> tuple[Tensor, Tensor]:
        """`decode` of canvas [B, T] and `encode` of ids [B, S] in one pass over the weights."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden rows [..., d] -> logits [..., V] in float32."""
        ...
