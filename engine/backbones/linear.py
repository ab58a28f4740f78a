"""Linear layers in the form that a device multiplies fastest.

Weights stay what the checkpoint holds; a `Kernel` is how they are multiplied:

plain   `F.linear` in the weights' own precision
int8    weights rounded to 8 bits a channel, rows to 8 bits as they come, each by itself (CPU)
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Format = Literal["plain", "int8"]

TINY = 1e-9
"""A row of nothing but zeros is divided by it."""


def cores() -> int:
    """How many CPU cores this process may use."""
    known = getattr(os, "sched_getaffinity", None)
    return len(known(0)) if known else os.cpu_count() or 1


class Linear:
    """y = x W^T (+ b). weight [out, in], bias [out] or None; made for one format."""

    def __init__(
        self, weight: Tensor, bias: Tensor | None = None, format: Format = "plain"
    ) -> None:
        self.out_features, self.in_features = weight.shape
        self.bias = bias if bias is None or format == "plain" else bias.float()
        self.weight = weight if format == "plain" else None
        self._packed = _int8(weight) if format == "int8" else None

    def __call__(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out], in x's precision."""
        if self.weight is not None:
            return F.linear(x.to(self.weight.dtype), self.weight, self.bias).to(x.dtype)
        # The kernel rounds all rows with one scale. Brought to one size before, each has its own:
        # an outlier in one costs the others nothing, and none depends on what else is in the pass.
        sizes = x.abs().amax(dim=-1, keepdim=True).clamp_(min=TINY)
        multiply = torch.ops.quantized.linear_dynamic
        out = multiply(x / sizes, self._packed, reduce_range=False).mul_(sizes)
        return out if self.bias is None else out.add_(self.bias)


class LowRank:
    """scale * x A^T B^T: what an adapter adds to the product of one or several matrices that are
    multiplied in one (arXiv 2106.09685).

    pairs: A [r, in] and B [out, r] of each, or its number of outputs if it has none. scales: of
    each.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[Tensor, Tensor] | int],
        scales: Sequence[float],
        dtype: torch.dtype,
    ) -> None:
        known = [pair for pair in pairs if not isinstance(pair, int)]
        self._down = torch.cat([down for down, _ in known]).to(dtype)
        sizes = [pair if isinstance(pair, int) else len(pair[1]) for pair in pairs]
        self._up = self._down.new_zeros(sum(sizes), len(self._down))
        row = column = 0
        for pair, size, scale in zip(pairs, sizes, scales, strict=True):
            if not isinstance(pair, int):
                up = pair[1].to(self._up) * scale
                self._up[row : row + size, column : column + up.shape[1]] = up
                column += up.shape[1]
            row += size

    def __call__(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out]."""
        return F.linear(F.linear(x, self._down), self._up)


CHUNK = 8192
"""Rows of a weight that are rounded at a time: in float32 they take four times as much."""


def _int8(weight: Tensor) -> object:
    """Symmetric int8, one scale for each output channel, packed for the CPU's int8 kernels."""
    scales = weight.abs().amax(dim=1).float().clamp(min=1e-8) / 127.0
    rounded = torch.empty(weight.shape, dtype=torch.int8)
    for own, part, scale in zip(
        rounded.split(CHUNK), weight.split(CHUNK), scales.split(CHUNK), strict=True
    ):
        own.copy_((part.float() / scale.unsqueeze(1)).round_())
    zeros = torch.zeros(len(scales), dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # quantized tensors are deprecated, the kernels are not
        made = torch._make_per_channel_quantized_tensor(rounded, scales, zeros, 0)  # pyright: ignore
    return torch.ops.quantized.linear_prepack(made, None)
