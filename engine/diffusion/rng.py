"""Random numbers by counter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Words = NDArray[np.int64]

_MASK32 = 0xFFFFFFFF


class Draws:
    """Uniform random numbers by counter: (seed, pass, slot, purpose) -> the same number, always.

    A request's draws therefore do not depend on what else is in a batch or on the device.
    Two rounds of the 32-bit finalizer of MurmurHash3, in 64-bit integers: on the host, since there
    they cost microseconds, and on a device as many kernels as a layer.
    """

    TOKEN, NOISE, RENOISE = 1, 2, 3

    def __init__(self, seed: int, device: torch.device) -> None:
        self.seed = seed
        self.device = device

    def uniform(self, step: int, slots: Sequence[int], purpose: int) -> Tensor:
        """One number in [0, 1) for each slot [n], in float32."""
        words = self._words(step, slots, purpose)
        return self._there((words >> 8).astype(np.float32) / np.float32(2**24))

    def tokens(self, step: int, slots: Sequence[int], vocab_size: int) -> Tensor:
        """One token for each slot [n], any of the vocabulary with the same probability."""
        return self._there((self._words(step, slots, self.NOISE) * vocab_size) >> 32)

    def _words(self, step: int, slots: Sequence[int], purpose: int) -> Words:
        """32 random bits for each slot [n]."""
        counters = np.asarray(slots, np.int64)
        state = _mix(counters ^ ((self.seed & _MASK32) * 0x9E3779B1 & _MASK32))
        state = _mix(state ^ ((step * 0x85EBCA77 + (self.seed >> 32)) & _MASK32))
        return _mix(state ^ (purpose * 0xC2B2AE3D & _MASK32))

    def _there(self, numbers: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(numbers).to(self.device, non_blocking=True)


def _mix(x: Words) -> Words:
    # Products of 32-bit numbers overflow int64; the low 32 bits, which are all that is used, hold.
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & _MASK32
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & _MASK32
    return x ^ (x >> 16)
