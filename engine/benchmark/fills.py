"""Fills by the engine's own loop, on random weights: a pass with all that surrounds it."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from engine.attention.batch import Batch
from engine.attention.prefix_cache import PrefixCache
from engine.backbones.base import Backbone
from engine.diffusion.denoiser import CanvasDenoiser, WindowDenoiser
from engine.diffusion.loop import Pass, Schedule, denoise
from engine.diffusion.process import Absorbing, Uniform
from engine.diffusion.rng import Draws
from engine.profile import Sampling
from engine.text.canvas import Canvas

CHUNK = 512
"""Tokens of a prefix that are read at a time, as in a profile."""

SUFFIX = 48
"""Clamped slots behind the hole, as in a profile."""


def read_prefix(model: Backbone, tokens: int, seed: int = 0) -> PrefixCache:
    """The cache of a prefix of random tokens."""
    cache = PrefixCache(model)
    draw = torch.Generator().manual_seed(seed)
    ids: list[int] = torch.randint(1, model.config.vocab_size, (tokens,), generator=draw).tolist()
    for start in range(0, tokens, CHUNK):
        cache.extend(ids[start : start + CHUNK])
    return cache


def canvas(model: Backbone, free: int, slack: int | None, suffix: int = SUFFIX) -> Canvas:
    """A hole of so many slots with text behind it."""
    vocab, device = model.config.vocab_size, model.device
    ids = torch.randint(1, vocab, (free + suffix,), device=device)
    is_free = torch.zeros(len(ids), dtype=torch.bool, device=device)
    is_free[:free] = True
    held, strength = torch.zeros_like(is_free), torch.ones(len(ids), device=device)
    banned = torch.zeros(vocab, device=device)
    return Canvas(ids, is_free, [slice(0, free)], held, strength, banned, slack)


def fill(
    model: Backbone, batch: Batch, cache: PrefixCache, free: int, passes: int
) -> Iterator[Pass | None]:
    """A fill of exactly so many passes: it never settles."""
    # Never sure enough, and no pass is like the one before.
    sampling = Sampling(max_steps=passes, confidence=0.0)
    bound = CanvasDenoiser(cache, batch, None, len(cache.ids))
    draws = Draws(0, model.device)
    process = Uniform(model.config.vocab_size)
    return denoise(bound, process, canvas(model, free, 1), Schedule(sampling, passes), draws)


def fill_window(
    model: Backbone, batch: Batch, front: int, free: int, passes: int
) -> Iterator[Pass | None]:
    """The same by a model that reads all of a window anew in each pass, as Dream: `front` tokens
    before the hole, and what is decided stays."""
    mask = model.config.vocab_size - 1
    bound = WindowDenoiser(model, batch, range(1, front + 1), None, shifted=True)
    sampling = Sampling(max_steps=passes, entropy_bound=0.0, confidence=0.0, final=True)
    schedule = Schedule(sampling, passes)
    draws = Draws(0, model.device)
    return denoise(bound, Absorbing(mask, True), canvas(model, free, None), schedule, draws)


def together(fills: list[Iterator[Pass | None]]) -> int:
    """Runs fills that share their passes; returns how many steps all of them took."""
    steps, going = 0, list(fills)
    while going:
        going = [one for one in going if next(one, StopIteration) is not StopIteration]
        steps += 1
    return steps
