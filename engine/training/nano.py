"""The shape of nano and how a trained nano becomes a checkpoint that transformers loads too."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from engine.backbones.config import ModelConfig, parse_config
from engine.backbones.diffusion_gemma import Attention, DiffusionGemma, Layer
from engine.weights.loader import checkpoint_files, own_name, to_reference_state

BOS, EOS, PAD, SLACK = 2, 1, 0, 3

SMALLEST_VISION: dict[str, Any] = {
    "model_type": "gemma4_vision",
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "position_embedding_size": 16,
}
"""transformers always builds a vision tower; this is the smallest that it accepts."""


def text_only(text: dict[str, Any], canvas_length: int) -> dict[str, Any]:
    """The config.json of a DiffusionGemma that reads no images. text: its `text_config`."""
    pad = text["pad_token_id"]
    return {
        "architectures": ["DiffusionGemmaForBlockDiffusion"],
        "model_type": "diffusion_gemma",
        "dtype": "bfloat16",
        "canvas_length": canvas_length,
        "text_config": {"model_type": "diffusion_gemma_text", **text},
        "vision_config": dict(SMALLEST_VISION),
        "boi_token_id": pad,
        "eoi_token_id": pad,
        "image_token_id": pad,
        "tie_word_embeddings": True,
    }


NANO = text_only(
    {
        "vocab_size": 4096,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2,
        "sliding_window": 256,
        "per_layer_config": {
            "2": {"head_dim": 64, "num_key_value_heads": 2},
            "5": {"head_dim": 64, "num_key_value_heads": 2},
        },
        "rope_parameters": {
            "full_attention": {
                "partial_rotary_factor": 0.25,
                "rope_theta": 1e6,
                "rope_type": "proportional",
            },
            "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"},
        },
        "num_experts": 4,
        "top_k_experts": 2,
        "moe_intermediate_size": 128,
        "max_position_embeddings": 4096,
        "final_logit_softcapping": 30.0,
        "tie_word_embeddings": True,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "pad_token_id": PAD,
    },
    canvas_length=256,
)


@torch.no_grad()
def new_model(config: ModelConfig, seed: int) -> DiffusionGemma:
    """A model with fresh float32 weights.

    Branches are normed after they are computed, so the size of a matrix hardly matters; what does
    is how loud each branch speaks (the weight of its last norm) and how peaked attention is at the
    start (scaling is 1, so the norms of queries and keys carry the usual D ** -0.5 between them).
    """
    generator = torch.Generator().manual_seed(seed)
    model = DiffusionGemma(config)
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2:
            fan_in = config.hidden_size if "embed" in name else parameter.shape[-1]
            nn.init.normal_(parameter, std=fan_in**-0.5, generator=generator)
    loudness = (2 * len(config.layers)) ** -0.5
    for module in model.modules():
        if isinstance(module, Attention):
            for norm in (module.q_norm, module.k_norm):
                _weight(norm).fill_(module.head_dim**-0.25)
        if isinstance(module, Layer):
            _weight(module.post_attention_layernorm).fill_(loudness)
            _weight(module.post_feedforward_layernorm).fill_(loudness)
    return model


def _weight(module: nn.Module) -> Tensor:
    return module.get_parameter("weight")


def write_like(base: Path, changed: Callable[[str, Tensor], Tensor], out: Path) -> None:
    """Writes the checkpoint `base` with what `changed` makes of each weight and its own name.

    All else, such as a vision tower or a chat template, is as it was. Shard by shard, so that a
    large checkpoint need not fit into memory a second time.
    """
    for file in sorted(base.iterdir()):
        if file.suffix in (".json", ".jinja"):
            shutil.copyfile(file, out / file.name)
    for shard in checkpoint_files(base):
        tensors = load_file(shard)
        for name, tensor in tensors.items():
            own = own_name(name)
            if own is not None:
                tensors[name] = changed(own, tensor).to(tensor.dtype)
        save_file(tensors, out / shard.name, {"format": "pt"})


def write_new(weights: dict[str, Tensor], config: dict[str, Any], out: Path) -> None:
    """Writes config.json and bfloat16 weights by their own names into a folder.

    It goes through transformers' own class, so that what is written is what that class reads.
    """
    from transformers import DiffusionGemmaConfig, DiffusionGemmaForBlockDiffusion
    from transformers.utils import logging

    logging.disable_progress_bar()  # a run draws its own
    own = DiffusionGemma(parse_config(config))
    own.load_state_dict(weights, strict=False)
    reference = DiffusionGemmaForBlockDiffusion(DiffusionGemmaConfig(**config))
    result = reference.load_state_dict(to_reference_state(own), strict=False)
    if result.unexpected_keys:
        raise ValueError(f"transformers does not know {result.unexpected_keys[:3]}")
    reference.tie_weights()
    reference.bfloat16().save_pretrained(out)
