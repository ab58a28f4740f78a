"""The same by transformers' own `generate`, to compare with: weights of its own, as random."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch

from engine.benchmark.clock import wait
from engine.benchmark.shapes import DIFFUSION_GEMMA, SMALL
from engine.training.nano import SMALLEST_VISION


def stock_model(device: torch.device, small: bool) -> Any:
    """transformers' DiffusionGemma in bfloat16."""
    from transformers import DiffusionGemmaConfig, DiffusionGemmaForBlockDiffusion

    text = DIFFUSION_GEMMA | (SMALL if small else {})
    config = DiffusionGemmaConfig(
        text_config=text, vision_config=dict(SMALLEST_VISION), canvas_length=256
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            return DiffusionGemmaForBlockDiffusion(config).eval()
    finally:
        torch.set_default_dtype(before)


def generate(
    model: Any, behind: int, passes: int, compiled: bool, repeats: int = 2
) -> Iterator[dict[str, Any]]:
    """One canvas of 256 behind a prompt: the first time, with what has to be made ready, and then
    the median of some."""
    device = model.device
    prompt = torch.randint(3, model.config.text_config.vocab_size, (1, behind), device=device)
    kind = {"cache_implementation": "static"} if compiled else {"disable_compile": True}
    taken: list[float] = []
    for _ in range(1 + repeats):
        wait(device)
        began = time.perf_counter()
        model.generate(
            prompt,
            max_new_tokens=256,
            max_denoising_steps=passes,
            confidence_threshold=1e-9,
            **kind,
        )
        wait(device)
        taken.append(1000 * (time.perf_counter() - began))
    yield {
        "what": "transformers' generate" + (", compiled" if compiled else ""),
        "slots": 256,
        "passes": passes,
        "first": round(taken[0], 1),
        "ms": round(sorted(taken[1:])[len(taken[1:]) // 2], 1),
    }
