"""The canvas: a row of token slots, some clamped, some free."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(slots=True)
class Canvas:
    """What is denoised. Only the loop (engine.diffusion.loop) changes it, and
    only at free slots.

    ids: int64 [T]. free: bool [T]; the others are clamped. holes: each hole's slots, in order;
    together they are the free slots. held: bool [T], free slots whose token is a draft's that has
    survived so far. strength: float32 [T], how likely a draft's token is noised at the start.
    banned: float32 [V], -inf for what no free slot may hold.
    first: for a slot, the only tokens that it may hold (a word that was typed in part).
    fixed: holes of fixed length, whose slots may not hold slack.
    """

    ids: Tensor
    free: Tensor
    holes: list[slice]
    held: Tensor
    strength: Tensor
    banned: Tensor
    slack: int | None = None
    first: dict[int, Tensor] = field(default_factory=dict[int, Tensor])
    fixed: list[slice] = field(default_factory=list[slice])
