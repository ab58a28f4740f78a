"""Keys and values of rows, one buffer for each layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.backbones.base import KVShape

GROWTH = 1024
"""Buffers grow by at least so many rows, so that typing doesn't move them at each key."""


class KVBuffer:
    """Keys and values [1, capacity, K, D] of each layer; rows are written and read by their place.

    growth: by how many rows a buffer grows at least.
    """

    def __init__(
        self,
        layers: Sequence[KVShape],
        dtype: torch.dtype,
        device: torch.device,
        growth: int = GROWTH,
    ) -> None:
        self.layers, self.dtype, self.device, self.growth = layers, dtype, device, growth
        self.capacity = 0
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def reserve(self, rows: int) -> None:
        """Makes room for so many rows. If there is no memory for them, all stays as it was."""
        if rows <= self.capacity:
            return
        capacity = max(rows, self.capacity + self.growth)
        keys = [self._grown(index, self.keys, capacity) for index in range(len(self.layers))]
        values = [self._grown(index, self.values, capacity) for index in range(len(self.layers))]
        self.keys, self.values, self.capacity = keys, values, capacity

    def write(self, layer: int, at: int, k: Tensor, v: Tensor) -> None:
        """Writes k and v [1, n, K, D] from row `at` on."""
        end = at + k.shape[1]
        self.keys[layer][:, at:end] = k
        self.values[layer][:, at:end] = v

    def read(self, layer: int, low: int, high: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the rows `low` to `high`, [1, high - low, K, D]."""
        return self.keys[layer][:, low:high], self.values[layer][:, low:high]

    def copy_from(self, other: KVBuffer, rows: int) -> None:
        """Takes over the first `rows` rows of another buffer of the same layers."""
        if not rows:
            return
        self.reserve(rows)
        for mine, others in ((self.keys, other.keys), (self.values, other.values)):
            for buffer, source in zip(mine, others, strict=True):
                buffer[:, :rows] = source[:, :rows]

    @property
    def bytes(self) -> int:
        """Memory that the buffers take."""
        return sum(t.numel() * t.element_size() for t in (*self.keys, *self.values))

    def _grown(self, index: int, old: list[Tensor], capacity: int) -> Tensor:
        layer = self.layers[index]
        shape = (1, capacity, layer.kv_heads, layer.head_dim)
        new = torch.empty(shape, dtype=self.dtype, device=self.device)
        if old:
            new[:, : self.capacity] = old[index]
        return new
