"""Random numbers by counter."""

from __future__ import annotations

import torch
from torch import Tensor

_MASK32 = 0xFFFFFFFF


class Draws:
    """Uniform random numbers by counter: (seed, pass, slot, purpose) -> the same number, always.

    A request's draws therefore do not depend on what else is in a batch or on the device.
    Two rounds of the 32-bit finalizer of MurmurHash3, in 64-bit integers.
    """

    TOKEN, NOISE, RENOISE = 1, 2, 3

    def __init__(self, seed: int, device: torch.device) -> None:
        self.seed = seed
        self.device = device

    def uniform(self, step: int, slots: Tensor, purpose: int) -> Tensor:
        """One number in [0, 1) for each slot [n], in float32."""
        return (self._words(step, slots, purpose) >> 8).float() / 2**24

    def tokens(self, step: int, slots: Tensor, vocab_size: int) -> Tensor:
        """One token for each slot [n], any of the vocabulary with the same probability."""
        return (self._words(step, slots, self.NOISE) * vocab_size) >> 32

    def _words(self, step: int, slots: Tensor, purpose: int) -> Tensor:
        """32 random bits for each slot [n]. No float64: Apple's devices have none."""
        state = _mix(slots.to(torch.int64) ^ ((self.seed & _MASK32) * 0x9E3779B1 & _MASK32))
        state = _mix(state ^ ((step * 0x85EBCA77 + (self.seed >> 32)) & _MASK32))
        return _mix(state ^ (purpose * 0xC2B2AE3D & _MASK32))


def _mix(x: Tensor) -> Tensor:
    # Products of 32-bit numbers overflow int64; the low 32 bits, which are all that is used, hold.
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & _MASK32
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & _MASK32
    return x ^ (x >> 16)
