"""Linear layers in the form that a device multiplies fastest, or that its memory has room for.

plain   `F.linear` in the weights' own precision
int8    on a CPU weights and rows in 8 bits, each row rounded by itself as it comes; elsewhere the
        weights alone
int4    weights in 4 bits

On CUDA weights in few bits are multiplied as they are (engine.backbones.triton_linear); where no
kernel takes them they are widened for each product (engine.backbones.quantized).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.backbones import triton_linear
from engine.backbones.quantized import Format, Quantized, rounded

TINY = 1e-9
"""A row of nothing but zeros is divided by it."""


def cores() -> int:
    """How many CPU cores this process may use, and is to: OMP_NUM_THREADS holds here, too."""
    known = getattr(os, "sched_getaffinity", None)
    here = len(known(0)) if known else os.cpu_count() or 1
    wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return min(here, int(wanted)) if wanted.isdecimal() and int(wanted) else here


def multiplies_int8(device: torch.device) -> bool:
    """Whether a device has a kernel for rows and weights in 8 bits."""
    return device.type == "cpu"


class Linear:
    """y = x W^T (+ b). weight [out, in], bias [out] or None; made for one format."""

    def __init__(
        self, weight: Tensor | Quantized, bias: Tensor | None = None, format: Format = "plain"
    ) -> None:
        self.out_features, self.in_features = weight.shape
        self.bias, self._packed = bias, None
        self.weight: Tensor | Quantized | None = weight
        if isinstance(weight, Quantized) or format == "plain":
            return
        if format == "int8" and multiplies_int8(weight.device):
            self.weight, self._packed = None, _packed(weight)
            self.bias = bias if bias is None else bias.float()
        else:
            self.weight = Quantized(weight, 8 if format == "int8" else 4)

    def __call__(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out], in x's precision."""
        if isinstance(self.weight, Quantized):
            if triton_linear.multiplies(x, self.weight, x.numel() // self.in_features):
                return triton_linear.linear(x, self.weight, self.bias)
            return F.linear(x, self.weight.plain(x.dtype), self.bias)
        if self.weight is not None:
            return F.linear(x.to(self.weight.dtype), self.weight, self.bias).to(x.dtype)
        # The kernel rounds all rows with one scale. Brought to one size before, each has its own:
        # an outlier in one costs the others nothing, and none depends on what else is in the pass.
        rows = x.float()
        sizes = rows.abs().amax(dim=-1, keepdim=True).clamp_(min=TINY)
        multiply = torch.ops.quantized.linear_dynamic
        out = multiply(rows / sizes, self._packed, reduce_range=False).mul_(sizes)
        return (out if self.bias is None else out.add_(self.bias)).to(x.dtype)


class Product(nn.Module):
    """A weight [out, in] in 8 or 4 bits, in the place of one of torch's linear layers."""

    def __init__(self, weight: Tensor, bias: nn.Parameter | None, format: Format) -> None:
        super().__init__()
        self.linear, self.shape = Linear(weight, format=format), weight.shape
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        out = self.linear(x)
        return out if self.bias is None else out + self.bias


class Stacked(nn.Module):
    """Weights of experts, [E, out, in], in 8 or 4 bits: each by itself on a CPU, where each sees
    its own rows; together elsewhere."""

    def __init__(self, weight: Tensor, format: Format) -> None:
        super().__init__()
        self.shape = weight.shape
        alone = weight.device.type == "cpu"
        self.each = [Linear(one, format=format) for one in weight] if alone else None
        self.whole = None if alone else Quantized(weight, 8 if format == "int8" else 4)

    def plain(self, dtype: torch.dtype) -> Tensor:
        """All of them at once, for devices that multiply them so."""
        assert self.whole is not None
        return self.whole.plain(dtype)


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


def _packed(weight: Tensor) -> object:
    """A weight [out, in] in 8 bits, in the order of the CPU's kernels."""
    codes, scales = rounded(weight)
    zeros = torch.zeros(len(scales), dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # quantized tensors are deprecated, the kernels are not
        made = torch._make_per_channel_quantized_tensor(codes, scales, zeros, 0)  # pyright: ignore
    return torch.ops.quantized.linear_prepack(made, None)
