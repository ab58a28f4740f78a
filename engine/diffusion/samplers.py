"""Entropy-bound sampling with clamped positions: pure functions of logits.

Only free positions ever get here, so the entropy budget, renoising and the stop rule can't see a
clamp. Source: transformers' `EntropyBoundSampler` and "Accelerated Sampling from Masked Diffusion
Models via Entropy Bounded Unmasking" (arXiv 2505.24857); without drafts and slack, one step gives
what the reference gives for the same draws.

Shapes: n free positions, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MASK32 = 0xFFFFFFFF


def temperature(step: int, planned: int, t_max: float, t_min: float) -> float:
    """Softmax temperature of pass `step` (from 0) of `planned`: t_max first, towards t_min."""
    return t_min + (t_max - t_min) * (planned - step) / planned


def entropies(probs: Tensor) -> Tensor:
    """Entropy in nats of each row of probabilities [n, V] -> [n]. Banned tokens count as 0."""
    return torch.special.entr(probs).sum(-1)


def within_budget(entropy: Tensor, bound: float) -> Tensor:
    """The surest positions whose entropies, but for the largest, sum to at most `bound`.

    entropy [n] in nats -> bool [n]. At least the surest position is always accepted.
    """
    ordered, order = entropy.sort()
    accepted = torch.zeros_like(entropy, dtype=torch.bool)
    accepted[order] = ordered.cumsum(0) - ordered <= bound
    return accepted


def accept(
    entropy: Tensor, tokens: Tensor, slack: int | None, holes: list[slice], bound: float
) -> tuple[Tensor, Tensor]:
    """Which of the sampled `tokens` [n] are kept in this pass, as bool [n], and the tokens.

    Slack is the easiest token to predict: accepted like any other it would fill every hole. One
    ends a hole only where all the text before it in the hole is kept, and if it is no less sure
    than what is kept anyway; then the rest of the hole is slack, whatever was sampled there. It
    spends nothing of the text's budget. `holes` are the slices of the free positions that form one.
    """
    if slack is None:
        return within_budget(entropy, bound), tokens
    text = tokens != slack
    accepted = torch.zeros_like(text)
    limit = float("inf")
    if bool(text.any()):
        accepted[text] = within_budget(entropy[text], bound)
        limit = max(bound, float(entropy[accepted].max()))
    tokens = tokens.clone()
    for hole in holes:
        end = hole.start + int(accepted[hole].long().cumprod(0).sum())
        if end < hole.stop and not bool(text[end]) and float(entropy[end]) <= limit:
            accepted[end : hole.stop] = True
            tokens[end : hole.stop] = slack
    return accepted, tokens


def accept_from_left(
    entropy: Tensor,
    tokens: Tensor,
    slack: int | None,
    holes: list[slice],
    bound: float,
    decided: Tensor,
) -> tuple[Tensor, Tensor]:
    """As `accept`, but each hole is decided from its left: its first slot that is not `decided`
    (bool [n]) yet, and those behind it for as long as their entropies sum to at most `bound`.

    For models that can't yet tell where in a hole something will stand that they are sure of: what
    they place far ahead fixes how long everything before it has to be.
    """
    tokens, accepted = tokens.clone(), decided.clone()
    for hole in holes:
        first = hole.start + int(decided[hole].long().cumprod(0).sum())
        if first == hole.stop:
            continue
        spent = entropy[first : hole.stop].masked_fill(decided[first : hole.stop], 0.0)
        spent[0] = 0.0
        stop = first + int((spent.cumsum(0) <= bound).sum())
        accepted[first:stop] = True
        if slack is None:
            continue
        end = first + int((tokens[first:stop] != slack).long().cumprod(0).sum())
        if end < stop:
            # Slack is the hole's end, and the rest of the hole is slack.
            accepted[first : hole.stop] = True
            tokens[end : hole.stop] = slack
    return accepted, tokens


def sample(probs: Tensor, uniform: Tensor) -> Tensor:
    """Draws a token from each row of probabilities [n, V] with one uniform number each [n].

    The inverse of the cumulative distribution, so that the draw depends on its own number alone.
    """
    cumulative = probs.cumsum(-1)
    total = cumulative[:, -1:]
    # Rounding must not lift the target to the total: behind that there may be banned tokens only.
    below = torch.nextafter(total, torch.zeros_like(total))
    target = torch.minimum(uniform.to(total.dtype).unsqueeze(-1) * total, below)
    return torch.searchsorted(cumulative, target, right=True).squeeze(-1)


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
