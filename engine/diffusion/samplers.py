"""Entropy-bound sampling with clamped positions: pure functions of logits.

Only free positions ever get here, so the entropy budget, renoising and the stop rule can't see a
clamp. Source: transformers' `EntropyBoundSampler` and "Accelerated Sampling from Masked Diffusion
Models via Entropy Bounded Unmasking" (arXiv 2505.24857); without drafts and slack, one step gives
what the reference gives for the same draws.

Shapes: n free positions, V vocabulary. Nothing here asks for a tensor's value, so that a device is
never waited for.
"""

from __future__ import annotations

from collections.abc import Sequence
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


class Holes:
    """Which of n free slots form a hole together, as tensors: no question about them waits for the
    device.

    of: int64 [n], the number of each slot's hole. at: int64 [n], 0 … n - 1. first: int64 [h], the
    first slot of each hole.
    """

    def __init__(self, holes: Sequence[slice], device: torch.device) -> None:
        sizes = [hole.stop - hole.start for hole in holes]
        numbers = [number for number, size in enumerate(sizes) for _ in range(size)]
        self.of = torch.tensor(numbers, device=device)
        self.at = torch.arange(len(numbers), device=device)
        self.first = torch.tensor([sum(sizes[:i]) for i in range(len(sizes))], device=device)

    def find(self, marked: Tensor) -> Tensor:
        """The first `marked` slot (bool [n]) of each slot's hole, [n]; n where none is."""
        n = len(marked)
        found = torch.full_like(self.first, n)
        found = found.scatter_reduce(0, self.of, self.at.masked_fill(~marked, n), "amin")
        return found[self.of]

    def running(self, values: Tensor) -> Tensor:
        """Sums of `values` [n] from the beginning of each slot's hole, itself included."""
        total = values.cumsum(0)
        return total - (total - values)[self.first[self.of]]


def within_budget(entropy: Tensor, bound: float) -> Tensor:
    """The surest positions whose entropies, but for the largest, sum to at most `bound`.

    entropy [n] in nats -> bool [n]. At least the surest position is always accepted; those of
    infinite entropy are behind all others, and never.
    """
    ordered, order = entropy.sort(stable=True)
    kept = (ordered.cumsum(0) - ordered <= bound) & ordered.isfinite()
    return torch.zeros_like(kept).scatter(0, order, kept)


def accept(
    entropy: Tensor, tokens: Tensor, slack: int | None, holes: Holes, bound: float
) -> tuple[Tensor, Tensor]:
    """Which of the sampled `tokens` [n] are kept in this pass, as bool [n], and the tokens.

    Slack is the easiest token to predict: accepted like any other it would fill every hole. One
    ends a hole only where all the text before it in the hole is kept, and if it is no less sure
    than what is kept anyway; then the rest of the hole is slack, whatever was sampled there. It
    spends nothing of the text's budget.
    """
    if slack is None:
        return within_budget(entropy, bound), tokens
    text = tokens != slack
    accepted = within_budget(entropy.masked_fill(~text, float("inf")), bound)
    limit = entropy.masked_fill(~accepted, 0.0).amax().clamp(min=bound)
    sure = (entropy <= limit) | ~text.any()
    return _ended(accepted, tokens, slack, holes, holes.find(~accepted), ~text & sure)


def accept_from_left(
    entropy: Tensor,
    tokens: Tensor,
    slack: int | None,
    holes: Holes,
    bound: float,
    decided: Tensor,
) -> tuple[Tensor, Tensor]:
    """As `accept`, but each hole is decided from its left: its first slot that is not `decided`
    (bool [n]) yet, and those behind it for as long as their entropies sum to at most `bound`.

    For models that can't yet tell where in a hole something will stand that they are sure of: what
    they place far ahead fixes how long everything before it has to be.
    """
    first = holes.find(~decided)
    spent = entropy.masked_fill(decided | (holes.at <= first), 0.0)
    new = (holes.at >= first) & (holes.running(spent) <= bound)
    if slack is None:
        return decided | new, tokens
    end = holes.find((tokens == slack) & (holes.at >= first))
    return _ended(decided | new, tokens, slack, holes, end, new)


def _ended(
    accepted: Tensor, tokens: Tensor, slack: int, holes: Holes, end: Tensor, may: Tensor
) -> tuple[Tensor, Tensor]:
    """Where a hole's slot `end` [n] (n: it has none) is one at which it `may` end (bool [n]), the
    rest of the hole is accepted as slack."""
    n = len(tokens)
    behind = (holes.at >= end) & may[end.clamp(max=n - 1)]
    return accepted | behind, tokens.masked_fill(behind, slack)


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
    holes: which of the slots form one. slack: the token that ends a hole, if any.
    passes: how many there are left, this one among them.
    """

    raw: Tensor
    probs: Tensor
    drawn: Tensor
    current: Tensor
    noisy: Tensor
    held: Tensor
    holes: Holes
    slack: int | None
    passes: int = 1


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


@dataclass(frozen=True, slots=True)
class Surest:
    """What is decided is final. Of the rest a pass decides the surest slot, all others whose
    entropy is below `bound` nats, and as many as the passes that are left have to.

    Slack takes all that is still noise behind it in its hole; behind what most likely ends a hole
    nothing has to be decided. Sources: Dream's decoding by entropy (arXiv 2508.15487), the deletion
    of DreamOn (arXiv 2602.01326), the threshold of d3LLM (arXiv 2601.07568).
    """

    bound: float
    confirms: bool = False

    def decide(self, beliefs: Beliefs) -> Decision:
        noisy, slack, holes = beliefs.noisy, beliefs.slack, beliefs.holes
        likely = torch.where(noisy, beliefs.probs.argmax(-1), beliefs.current)
        text = noisy
        if slack is not None:
            over = (holes.at >= holes.find(noisy & (likely == slack))) & noisy
            text, likely = noisy & ~over, likely.masked_fill(over, slack)
        entropy = entropies(beliefs.probs).masked_fill(~noisy, float("inf"))
        count = (text.sum() / beliefs.passes).ceil().clamp(min=1)
        place = torch.empty_like(holes.at).scatter(0, entropy.argsort(stable=True), holes.at)
        chosen = ((place < count) | (entropy < self.bound)) & noisy
        tokens = torch.where(noisy, beliefs.drawn, beliefs.current)
        if slack is not None:
            over = (holes.at >= holes.find(chosen & (tokens == slack))) & noisy
            chosen, tokens = chosen | over, tokens.masked_fill(over, slack)
        accepted = chosen | ~noisy
        best = torch.where(accepted, tokens, likely)
        certainty = beliefs.raw.softmax(-1).gather(1, best.unsqueeze(1)).squeeze(1)
        # A canvas on which nothing is left to decide is settled.
        return Decision(accepted, tokens, ~noisy | accepted.all(), best, certainty)


def nucleus(probs: Tensor, share: float) -> Tensor:
    """Probabilities [n, V] of the likeliest tokens alone that have `share` of them together; the
    likeliest one always counts (top-p sampling, arXiv 1904.09751)."""
    ordered, order = probs.topk(min(_LIKELIEST, probs.shape[-1]), dim=-1)
    # To sort a whole vocabulary is slow on a CPU; on a device, to ask whether one has to.
    if probs.device.type != "cpu" or bool((ordered.sum(-1) < share).any()):
        ordered, order = probs.sort(dim=-1, descending=True)
    ordered = ordered.masked_fill(ordered.cumsum(-1) - ordered > share, 0.0)
    kept = torch.zeros_like(probs).scatter(-1, order, ordered)
    return kept / kept.sum(-1, keepdim=True)


_LIKELIEST = 1024
"""So many tokens nearly always have the share that is asked for."""


def sampler_of(sampling: Sampling) -> Sampler:
    """The sampler that a profile asks for."""
    if sampling.final:
        return Surest(sampling.entropy_bound)
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
    current, holes, slack = beliefs.current, beliefs.holes, beliefs.slack
    confirmed = ~beliefs.noisy & (beliefs.probs.argmax(-1) == current)
    if slack is not None:
        # A hole's end is one decision: the slack behind the first one stands and falls with it.
        end = holes.find(~beliefs.noisy & (current == slack))
        first = confirmed[end.clamp(max=len(current) - 1)]
        confirmed = torch.where(holes.at >= end, first, confirmed)
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
