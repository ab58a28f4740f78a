"""Entropy-bound sampling with clamped positions: pure functions of logits.

Only free positions ever get here, so the entropy budget, renoising and the stop rule can't see a
clamp. Source: transformers' `EntropyBoundSampler` and "Accelerated Sampling from Masked Diffusion
Models via Entropy Bounded Unmasking" (arXiv 2505.24857); without drafts and slack, one step gives
what the reference gives for the same draws.

Shapes: n free positions, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from engine.profile import Sampling


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


@dataclass(frozen=True, slots=True)
class Beliefs:
    """What a pass believes at the free slots [n].

    raw: logits [n, V]. probs: the same, cooled, as probabilities. drawn: a token drawn from them.
    current: the tokens that are there. noisy: where that is noise. held: where it is a draft's.
    holes: the slices of free slots that form one. slack: the token that ends a hole, if any.
    """

    raw: Tensor
    probs: Tensor
    drawn: Tensor
    current: Tensor
    noisy: Tensor
    held: Tensor
    holes: list[slice]
    slack: int | None


@dataclass(frozen=True, slots=True)
class Decision:
    """What is done with it, each [n]: which slots are decided, and as what; which of those were
    before; the best guess everywhere, and its probability."""

    accepted: Tensor
    tokens: Tensor
    confirmed: Tensor
    best: Tensor
    certainty: Tensor


class Sampler(Protocol):
    """Beliefs in, decision out. confirms: what is decided stays, at no cost, for as long as the
    model would choose it again, and conditions the next pass as the token that it is."""

    @property
    def confirms(self) -> bool: ...
    def decide(self, beliefs: Beliefs) -> Decision: ...


@dataclass(frozen=True, slots=True)
class EntropyBound:
    """The surest slots within an entropy budget (arXiv 2505.24857), wherever they are."""

    bound: float
    confirms: bool = False

    def decide(self, beliefs: Beliefs) -> Decision:
        confirmed, tokens = _confirmed(beliefs, self.confirms)
        cost = entropies(beliefs.probs).masked_fill(confirmed, 0.0)
        accepted, tokens = accept(cost, tokens, beliefs.slack, beliefs.holes, self.bound)
        return _decision(beliefs, accepted | confirmed, tokens, confirmed, self.confirms)


@dataclass(frozen=True, slots=True)
class FromLeft:
    """The same budget, but each hole is decided from its left.

    What the model believes, however coolly it is drawn from, says what can be decided blindly side
    by side.
    """

    bound: float
    confirms: bool = False

    def decide(self, beliefs: Beliefs) -> Decision:
        confirmed, tokens = _confirmed(beliefs, self.confirms)
        doubt = entropies(beliefs.raw.softmax(-1)).masked_fill(confirmed, 0.0)
        accepted, tokens = accept_from_left(
            doubt, tokens, beliefs.slack, beliefs.holes, self.bound, confirmed
        )
        return _decision(beliefs, accepted | confirmed, tokens, confirmed, self.confirms)


def sampler_of(sampling: Sampling) -> Sampler:
    """The sampler that a profile asks for."""
    kind = FromLeft if sampling.from_left else EntropyBound
    return kind(sampling.entropy_bound, sampling.accepted_as_tokens)


def _confirmed(beliefs: Beliefs, confirms: bool) -> tuple[Tensor, Tensor]:
    """Which slots [n] hold a token that was decided and that the model would choose again; and the
    tokens drawn, with those in their places.

    They stay at no cost: the budget bounds what is decided blindly side by side in one pass, and
    these are decided already. A small model is never so sure of them that it would not matter.
    """
    if not confirms:
        return torch.zeros_like(beliefs.noisy), beliefs.drawn
    current, slack = beliefs.current, beliefs.slack
    confirmed = ~beliefs.noisy & (beliefs.probs.argmax(-1) == current)
    for hole in beliefs.holes:
        # A hole's end is one decision: the slack behind the first one stands and falls with it.
        ends = (~beliefs.noisy[hole] & (current[hole] == slack)).nonzero()
        if slack is not None and len(ends):
            first = hole.start + int(ends[0])
            confirmed[first : hole.stop] = confirmed[first].clone()
    return confirmed, torch.where(confirmed, current, beliefs.drawn)


def _decision(
    beliefs: Beliefs, accepted: Tensor, tokens: Tensor, confirmed: Tensor, confirms: bool
) -> Decision:
    """With the best guess: the likeliest token, but a draft's where it has not been given up."""
    stays = beliefs.held & ~accepted
    best = torch.where(stays, beliefs.current, beliefs.probs.argmax(-1))
    if confirms:
        best = torch.where(accepted, tokens, best)
    certainty = beliefs.raw.softmax(-1).gather(1, best.unsqueeze(1)).squeeze(1)
    return Decision(accepted, tokens, confirmed, best, certainty)
