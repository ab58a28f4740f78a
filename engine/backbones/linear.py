"""Linear layers in the form that a device multiplies fastest.

Weights stay what the checkpoint holds; a `Kernel` is how they are multiplied:

plain   `F.linear` in the weights' own precision
int8    weights rounded to 8 bits a channel, rows to 8 bits as they come (CPU)
"""

from __future__ import annotations

import warnings
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Format = Literal["plain", "int8"]


MANY = 64
"""From so many rows on, bfloat16 is faster than int8 on a CPU."""


class Linear:
    """y = x W^T (+ b). weight [out, in], bias [out] or None; made for one format.

    many: whether products of many rows, such as a prefix', take the weight as it is (int8).
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        format: Format = "plain",
        many: bool = False,
    ) -> None:
        self.out_features, self.in_features = weight.shape
        self.bias = bias
        self.weight = weight if format == "plain" or many else None
        self._packed = _int8(weight, bias) if format == "int8" else None

    def __call__(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out], in x's precision."""
        rows = x.reshape(-1, self.in_features)
        if self.weight is not None and (self._packed is None or len(rows) >= MANY):
            return F.linear(x.to(self.weight.dtype), self.weight, self.bias).to(x.dtype)
        out = torch.ops.quantized.linear_dynamic(rows, self._packed, reduce_range=False)
        return out.view(*x.shape[:-1], self.out_features)


def _int8(weight: Tensor, bias: Tensor | None) -> object:
    """Symmetric int8, one scale for each output channel, packed for the CPU's int8 kernels."""
    full = weight.float()
    scales = full.abs().amax(dim=1).clamp(min=1e-8) / 127.0
    zeros = torch.zeros(len(scales), dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # quantized tensors are deprecated, the kernels are not
        rounded = torch.quantize_per_channel(full, scales, zeros, 0, torch.qint8)
    return torch.ops.quantized.linear_prepack(rounded, None if bias is None else bias.float())
