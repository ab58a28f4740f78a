"""Weights in 8 or 4 bits: what they take, and what they stand for.

8 bits   symmetric, a float32 scale for each output channel
4 bits   symmetric, a bfloat16 scale for every GROUP inputs of a channel

They are rounded to the nearest as a model is loaded. What multiplies them as they are is in
engine.backbones.triton_linear for CUDA and, 8 bits, in engine.backbones.linear for a CPU; elsewhere
a product widens them again, a layer at a time, which saves memory and no time.
"""

from __future__ import annotations

from functools import reduce
from math import prod
from operator import or_
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
    """A weight [..., out, in] in so many bits.

    codes: signed integers, two or four in a word of 16 bits (half as many in one of 8 where that
    can't be). The words of a group have its first inputs in their lowest bits, those that follow
    above them: what a kernel takes out of neighbouring words are neighbouring inputs.
    """

    def __init__(self, weight: Tensor, bits: Bits) -> None:
        self.shape = weight.shape
        self.bits: Bits = bits
        self.codes, self.scales = _in_8_bits(weight) if bits == 8 else _in_4_bits(weight)

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


def _in_8_bits(weight: Tensor) -> tuple[Tensor, Tensor]:
    """[..., out, in] -> its words [..., out, W], float32 scales [..., out]."""
    codes, scales = rounded(weight)
    rows = codes.flatten(0, -2)
    words = _words(rows, 8)
    for own, part in zip(words.split(CHUNK), rows.split(CHUNK), strict=True):
        _write(own, part, 8)
    return words.unflatten(0, weight.shape[:-1]), scales


def _in_4_bits(weight: Tensor) -> tuple[Tensor, Tensor]:
    """[..., out, in] -> its words [..., out, W], bfloat16 scales [..., out, in / GROUP].

    The scale makes the largest weight of a group -8, with its sign, so that all 16 values are used
    (as in GGUF's Q4_0).
    """
    inputs = weight.shape[-1]
    size = group_of(inputs)
    rows = weight.flatten(0, -2)
    words = _words(rows, 4)
    scales = torch.empty(len(rows), inputs // size, dtype=torch.bfloat16, device=weight.device)
    for own, scale, part in zip(
        words.split(CHUNK), scales.split(CHUNK), rows.split(CHUNK), strict=True
    ):
        groups = part.float().unflatten(1, (-1, size))
        largest = groups.gather(2, groups.abs().argmax(dim=2, keepdim=True))
        scale.copy_(largest.squeeze(2) / -8.0)
        steps = scale.float().unsqueeze(2)
        steps = torch.where(steps == 0, 1.0, steps)
        _write(own, (groups / steps).round_().clamp_(-8, 7).flatten(1), 4)
    return words.unflatten(0, weight.shape[:-1]), scales.unflatten(0, weight.shape[:-1])


def _words(rows: Tensor, bits: Bits) -> Tensor:
    """Memory for the words of rows [n, in]."""
    odd = group_of(rows.shape[1]) % (16 // bits)
    word = torch.int8 if odd else torch.int16
    count = rows.shape[1] * bits // (8 * word.itemsize)
    return torch.empty(len(rows), count, dtype=word, device=rows.device)


def _write(words: Tensor, codes: Tensor, bits: Bits) -> None:
    """Writes integers [n, in] into words [n, W]."""
    size, count = group_of(codes.shape[1]), 8 * words.itemsize // bits
    parts = codes.to(torch.int16).unflatten(1, (-1, count, size // count)).unbind(2)
    last = (1 << bits) - 1
    words.copy_(reduce(or_, ((part & last) << bits * i for i, part in enumerate(parts))).flatten(1))


def _widened(codes: Tensor, scales: Tensor, bits: Bits, dtype: torch.dtype) -> Tensor:
    width = 8 * codes.itemsize
    size = group_of(codes.shape[-1] * width // bits)
    words = codes.unflatten(-1, (-1, size * bits // width))
    # Up to the end of the word, and down again with the sign.
    shifts = range(width - bits, -1, -bits)
    parts = torch.stack([(words << shift) >> (width - bits) for shift in shifts], dim=-2)
    steps = scales.to(dtype).unsqueeze(-1)
    return (parts.flatten(-2).to(dtype) * (steps.unsqueeze(-1) if bits == 8 else steps)).flatten(-2)
