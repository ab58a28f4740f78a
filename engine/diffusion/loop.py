"""The one denoising loop. Model, process, sampler, canvas, schedule and draws are its arguments.

A canvas is a row of token slots; clamped slots hold what stands in the document and are never
touched: not by acceptance, not by noise, not by the stop rule. In every pass the model sees the
whole canvas, a guess is drawn for every free slot, the surest are kept, the rest go back to noise.

It is a generator of passes: a plain call drains it, a preview shows each, a deadline or a cancel
just stops asking.

All of a pass is tensor operations, until one copy (`_told`) brings to the host what is shown and
what it has to decide: a device is waited for once a pass.

Shapes: T slots of a canvas, n of them free, V vocabulary.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from engine.diffusion.denoiser import Denoiser
from engine.diffusion.process import Process
from engine.diffusion.rng import Draws
from engine.diffusion.samplers import (
    Beliefs,
    Decision,
    Holes,
    entropies,
    nucleus,
    sample,
    sampler_of,
    temperature,
)
from engine.profile import Sampling
from engine.text.canvas import Canvas


@dataclass(frozen=True, slots=True)
class Schedule:
    """How many passes, and where in the schedule to begin.

    planned: the most passes of this run. strength: 1 from noise, below that from a draft; the
    schedule then begins where it stands at that share of the whole.
    """

    sampling: Sampling
    planned: int
    strength: float = 1.0


@dataclass(frozen=True, slots=True)
class Pass:
    """What one pass gave. best, certainty: the best guess and its probability at each free slot.

    entropy: mean over free slots in nats. settled: "settled" if this was the last pass because the
    canvas settled, "steps" if the passes are used up.
    """

    step: int
    best: list[int]
    certainty: list[float]
    entropy: float
    settled: Literal["settled", "steps"] | None


def denoise(
    model: Denoiser,
    process: Process,
    canvas: Canvas,
    schedule: Schedule,
    draws: Draws,
    first_step: int = 0,
) -> Iterator[Pass | None]:
    """Yields None when a forward pass has been asked for and a `Pass` after it, until the canvas
    settles or the passes are over.

    first_step: counter of the first pass, so that consecutive canvases get draws of their own.
    """
    sampling, planned = schedule.sampling, schedule.planned
    sampler = sampler_of(sampling)
    free = _Free(canvas)
    noisy = _start(canvas, free, process, draws, first_step)
    causal = _Causal(canvas, free, noisy, sampling.causal_share) if sampling.causal_share else None
    bias = _bias(canvas, free)
    # A run that begins in the middle of the schedule is as cool as the schedule is there.
    t_max = sampling.t_min + (sampling.t_max - sampling.t_min) * schedule.strength
    soft: Tensor | None = None
    history: list[list[int]] = []
    sure = torch.ones(len(free.numbers), device=free.slots.device)
    for step in range(planned):
        counter = first_step + step + 1
        read = model.ask(canvas.ids, soft, free.slots, causal.known if causal else None)
        yield None
        raw, expected = read()
        raw = process.without_noise(raw + bias, canvas.ids[free.slots], noisy)
        if causal is not None and expected is not None:
            raw = causal.heard(raw, expected, bias)
        heat = temperature(step, planned, t_max, sampling.t_min)
        probs = (raw / heat).softmax(-1)
        if sampling.top_p < 1:
            probs = nucleus(probs, sampling.top_p)
        drawn = sample(probs, draws.uniform(counter, free.numbers, Draws.TOKEN))
        current, held, left = canvas.ids[free.slots], canvas.held[free.slots], planned - step
        beliefs = Beliefs(raw, probs, drawn, current, noisy, held, free.holes, canvas.slack, left)
        decision = sampler.decide(beliefs)
        # What is final is as sure as it was when it was decided.
        sure = (
            torch.where(noisy, decision.certainty, sure) if sampling.final else decision.certainty
        )
        share = 0.0 if sampling.final else schedule.strength * (planned - step - 1) / planned
        noisy = _advance(canvas, free, decision, beliefs, process, share, draws, counter)
        told = _told(decision, sure, entropies(probs).mean(), canvas.ids[free.slots], noisy)
        stable = sampling.stability == 0 or (
            len(history) >= sampling.stability
            and all(told.best == old for old in history[-sampling.stability :])
        )
        done = None
        if stable and (told.entropy < sampling.confidence or told.confirmed):
            done = "settled"
        elif step + 1 == planned:
            done = "steps"
        yield Pass(counter, told.best, told.certainty, told.entropy, done)
        if done:
            return
        history = [*history, told.best][-max(1, sampling.stability) :]
        if causal is not None:
            causal.follow(told)
        if process.conditions and sampler.confirms:
            rows = torch.tensor(told.noisy, dtype=torch.int64, device=canvas.ids.device)
            soft = model.condition(canvas.ids, probs[rows], free.slots[rows])
        elif process.conditions:
            soft = model.condition(canvas.ids, probs, free.slots)


class _Free:
    """The free slots of a canvas. numbers: which they are. slots: the same as int64 [n]. holes:
    which of them form one. drafted: whether some hold a draft's tokens."""

    def __init__(self, canvas: Canvas) -> None:
        device = canvas.ids.device
        self.numbers = [slot for hole in canvas.holes for slot in range(hole.start, hole.stop)]
        self.slots = torch.tensor(self.numbers, device=device)
        self.holes = Holes(canvas.holes, device)
        self.drafted = bool(canvas.held.any())

    def local(self, hole: slice) -> slice:
        """A hole as a slice of the free slots instead of the canvas."""
        first = self.numbers.index(hole.start)
        return slice(first, first + hole.stop - hole.start)


def _start(canvas: Canvas, free: _Free, process: Process, draws: Draws, step: int) -> Tensor:
    """Fills the free slots for the first pass: a draft's with the probability that its strength
    says, all others always. Returns which free slots [n] hold noise now."""
    slots = free.slots
    kept = draws.uniform(step, free.numbers, Draws.RENOISE) >= canvas.strength[slots]
    keep = canvas.held[slots] & kept
    fresh = process.noise(draws, step, free.numbers)
    canvas.ids[slots] = torch.where(keep, canvas.ids[slots], fresh)
    canvas.held[slots] = keep
    return ~keep


def _advance(
    canvas: Canvas,
    free: _Free,
    decision: Decision,
    beliefs: Beliefs,
    process: Process,
    share: float,
    draws: Draws,
    counter: int,
) -> Tensor:
    """Writes the next pass' canvas: accepted tokens, surviving draft, noise for the rest.

    Returns which free slots [n] hold noise now.
    """
    current, accepted = beliefs.current, decision.accepted
    held = beliefs.held & ~accepted
    if free.drafted:
        # Of the draft, only the least likely tokens are given up: a share that falls to nothing.
        # The head may have no row for what noise is; a draft's tokens are never noise.
        known = current.clamp(max=beliefs.probs.shape[1] - 1).unsqueeze(1)
        belief = beliefs.probs.gather(1, known).squeeze(1).masked_fill(~held, 2.0)
        place = torch.empty_like(free.slots).scatter(0, belief.argsort(), free.holes.at)
        held = held & (place >= (share * held.sum()).floor())
    fresh = process.noise(draws, counter, free.numbers)
    ids = torch.where(accepted, decision.tokens, torch.where(held, current, fresh))
    canvas.ids[free.slots] = ids
    canvas.held[free.slots] = held
    return ~(accepted | held)


@dataclass(frozen=True, slots=True)
class _Told:
    """What the host gets to know of a pass. confirmed: whether all that was decided stays. ids:
    what the free slots hold now; noisy: which of them, counted from 0, hold noise."""

    best: list[int]
    certainty: list[float]
    entropy: float
    confirmed: bool
    ids: list[int]
    noisy: list[int]


def _told(
    decision: Decision, certainty: Tensor, entropy: Tensor, ids: Tensor, noisy: Tensor
) -> _Told:
    """Brings it there in one copy: all as 32-bit integers, some of which are the bits of floats."""
    scalars = torch.stack((entropy.view(torch.int32), decision.confirmed.all().int()))
    floats = certainty.view(torch.int32)
    copied = torch.cat((decision.best.int(), floats, ids.int(), noisy.int(), scalars)).cpu().numpy()
    best, sure, now, noise, rest = np.split(copied, np.cumsum([len(ids)] * 4))
    return _Told(
        best.tolist(),
        sure.view(np.float32).tolist(),
        float(rest[:1].view(np.float32)[0]),
        bool(rest[1]),
        now.tolist(),
        noise.nonzero()[0].tolist(),
    )


class _Causal:
    """A second opinion, that of the same weights' causal reading, wherever all that is left of a
    slot is known.

    known: the tokens of the canvas in front of its first noise; the last slot leads to nothing in
    it. share: what the opinion weighs.
    """

    def __init__(self, canvas: Canvas, free: _Free, noisy: Tensor, share: float) -> None:
        self._canvas, self._free, self._share = canvas, free, share
        self._ids: list[int] = canvas.ids.tolist()
        self._ends = [(free.local(hole), self._behind(hole)) for hole in canvas.holes]
        self.known: list[int] = self._known(noisy.nonzero()[:, 0].tolist())

    def follow(self, told: _Told) -> None:
        """The canvas has gone on."""
        for slot, token in zip(self._free.numbers, told.ids, strict=True):
            self._ids[slot] = token
        self.known = self._known(told.noisy)

    def heard(self, raw: Tensor, expected: Tensor, bias: Tensor) -> Tensor:
        """The logits [n, V] with what it expects [known + 1, V]: a product of experts, what is
        known to both sides of a hole, and a language model's fluency, which small weights have
        long before."""
        count = bisect_left(self._free.numbers, len(expected))
        slots, slack = self._free.slots[:count], self._canvas.slack
        believed = raw[:count].log_softmax(-1)
        opinion = (expected[slots] + bias[:count]).log_softmax(-1)
        if slack is not None:
            read = expected.log_softmax(-1)
            for hole, following in self._ends:
                own = slice(hole.start, min(hole.stop, count))
                # A causal reading knows no slack. That a hole ends means that what follows comes.
                if following is None:
                    opinion[own, slack] = believed[own, slack]
                else:
                    opinion[own, slack] = read[slots[own], following]
        return torch.cat((believed + self._share * opinion, raw[count:]))

    def _known(self, noisy: list[int]) -> list[int]:
        first = self._free.numbers[noisy[0]] if noisy else len(self._ids) - 1
        return self._ids[:first]

    def _behind(self, hole: slice) -> int | None:
        """The clamped token behind a hole, if the model may say it."""
        canvas, stop = self._canvas, hole.stop
        if stop == len(self._ids) or bool(canvas.free[stop]):
            return None
        return None if bool(canvas.banned[self._ids[stop]].isneginf()) else self._ids[stop]


def _bias(canvas: Canvas, free: _Free) -> Tensor:
    """What is added to the logits [n, V] of the free slots: 0, or -inf where a token is banned."""
    bias = canvas.banned.expand(len(free.slots), -1)
    for slot, allowed in canvas.first.items():
        bias = bias.clone()
        row = bias[free.numbers.index(slot)].fill_(float("-inf"))
        row[allowed] = 0.0
    if canvas.slack is not None and canvas.fixed:
        bias = bias.clone()
        for hole in canvas.fixed:
            bias[free.local(hole), canvas.slack] = float("-inf")
    return bias
