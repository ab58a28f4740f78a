"""What a canvas looks like before and in the middle of a fill: where it is noise, and where wrong.

Shapes: C canvas tokens, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

ORDERED_SHARE = 0.75
"""Of the canvases in the middle of a fill, those that are settled from the left."""


def rank_in_hole(marked: Tensor, free: Tensor) -> Tensor:
    """How many slots of `marked` come before each slot in its hole; bool [.., C] -> int64 [.., C].

    A hole is a run of free slots; what this says of other slots means nothing.
    """
    before = marked.long().cumsum(-1) - marked.long()
    at_start = torch.where(begins(free), before, 0).cummax(-1).values
    return before - at_start


def begins(free: Tensor) -> Tensor:
    """Where holes begin; bool [.., C]."""
    return free & ~F.pad(free[..., :-1], (1, 0))


def hole_of(free: Tensor) -> Tensor:
    """The number of the hole that each slot is in, int64 [.., C]; of other slots, any."""
    return (begins(free).long().cumsum(-1) - 1).clamp(min=0)


def hits(free: Tensor, weight: Tensor, conditioned: Tensor, generator: torch.Generator) -> Tensor:
    """Which free slots are noised, bool [canvases, C]. `conditioned` is bool [canvases, 1].

    A fill begins with noise throughout and without a signal, so most of what is not conditioned is
    noised throughout. Of the rest, most is noised from some slot of each hole on, since a small
    model settles from the left, and some at random slots with one probability a canvas.
    """
    device = free.device
    free, weight = free.cpu(), weight.cpu()
    shape = conditioned.shape
    level = torch.rand(shape, generator=generator) * 0.999 + 0.001
    level = torch.where(~conditioned & (torch.rand(shape, generator=generator) < 0.7), 1.0, level)
    scattered = torch.rand(free.shape, generator=generator) < level
    # Text and the first slack behind it are what is decided one after the other.
    decided = free & (weight == 1)
    hole = hole_of(free)
    count = torch.zeros_like(hole).scatter_add(1, hole, decided.long()).gather(1, hole)
    share = torch.rand(free.shape, generator=generator).gather(1, hole)
    from_left = rank_in_hole(decided, free) >= (share * count).floor()
    ordered = conditioned & (torch.rand(shape, generator=generator) < ORDERED_SHARE)
    return (free & torch.where(ordered, from_left, scattered)).to(device)


def noise(clean: Tensor, hit: Tensor, vocab_size: int, generator: torch.Generator) -> Tensor:
    """Replaces the tokens at `hit` by ones drawn from the whole vocabulary."""
    random = torch.randint(0, vocab_size, clean.shape, generator=generator)
    return torch.where(hit, random.to(clean.device), clean)


def mistakes(
    noised: Tensor, accepted: Tensor, free: Tensor, believed: Tensor, generator: torch.Generator
) -> Tensor:
    """Replaces a few accepted tokens by what the earlier pass might have taken instead.

    So the model learns to doubt what was accepted: one canvas in two has mistakes, at a tenth of
    its accepted slots. believed: probabilities [free slots, V].
    """
    share = 0.1 * (torch.rand(noised.shape[0], 1, generator=generator) < 0.5)
    wrong = (torch.rand(noised.shape, generator=generator) < share).to(noised.device) & accepted
    seed = int(torch.randint(2**31, (), generator=generator))
    draw = torch.Generator(noised.device).manual_seed(seed)
    out = noised.clone()
    if bool(wrong.any()):
        out[wrong] = torch.multinomial(believed[wrong[free]], 1, generator=draw).squeeze(-1)
    return out
