"""transformers' own `generate` as a baseline, clamped as far as it lets itself be clamped.

The same checkpoint in `DiffusionGemmaForBlockDiffusion`, with a logits processor that leaves one
token at each slot of the suffix, and bans at the free slots what the engine bans. It gets the same
prefix, the same slots for the hole, the same suffix behind them, and the profile's schedule. What
it can't do, and what therefore is part of what is compared:

    clamped slots are certain: they are in the mean entropy that decides when it stops, so that it
        stops the earlier the more of them there are;
    slack is accepted like any other token, wherever it is sampled;
    what is accepted conditions the next pass as a belief, is not ruled out where it is noise, and
        pays anew in each pass; nothing is decided from the left or heard causally;
    a hole that fills up does not slide on, the prefix is encoded anew for every hole, and the draws
        come from torch's generator;
    a canvas has the length that the checkpoint's config says: here that is set to the engine's own
        canvas, which a caller of `generate` would have to know to do.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.engine import InfillEngine
from engine.evaluation.answers import Answer
from engine.profile import Profile
from engine.text.prompt import prefix_ids
from engine.text.tokenizer import TextTokenizer
from engine.types import SamplingParams


class Clamp:
    """A logits processor: one-hot where a slot is clamped, the engine's bans where it is free."""

    def __init__(self, canvas: Tensor, free: Tensor, bias: Tensor) -> None:
        """canvas: ids int64 [T]. free: bool [T]. bias: float32 [n, V], added at the free slots."""
        self.forced = torch.full((len(canvas), bias.shape[-1]), -torch.inf, device=bias.device)
        self.forced[torch.arange(len(canvas)), canvas] = 0.0
        self.free, self.bias = free, bias
        self.passes = 0

    def __call__(self, input_ids: Tensor, scores: Tensor, cur_step: Any = None) -> Tensor:
        """scores [1, T, V] of one pass, before the temperature."""
        self.passes += 1
        clamped = self.forced.unsqueeze(0).to(scores.dtype).clone()
        clamped[:, self.free] = scores[:, self.free] + self.bias.to(scores.dtype)
        return clamped


class Stock:
    """Answers with transformers' `generate`."""

    def __init__(self, model: Any, engine: InfillEngine, params: SamplingParams, seed: int) -> None:
        """model: transformers' class with the engine's weights, as `load` gives it."""
        self.model, self.seed = model, seed
        self.tokenizer: TextTokenizer = engine.tokenizer
        self.profile: Profile = engine.profile
        self.banned, self.bos = engine.banned, engine.model.config.bos_id
        self.sampling = engine.profile.sampling.override(params)

    @classmethod
    def load(cls, folder: Path, engine: InfillEngine, params: SamplingParams, seed: int) -> Stock:
        """Reads the checkpoint once more, in the engine's type and on its device."""
        # Imported here: it takes seconds, and no other baseline needs it.
        from transformers import DiffusionGemmaForBlockDiffusion
        from transformers.utils import logging

        logging.disable_progress_bar()
        model: Any = DiffusionGemmaForBlockDiffusion.from_pretrained(
            folder, dtype=engine.model.dtype, local_files_only=True
        )
        return cls(model.to(engine.model.device).eval(), engine, params, seed)

    @torch.inference_mode()
    def __call__(self, prefix: str, suffix: str, reference: str = "") -> Answer:
        began = time.monotonic()
        before, typed = self.tokenizer.heal(prefix)
        ids = prefix_ids(before, self.tokenizer, self.bos, self.profile.context)
        canvas, free = self.canvas(suffix)
        bias = self.banned.expand(int(free.sum()), -1).clone()
        if typed:
            bias[0] = -torch.inf
            bias[0, list(self.tokenizer.starting_with(typed))] = 0.0
        clamp = Clamp(canvas, free, bias)
        best = self.generate(ids, canvas, clamp)
        text = self._text(best[free].tolist(), len(typed))
        ms = (time.monotonic() - began) * 1000
        early = clamp.passes < self.sampling.max_steps
        return Answer(text, clamp.passes, clamp.passes + 1, ms, "settled" if early else "steps")

    def canvas(self, suffix: str) -> tuple[Tensor, Tensor]:
        """Ids [T] and which slots are free [T]: the hole, then the head of the suffix."""
        end = self.tokenizer.id_of(self.profile.end) if self.profile.end else None
        room = max(self.profile.suffix, self.profile.canvas - self.profile.hole)
        # More characters than so many tokens can have would only be cut off again.
        head = self.tokenizer.encode(suffix[: room * 16])
        if len(head) < room and end is not None:
            head += [end] * (room - len(head))
        head = head[:room]
        device = self.banned.device
        ids = torch.tensor([0] * self.profile.hole + head, device=device)
        free = torch.arange(len(ids), device=device) < self.profile.hole
        return ids, free

    def generate(self, ids: list[int], canvas: Tensor, clamp: Clamp) -> Tensor:
        """The canvas [T] that `generate` puts behind the prefix `ids`."""
        from transformers import LogitsProcessorList
        from transformers.models.diffusion_gemma.generation_diffusion_gemma import (
            DiffusionGemmaGenerationConfig,
            EntropyBoundSamplerConfig,
        )

        sampling = self.sampling
        config = DiffusionGemmaGenerationConfig(
            max_new_tokens=len(canvas),
            max_denoising_steps=sampling.max_steps,
            sampler_config=EntropyBoundSamplerConfig(sampling.entropy_bound),
            t_min=min(sampling.t_min, sampling.t_max - 1e-6),  # they may not be the same there
            t_max=sampling.t_max,
            stability_threshold=sampling.stability,
            confidence_threshold=max(sampling.confidence, 1e-9),
        )
        self.model.config.canvas_length = len(canvas)
        vocab_size = clamp.forced.shape[-1]
        devices = [canvas.device] if canvas.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(self.seed)
            noise = torch.randint(vocab_size, canvas.shape, device=canvas.device)
            made = self.model.generate(
                torch.tensor([ids], device=canvas.device),
                decoder_input_ids=torch.where(clamp.free, noise, canvas).unsqueeze(0),
                generation_config=config,
                logits_processor=LogitsProcessorList([clamp]),  # a new one: it is appended to
            )
        return made.sequences[0, len(ids) :]

    def _text(self, ids: list[int], skip: int) -> str:
        slack = self.tokenizer.id_of(self.profile.slack) if self.profile.slack else None
        return self.tokenizer.text_of(ids[: ids.index(slack)] if slack in ids else ids, skip)
