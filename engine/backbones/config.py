"""The shape of a DiffusionGemma, read from a checkpoint's config.json. No torch, no transformers.

Reading the file ourselves keeps a second of imports out of the start of the engine. Both spellings
are understood: `per_layer_config` (what transformers writes; from ten layers on its keys have
leading zeros) and `global_head_dim` with `num_global_key_value_heads` (what older ones hold).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import ModelError

Json = dict[str, Any]

_COUNTS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "num_experts",
    "top_k_experts",
    "moe_intermediate_size",
)


@dataclass(frozen=True, slots=True)
class LayerConfig:
    """One layer's attention. Full layers have no v_proj: their values come from k_proj.

    rotated: how many of the head_dim / 2 frequency pairs are rotated; the rest stay as they are.
    rope_dim: the denominator of the frequencies' exponents.
    """

    sliding: bool
    head_dim: int
    kv_heads: int
    rope_theta: float
    rotated: int
    rope_dim: int


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Everything that the forward pass has to know. Lengths are in tokens."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    heads: int
    layers: tuple[LayerConfig, ...]
    sliding_window: int
    experts: int
    experts_per_token: int
    expert_size: int
    canvas_length: int
    max_positions: int
    norm_eps: float
    softcap: float | None
    attention_bias: bool
    bos_id: int | None
    eos_ids: tuple[int, ...]
    pad_id: int | None


def load_config(folder: Path) -> ModelConfig:
    """Reads `folder`/config.json. Raises ModelError if it is missing, broken or another model's."""
    path = folder / "config.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"no model at {folder}: {path.name} can't be read") from error
    except ValueError as error:
        raise ModelError(f"{path} is not JSON; download the model again") from error
    return parse_config(data, str(path))


def parse_config(data: Any, origin: str = "config.json") -> ModelConfig:
    """The config of a DiffusionGemma (`origin` names it in errors). Raises ModelError."""
    kind = data.get("model_type") if isinstance(data, dict) else None
    if kind != "diffusion_gemma":
        raise ModelError(f"{origin} describes a {kind!r} model; diffusion_gemma is needed")
    try:
        return _parse(data, data["text_config"])
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ModelError(f"{origin} is not a usable diffusion_gemma config: {error!r}") from error


def _parse(data: Json, text: Json) -> ModelConfig:
    if data.get("quantization_config"):
        raise ValueError("quantized weights are not supported")
    if not data.get("tie_word_embeddings", True):
        raise ValueError("untied weights are not supported")
    if text.get("use_bidirectional_attention") == "all":
        raise ValueError("a bidirectional encoder is not supported")
    if text.get("hidden_activation", "gelu_pytorch_tanh") != "gelu_pytorch_tanh":
        raise ValueError(f"activation {text['hidden_activation']} is not supported")
    for name in _COUNTS:
        if not isinstance(text[name], int) or text[name] < 1:
            raise ValueError(f"{name} must be a whole number above 0, not {text[name]!r}")
    if text["top_k_experts"] > text["num_experts"]:
        raise ValueError("top_k_experts is larger than num_experts")
    eos = text.get("eos_token_id", 1)
    return ModelConfig(
        vocab_size=text["vocab_size"],
        hidden_size=text["hidden_size"],
        intermediate_size=text["intermediate_size"],
        heads=text["num_attention_heads"],
        layers=_layers(text),
        sliding_window=text.get("sliding_window", 512),
        experts=text["num_experts"],
        experts_per_token=text["top_k_experts"],
        expert_size=text["moe_intermediate_size"],
        canvas_length=data.get("canvas_length", 256),
        max_positions=text.get("max_position_embeddings", 131_072),
        norm_eps=text.get("rms_norm_eps", 1e-6),
        softcap=text.get("final_logit_softcapping", 30.0),
        attention_bias=text.get("attention_bias", False),
        bos_id=text.get("bos_token_id", 2),
        eos_ids=tuple(eos) if isinstance(eos, list) else (() if eos is None else (eos,)),
        pad_id=text.get("pad_token_id", 0),
    )


def _layers(text: Json) -> tuple[LayerConfig, ...]:
    count = text["num_hidden_layers"]
    kinds = list(
        text.get("layer_types")
        or ["full_attention" if (i + 1) % 6 == 0 else "sliding_attention" for i in range(count)]
    )
    if len(kinds) != count:
        raise ValueError(f"{len(kinds)} layer types for {count} layers")
    kinds[-1] = "full_attention"
    own = _own_sizes(text.get("per_layer_config") or {}, count)
    return tuple(_layer(text, index, kind, own.get(index, {})) for index, kind in enumerate(kinds))


def _own_sizes(raw: Json, count: int) -> dict[int, Json]:
    """What single layers have of their own, by their number, which is written as "5" or as "05"."""
    own = {int(key): dict(value) for key, value in raw.items()}
    if len(own) != len(raw) or not set(own) <= set(range(count)):
        raise ValueError(f"per_layer_config names {', '.join(raw)}, of {count} layers")
    for index, sizes in own.items():
        # A size that is not known here would be built wrongly, or run wrongly in silence.
        if unknown := sorted(set(sizes) - {"head_dim", "num_key_value_heads"}):
            raise ValueError(f"layer {index} has its own {unknown[0]}, which is not supported")
    return own


def _layer(text: Json, index: int, kind: str, own: Json) -> LayerConfig:
    sliding = kind == "sliding_attention"
    head_dim, kv_heads = text.get("head_dim", 256), text["num_key_value_heads"]
    if not sliding and "per_layer_config" not in text:
        head_dim = text.get("global_head_dim", 512)
        kv_heads = text.get("num_global_key_value_heads") or kv_heads
    head_dim = own.get("head_dim", head_dim)
    kv_heads = own.get("num_key_value_heads", kv_heads)
    default: Json = (
        {"rope_type": "default", "rope_theta": 10_000.0}
        if sliding
        else {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6}
    )
    rope: Json = (text.get("rope_parameters") or {}).get(kind, default)
    if rope["rope_type"] not in ("default", "proportional") or rope.get("factor", 1.0) != 1.0:
        raise ValueError(f"rope {rope} is not supported")
    if head_dim < 2 or head_dim % 2 or kv_heads < 1 or text["num_attention_heads"] % kv_heads:
        raise ValueError(f"layer {index} has {kv_heads} key heads of size {head_dim}")
    rotated = int(rope.get("partial_rotary_factor", 1.0) * head_dim // 2)
    if rope["rope_type"] == "default" and rotated != head_dim // 2:
        raise ValueError("partial rotation is supported with proportional rope only")
    return LayerConfig(sliding, head_dim, kv_heads, rope["rope_theta"], rotated, head_dim)
