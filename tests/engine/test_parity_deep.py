"""Our forward pass against transformers', as deep as the real model: five sliding layers to a full
one, twice (where layer numbers get a second digit) and five times (all of the published 30).

Each checkpoint goes through `save_pretrained` and `load_model`, in float32 and in bfloat16. Of
bfloat16 the two can't agree to the last bit: they add in other orders, and where two experts are
nearly equal a router chooses another. So each is held against the reference in float32.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.attention.sdpa import read, read_masked
from engine.backbones.base import Attend
from engine.backbones.diffusion_gemma import DiffusionGemma
from engine.weights.loader import load_model
from tests.engine.tiny import reference_model, tiny_config

CPU = torch.device("cpu")
PREFIX, CANVAS, WINDOW = 41, 16, 24

SPREAD = 0.3
TOLERANCE = 1e-4
"""As in test_parity.py; measured: 5e-6 with 12 layers, 2e-5 with 30."""


def deep_config(layers: int, **text: Any) -> dict[str, Any]:
    """The published pattern in small: one layer in six full, with fewer and larger heads."""
    return tiny_config(
        num_hidden_layers=layers,
        layer_types=(["sliding_attention"] * 5 + ["full_attention"]) * (layers // 6),
        global_head_dim=32,
        num_global_key_value_heads=1,
        **{"num_experts": 8, "top_k_experts": 2, "sliding_window": WINDOW, **text},
    )


def logits_of(model: DiffusionGemma, prefix: Tensor, canvas: Tensor, soft: Tensor) -> Tensor:
    """Logits [T, V] of a canvas behind a prefix, with attention written out plainly."""
    kept: list[tuple[Tensor, Tensor]] = []
    at = torch.arange(len(prefix))
    causal = at.unsqueeze(1) >= at
    near = causal & (at > at.unsqueeze(1) - WINDOW)
    sliding = [layer.sliding for layer in model.config.layers]

    def encode(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        kept.append((k, v))
        return read_masked(q, k, v, near if sliding[layer] else causal)

    def decode(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        low = max(0, len(prefix) - WINDOW + 1) if sliding[layer] else 0
        keys, values = kept[layer]
        return read(q, torch.cat((keys[:, low:], k), 1), torch.cat((values[:, low:], v), 1))

    readers: tuple[Attend, Attend] = (encode, decode)
    model.encode(prefix.unsqueeze(0), at, readers[0])
    positions = len(prefix) + torch.arange(len(canvas))
    hidden = model.decode(canvas.unsqueeze(0), positions, readers[1], soft.unsqueeze(0))
    return model.logits(hidden)[0]


def both(
    config: dict[str, Any], dtype: torch.dtype, folder: Path, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of ours and of the reference as `dtype`, and of the reference in float32, all of the
    same checkpoint, which is written as `dtype`."""
    from transformers import DiffusionGemmaForBlockDiffusion

    reference_model(config, seed, SPREAD).to(dtype).save_pretrained(folder)
    model = load_model(folder, CPU, dtype)
    vocab_size = model.config.vocab_size
    prefix = torch.randint(0, vocab_size, (PREFIX,))
    canvas = torch.randint(0, vocab_size, (CANVAS,))
    believed = torch.randn(CANVAS, vocab_size).to(dtype) * 3

    def theirs(as_dtype: torch.dtype) -> Tensor:
        reference = DiffusionGemmaForBlockDiffusion.from_pretrained(folder, dtype=as_dtype).eval()
        return reference(
            input_ids=prefix[None],
            decoder_input_ids=canvas[None],
            self_conditioning_logits=believed[None].to(as_dtype),
        ).logits[0]

    soft = model.soft_embed(believed.softmax(-1, dtype=torch.float32))
    ours = logits_of(model, prefix, canvas, soft)
    return ours, theirs(dtype).float(), theirs(torch.float32)


@torch.inference_mode()
@pytest.mark.parametrize("layers", [12, 30])
def test_deep_models_are_those_of_the_reference(layers: int, tmp_path: Path) -> None:
    ours, theirs, _ = both(deep_config(layers), torch.float32, tmp_path, seed=layers)
    written = json.loads((tmp_path / "config.json").read_text())
    assert "05" in written["text_config"]["per_layer_config"], "the spelling that this is about"
    assert float((ours - theirs).abs().max()) < TOLERANCE
    assert float(theirs.std()) > 1.0


@torch.inference_mode()
@pytest.mark.parametrize(("layers", "stated"), [(12, 0.08), (30, 0.2)])
def test_in_bfloat16_ours_is_as_near_to_float32_as_the_reference(
    layers: int, stated: float, tmp_path: Path
) -> None:
    """stated: the most that bfloat16 may move logits, as a share of their standard deviation.

    All experts are chosen: with random weights half of a router's choices hang on the last bits,
    and what another expert says hides what is to be measured.
    """
    config = deep_config(layers, num_experts=6, top_k_experts=6)
    ours, theirs, exact = both(config, torch.bfloat16, tmp_path, seed=layers)

    def error(logits: Tensor) -> float:
        return float((logits - exact).pow(2).mean().sqrt() / exact.std())

    assert error(ours) < stated
    assert error(ours) < 1.5 * error(theirs)
