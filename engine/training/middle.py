"""Canvases as they are in the middle of a fill: what is noise, and what conditions the next pass.

Shapes: R canvases, C canvas tokens, d hidden size, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.backbones.base import Attend
from engine.backbones.diffusion_gemma import DiffusionGemma
from engine.training.noise import hole_of, mistakes, noise, rank_in_hole
from engine.training.recipe import Objective

EVEN = 64
"""Sizes that vary from step to step are rounded up to a multiple of this."""


@dataclass(frozen=True, slots=True)
class Canvases:
    """What is given: clean tokens [R, C], free slots and their weights [R, C], positions [R, C],
    and the attention that reads the prefix of each."""

    clean: Tensor
    free: Tensor
    weight: Tensor
    positions: Tensor
    attend: Attend


@dataclass(frozen=True, slots=True)
class Middle:
    """Tokens [R, C], where they are noise [R, C], and what conditions the next pass [R, C, d]."""

    ids: Tensor
    hit: Tensor
    signal: Tensor


@torch.no_grad()
def after_a_pass(
    model: DiffusionGemma,
    given: Canvases,
    noised: Tensor,
    hit: Tensor,
    objective: Objective,
    generator: torch.Generator,
) -> Middle:
    """The clean text, noised at `hit`, behind a pass that saw the same canvas or all noise."""
    free, rows = given.free, len(given.clean)
    coin = torch.rand(rows, 1, generator=generator).to(noised.device) < 0.5
    blank = noise(given.clean, free, model.config.vocab_size, generator)
    hidden = model.decode(torch.where(coin, blank, noised), given.positions, given.attend)
    temperature = float(0.4 + 0.6 * torch.rand((), generator=generator))
    believed, count = _believed(model, hidden, free, temperature)
    ids = mistakes(noised, free & ~hit, free, believed[:count], generator)
    return Middle(ids, hit, _signal(model, ids, hit, free, hidden, believed, objective))


@torch.no_grad()
def after_own_passes(
    model: DiffusionGemma,
    given: Canvases,
    passes: int,
    objective: Objective,
    generator: torch.Generator,
) -> Middle:
    """What the model itself makes of a blank canvas in so many passes, settling from the left, or
    where it is surest if the objective says that nothing is settled from the left.

    What it accepted need not be the clean text: it learns from states that it comes to by itself.
    """
    free, size = given.free, model.config.vocab_size
    decided = free & (given.weight == 1)
    hole = hole_of(free)
    count = torch.zeros_like(hole).scatter_add(1, hole, decided.long()).gather(1, hole)
    share = torch.rand(free.shape, generator=generator).to(free.device).gather(1, hole)
    part = torch.rand(len(free), 1, generator=generator).to(free.device)
    part = part * free.sum(-1, keepdim=True)
    ids, signal, hit = noise(given.clean, free, size, generator), None, free
    for number in range(1, passes + 1):
        hidden = model.decode(ids, given.positions, given.attend, signal)
        believed, taken = _believed(model, hidden, free, 1.0)
        ids = ids.clone()
        sure, ids[free] = believed[:taken].max(-1)
        if objective.from_left:
            reach = (share * count * number / passes).ceil()
            hit = free & (rank_in_hole(decided, free) >= reach)
        else:
            hit = free & (_rank_by(sure, free) >= (part * number / passes).ceil())
        ids = noise(ids, hit, size, generator)
        signal = _signal(model, ids, hit, free, hidden, believed, objective)
    assert signal is not None
    return Middle(ids, hit, signal)


def _rank_by(sure: Tensor, free: Tensor) -> Tensor:
    """How many free slots of its canvas are surer than each, [canvases, C]; sure: [free slots]."""
    certainty = torch.full(free.shape, -1.0, device=free.device)
    certainty[free] = sure
    return certainty.argsort(-1, descending=True).argsort(-1)


def evened(chosen: Tensor) -> tuple[Tensor, int]:
    """The numbers of the rows that are chosen (bool [..]), padded; and their number.

    Their number is another one in each step, and a CPU's matrix library compiles and keeps a
    kernel for each that it meets: time, and gigabytes in some hours. So there are few of them.
    """
    rows = chosen.flatten().nonzero().squeeze(-1)
    count = len(rows)
    missing = -count % EVEN if count else EVEN
    return torch.cat((rows, rows.new_zeros(missing))), count


def _believed(
    model: DiffusionGemma, hidden: Tensor, chosen: Tensor, temperature: float
) -> tuple[Tensor, int]:
    """Probabilities at the chosen slots, [n and more, V], and n."""
    rows, count = evened(chosen)
    return (model.logits(hidden.flatten(0, 1)[rows]) / temperature).softmax(-1), count


def _signal(
    model: DiffusionGemma,
    ids: Tensor,
    hit: Tensor,
    free: Tensor,
    hidden: Tensor,
    believed: Tensor,
    objective: Objective,
) -> Tensor:
    """Noise conditions as what was believed of it, what was accepted as itself; clamps as the
    objective says: as themselves, as what was believed of them, or not at all."""
    signal = model.embed(ids)
    signal[hit] = model.soft_embed(believed)[: int(free.sum())][hit[free]]
    if objective.clamps == "zero":
        signal[~free] = 0
    elif objective.clamps == "own":
        own, count = _believed(model, hidden, ~free, 1.0)
        signal[~free] = model.soft_embed(own)[:count]
    return signal
