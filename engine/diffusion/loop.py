"""The one denoising loop. Model, process, sampler, canvas, schedule and draws are its arguments.

A canvas is a row of token slots; clamped slots hold what stands in the document and are never
touched: not by acceptance, not by noise, not by the stop rule. In every pass the model sees the
whole canvas, a guess is drawn for every free slot, the surest are kept, the rest go back to noise.

It is a generator of passes: a plain call drains it, a preview shows each, a deadline or a cancel
just stops asking.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from engine.diffusion.denoiser import Denoiser
from engine.diffusion.process import Process
from engine.diffusion.rng import Draws
from engine.diffusion.samplers import Beliefs, Decision, entropies, sample, sampler_of, temperature
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
    best: Tensor  # int64 [n]
    certainty: Tensor  # float32 [n]
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
    noisy = _start(canvas, process, draws, first_step)
    slots = canvas.free.nonzero().squeeze(-1)
    local = _local_holes(canvas)
    bias = _bias(canvas, slots)
    # A run that begins in the middle of the schedule is as cool as the schedule is there.
    t_max = sampling.t_min + (sampling.t_max - sampling.t_min) * schedule.strength
    soft: Tensor | None = None
    history: list[Tensor] = []
    for step in range(planned):
        counter = first_step + step + 1
        known = _known(canvas, slots, noisy) if sampling.causal_share else None
        read = model.ask(canvas.ids, soft, canvas.free, known)
        yield None
        raw, expected = read()
        raw = process.without_noise(raw + bias, canvas.ids[slots], noisy)
        if expected is not None:
            raw = _heard_causally(raw, expected, canvas, slots, sampling.causal_share, bias)
        heat = temperature(step, planned, t_max, sampling.t_min)
        probs = (raw / heat).softmax(-1)
        drawn = sample(probs, draws.uniform(counter, slots, Draws.TOKEN))
        held = canvas.held[slots]
        beliefs = Beliefs(raw, probs, drawn, canvas.ids[slots], noisy, held, local, canvas.slack)
        decision = sampler.decide(beliefs)
        entropy = float(entropies(probs).mean())
        stable = sampling.stability == 0 or (
            len(history) >= sampling.stability
            and all(torch.equal(decision.best, old) for old in history[-sampling.stability :])
        )
        done = None
        if stable and (entropy < sampling.confidence or bool(decision.confirmed.all())):
            done = "settled"
        elif step + 1 == planned:
            done = "steps"
        yield Pass(first_step + step + 1, decision.best, decision.certainty, entropy, done)
        if done:
            return
        history = [*history, decision.best][-max(1, sampling.stability) :]
        share = schedule.strength * (planned - step - 1) / planned
        noisy = _advance(canvas, slots, decision, beliefs, process, share, draws, counter)
        if process.conditions:
            believed = noisy if sampler.confirms else torch.ones_like(noisy)
            open_slots = canvas.free.clone()
            open_slots[slots] = believed
            soft = model.condition(canvas.ids, probs[believed], open_slots)


def _start(canvas: Canvas, process: Process, draws: Draws, step: int) -> Tensor:
    """Fills the free slots for the first pass: a draft's with the probability that its strength
    says, all others always. Returns which free slots [n] hold noise now."""
    slots = canvas.free.nonzero().squeeze(-1)
    kept = draws.uniform(step, slots, Draws.RENOISE) >= canvas.strength[slots]
    keep = canvas.held[slots] & kept
    fresh = process.noise(draws, step, slots)
    canvas.ids[slots] = torch.where(keep, canvas.ids[slots], fresh)
    canvas.held[slots] = keep
    return ~keep


def _advance(
    canvas: Canvas,
    slots: Tensor,
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
    # Of the draft, only the least likely tokens are given up: a share that falls to nothing.
    let_go = int(share * int(held.sum()))
    if let_go:
        # The head may have no row for what noise is; a draft's tokens are never noise.
        known = current.clamp(max=beliefs.probs.shape[1] - 1).unsqueeze(1)
        belief = beliefs.probs.gather(1, known).squeeze(1).masked_fill(~held, 2.0)
        held[belief.argsort()[:let_go]] = False
    fresh = process.noise(draws, counter, slots)
    canvas.ids[slots] = torch.where(accepted, decision.tokens, torch.where(held, current, fresh))
    canvas.held[slots] = held
    return ~(accepted | held)


def _known(canvas: Canvas, slots: Tensor, noisy: Tensor) -> int:
    """How many first slots of the canvas hold no noise; the last one leads to nothing in it."""
    return int(slots[noisy.nonzero()[0, 0]]) if bool(noisy.any()) else len(canvas.ids) - 1


def _heard_causally(
    raw: Tensor, expected: Tensor, canvas: Canvas, slots: Tensor, share: float, bias: Tensor
) -> Tensor:
    """The logits [n, V] with a second opinion, that of the same weights' causal reading, wherever
    all that is left of a slot is known: what it expects [known + 1, V].

    A product of experts: what is known to both sides of a hole, and a language model's fluency,
    which small weights have long before. share: the weight of the second one.
    """
    rows = (slots < len(expected)).nonzero().squeeze(-1)
    believed = raw[rows].log_softmax(-1)
    opinion = (expected[slots[rows]] + bias[rows]).log_softmax(-1)
    if canvas.slack is not None:
        read = expected.log_softmax(-1)
        for hole in canvas.holes:
            own = (slots[rows] >= hole.start) & (slots[rows] < hole.stop)
            # A causal reading knows no slack. That a hole ends means that what follows it comes.
            following = _behind(canvas, hole)
            if following is None or bool(canvas.banned[following].isneginf()):
                opinion[own, canvas.slack] = believed[own, canvas.slack]
            else:
                opinion[own, canvas.slack] = read[slots[rows][own], following]
    heard = raw.clone()
    heard[rows] = believed + share * opinion
    return heard


def _behind(canvas: Canvas, hole: slice) -> int | None:
    """The clamped token behind a hole."""
    stop = hole.stop
    return int(canvas.ids[stop]) if stop < len(canvas.ids) and not canvas.free[stop] else None


def _local_holes(canvas: Canvas) -> list[slice]:
    """The holes as slices of the free slots instead of the canvas."""
    starts = [0]
    for hole in canvas.holes:
        starts.append(starts[-1] + hole.stop - hole.start)
    return [slice(a, b) for a, b in pairwise(starts)]


def _bias(canvas: Canvas, slots: Tensor) -> Tensor:
    """What is added to the logits [n, V] of the free slots: 0, or -inf where a token is banned."""
    bias = canvas.banned.expand(len(slots), -1)
    for slot, allowed in canvas.first.items():
        bias = bias.clone()
        row = int((slots == slot).nonzero())
        only = torch.full_like(bias[row], float("-inf"))
        only[allowed] = 0.0
        bias[row] = only
    if canvas.slack is not None and canvas.fixed:
        full = torch.zeros_like(canvas.free)
        for hole in canvas.fixed:
            full[hole] = True
        bias = bias.clone()
        bias[full[slots], canvas.slack] = float("-inf")
    return bias
