"""Processes: what noise is, and what a pass may make of it.

uniform    a fresh slot holds any token of the vocabulary (DiffusionGemma)
absorbing  a fresh slot holds the mask token (Dream, DreamOn, mini)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from engine.diffusion.rng import Draws


class Process(Protocol):
    """What the loop asks of noise. n free slots, V vocabulary.

    conditions: whether the next pass is told what this one believed (self-conditioning).
    """

    @property
    def conditions(self) -> bool: ...
    def noise(self, draws: Draws, step: int, slots: Sequence[int]) -> Tensor:
        """What fresh slots [n] hold, as tokens [n]."""
        ...

    def without_noise(self, raw: Tensor, current: Tensor, noisy: Tensor) -> Tensor:
        """Logits [n, V] without the evidence of what is known to be noise: `current` [n] where
        `noisy` [n]."""
        ...


@dataclass(frozen=True, slots=True)
class Uniform:
    """Noise is a token drawn from the whole vocabulary."""

    vocab_size: int
    conditions: bool = True

    def noise(self, draws: Draws, step: int, slots: Sequence[int]) -> Tensor:
        return draws.tokens(step, slots, self.vocab_size)

    def without_noise(self, raw: Tensor, current: Tensor, noisy: Tensor) -> Tensor:
        """The model can't tell a token that stands in its place from one that was drawn at random,
        and believes both; the loop knows which are which, and rules the random ones out. That one
        of them is right by chance happens once in V times. (Leave-one-out, arXiv 2605.22765.)"""
        bare = raw.scatter(1, current.unsqueeze(1), float("-inf"))
        bare = torch.where(noisy.unsqueeze(1), bare, raw)
        # A slot that may hold one token only keeps it.
        impossible = bare.isneginf().all(-1, keepdim=True)
        return torch.where(impossible, raw, bare)


@dataclass(frozen=True, slots=True)
class Absorbing:
    """Noise is the mask token, which no pass ever writes.

    final: what is no noise is text, whatever the model makes of a token that it sees: it was
    trained to tell what stands behind masks only.
    """

    mask_id: int
    final: bool = False
    conditions: bool = False

    def noise(self, draws: Draws, step: int, slots: Sequence[int]) -> Tensor:
        return torch.full((len(slots),), self.mask_id, device=draws.device)

    def without_noise(self, raw: Tensor, current: Tensor, noisy: Tensor) -> Tensor:
        if not self.final:
            return raw
        known = current.clamp(max=raw.shape[1] - 1).unsqueeze(1)
        certain = torch.full_like(raw, float("-inf")).scatter(1, known, 0.0)
        return torch.where(noisy.unsqueeze(1), raw, certain)
