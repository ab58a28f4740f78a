"""Weights in 8 or 4 bits: what they take, and what they stand for.

8 bits   symmetric, a float32 scale for each output channel
4 bits   symmetric, a bfloat16 scale for every GROUP inputs of a channel, two weights a byte

They are rounded to the nearest as a model is loaded. A product widens them again, a layer at a
time: on a GPU they save memory and no time. What multiplies 8 bits as they are is in
engine.backbones.linear.
"""

from __future__ import annotations

from math import prod
from typing import Literal

import torch
from torch import Tensor

Format = Literal["plain", "int8", "int4"]
"""plain: as the checkpoint has them. int4: in 8 bits what 4 would cost more quality than memory."""
Bits = Literal[8, 4]

GROUP = 64
CHUNK = 8192
"""Rows that are rounded to 4 bits at a time: in float32 they take four times as much."""

NUMBERS = 2**18
"""So many numbers are rounded to 8 bits at a time: in float32 they fit into a CPU's cache."""


def rounded(weight: Tensor) -> tuple[Tensor, Tensor]:
    """[..., out, in] -> int8 of that shape, and the float32 scale of each channel, [..., out]."""
    scales = torch.empty(weight.shape[:-1], dtype=torch.float32, device=weight.device)
    codes = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
    many = max(1, NUMBERS // weight.shape[-1])
    # One piece of memory for all of them: what is mapped anew each time costs more than the sums.
    wide = torch.empty(many, weight.shape[-1], dtype=torch.float32, device=weight.device)
    rows = zip(
        codes.flatten(0, -2).split(many),
        weight.flatten(0, -2).split(many),
        scales.flatten().split(many),
        strict=True,
    )
    for own, part, scale in rows:
        exact = wide[: len(part)].copy_(part)
        torch.maximum(exact.amax(dim=-1), -exact.amin(dim=-1), out=scale)
        scale.clamp_(min=1e-8).div_(127.0)
        own.copy_(exact.div_(scale.unsqueeze(1)).round_())
    return codes, scales


class Quantized:
    """A weight [..., out, in] in so many bits."""

    def __init__(self, weight: Tensor, bits: Bits) -> None:
        self.shape = weight.shape
        self.bits: Bits = bits
        self.codes, self.scales = rounded(weight) if bits == 8 else _in_4_bits(weight)

    def plain(self, dtype: torch.dtype) -> Tensor:
        """What it stands for."""
        return _widened(self.codes, self.scales, self.bits, dtype)

    def rows(self, ids: Tensor, dtype: torch.dtype) -> Tensor:
        """What channels stand for: ids [...] of a weight [out, in] -> [..., in]."""
        return _widened(self.codes[ids], self.scales[ids], self.bits, dtype)

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return self.codes.nbytes + self.scales.nbytes


def bytes_of(shape: tuple[int, ...], bits: Bits) -> int:
    """Memory that a weight [..., out, in] takes in so many bits."""
    channels, inputs = prod(shape[:-1]), shape[-1]
    if bits == 8:
        return channels * (inputs + 4)
    return channels * (inputs // 2 + 2 * (inputs // group_of(inputs)))


def group_of(inputs: int) -> int:
    """How many inputs share a scale in 4 bits: all of a channel that can't be parted."""
    return inputs if inputs % GROUP else GROUP


def _in_4_bits(weight: Tensor) -> tuple[Tensor, Tensor]:
    """[..., out, in] -> uint8 [..., out, in / 2], bfloat16 scales [..., out, in / GROUP].

    The scale makes the largest weight of a group -8, with its sign, so that all 16 values are used
    (as in GGUF's Q4_0).
    """
    inputs = weight.shape[-1]
    size = group_of(inputs)
    rows = weight.flatten(0, -2)
    codes = torch.empty(len(rows), inputs // 2, dtype=torch.uint8, device=weight.device)
    scales = torch.empty(len(rows), inputs // size, dtype=torch.bfloat16, device=weight.device)
    for own, scale, part in zip(
        codes.split(CHUNK), scales.split(CHUNK), rows.split(CHUNK), strict=True
    ):
        groups = part.float().unflatten(1, (-1, size))
        largest = groups.gather(2, groups.abs().argmax(dim=2, keepdim=True))
        scale.copy_(largest.squeeze(2) / -8.0)
        steps = scale.float().unsqueeze(2)
        steps = torch.where(steps == 0, 1.0, steps)
        whole = (groups / steps).round_().clamp_(-8, 7).add_(8).to(torch.uint8).flatten(1)
        own.copy_(whole[:, 0::2] | (whole[:, 1::2] << 4))
    return codes.unflatten(0, weight.shape[:-1]), scales.unflatten(0, weight.shape[:-1])


def _widened(codes: Tensor, scales: Tensor, bits: Bits, dtype: torch.dtype) -> Tensor:
    if bits == 8:
        return codes.to(dtype) * scales.to(dtype).unsqueeze(-1)
    pairs = torch.stack((codes & 15, codes >> 4), dim=-1).flatten(-2)
    groups = pairs.to(dtype).sub_(8).unflatten(-1, (scales.shape[-1], -1))
    return groups.mul_(scales.to(dtype).unsqueeze(-1)).flatten(-2)
