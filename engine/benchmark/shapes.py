"""Models of the published shapes with random weights: time depends on shapes, not on what is in
them. (Zeros would be faster than any weights.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from engine.backbones.config import parse_config
from engine.backbones.dense import Dense
from engine.backbones.dense_config import parse_dense
from engine.backbones.diffusion_gemma import DiffusionGemma
from engine.backbones.quantized import Format
from engine.backbones.rounding import bits_of, bytes_in, put
from engine.weights.dense import bytes_in as dense_bytes_in
from engine.weights.dense import shapes as dense_shapes

SPREAD = 0.02

DIFFUSION_GEMMA: dict[str, Any] = {
    "vocab_size": 262_144,
    "hidden_size": 2816,
    "intermediate_size": 2112,
    "moe_intermediate_size": 704,
    "num_hidden_layers": 30,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "num_global_key_value_heads": 2,
    "head_dim": 256,
    "global_head_dim": 512,
    "num_experts": 128,
    "top_k_experts": 8,
    "sliding_window": 1024,
    "max_position_embeddings": 262_144,
}
"""google/diffusiongemma-26B-A4B-it."""

DREAM: dict[str, Any] = {
    "model_type": "qwen2",
    "vocab_size": 152_064,
    "hidden_size": 3584,
    "intermediate_size": 18_944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "max_position_embeddings": 2048,
    "rope_theta": 1_000_000.0,
    "tie_word_embeddings": False,
}
"""Dream-org/DreamOn-v0-7B and its relatives."""

SMALL = {
    "hidden_size": 256,
    "intermediate_size": 192,
    "moe_intermediate_size": 64,
    "num_experts": 16,
    "num_hidden_layers": 3,
    "vocab_size": 4096,
    "head_dim": 32,
    "global_head_dim": 64,
    "sliding_window": 128,
}
"""What differs in a rehearsal."""


def diffusion_gemma(
    device: torch.device, format: Format = "plain", small: bool = False
) -> DiffusionGemma:
    """A DiffusionGemma with weights of this format. small: of a size for a rehearsal on a CPU."""
    text = DIFFUSION_GEMMA | (SMALL if small else {})
    config = parse_config({"model_type": "diffusion_gemma", "text_config": text})
    with torch.device("meta"):
        model = DiffusionGemma(config)
    state: dict[str, Tensor] = {}
    for name, outline in model.state_dict().items():
        weight = _random(tuple(outline.shape), device)
        if (bits := bits_of(name, format)) is not None:
            put(model, name, weight, bits)
        else:
            state[name] = weight
    model.load_state_dict(state, assign=True)
    model.format = format
    return model.eval().requires_grad_(False)


def dream(device: torch.device, format: Format = "plain", small: bool = False) -> Dense:
    """A model of Dream's shape with weights of this format."""
    few = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 3}
    few |= {"vocab_size": 4096, "num_attention_heads": 8, "num_key_value_heads": 4}
    config = parse_dense(DREAM | (few if small else {}))
    return Dense(config, _Random(dense_shapes(config), device), None, format)


def weight_bytes(model: DiffusionGemma | Dense) -> int:
    """Bytes of the weights that a pass reads, each once: the floor of its time is these over what
    the device's memory gives. Of embeddings that are no head it reads next to nothing."""
    if isinstance(model, Dense):
        known = dense_shapes(model.config)
        if not model.config.tied:
            del known["model.embed_tokens.weight"]
        return dense_bytes_in(known, model.format, model.dtype.itemsize)
    with torch.device("meta"):
        outline = DiffusionGemma(model.config)
    shapes = {name: tuple(tensor.shape) for name, tensor in outline.state_dict().items()}
    return bytes_in(shapes, model.format, model.dtype.itemsize)


class _Random(Mapping[str, Tensor]):
    """Tensors of these shapes, made when they are asked for."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], device: torch.device) -> None:
        self._shapes, self._device = shapes, device

    def __getitem__(self, name: str) -> Tensor:
        return _random(self._shapes[name], self._device)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


def _random(shape: tuple[int, ...], device: torch.device) -> Tensor:
    made = torch.empty(shape, dtype=torch.bfloat16, device=device)
    # What scales stays near one, as it is in a model that was trained.
    return made.fill_(1.0) if len(shape) == 1 else made.normal_(0.0, SPREAD)
