"""The shape of a Llama, Qwen2 or Qwen3, read from a checkpoint's config.json. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.errors import ModelError

Json = dict[str, Any]

_COUNTS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
)


@dataclass(frozen=True, slots=True)
class DenseLayer:
    """What one layer keeps of a row."""

    kv_heads: int
    head_dim: int
    sliding: bool = False


@dataclass(frozen=True, slots=True)
class DenseConfig:
    """Everything that the forward pass has to know. Lengths are in tokens.

    tied: whether the head is the embedding.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    heads: int
    kv_heads: int
    head_dim: int
    layers: tuple[DenseLayer, ...]
    rope_theta: float
    norm_eps: float
    tied: bool
    max_positions: int
    canvas_length: int
    bos_id: int | None
    eos_ids: tuple[int, ...]


def parse_dense(data: Json, origin: str = "config.json") -> DenseConfig:
    """The config of a dense model (`origin` names it in errors). Raises ModelError."""
    try:
        return _parse(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        kind = data.get("model_type")
        raise ModelError(f"{origin} is not a usable {kind} config: {error!r}") from error


def _parse(data: Json) -> DenseConfig:
    if data.get("quantization_config"):
        raise ValueError("quantized weights are not supported")
    if data.get("hidden_act", "silu") != "silu":
        raise ValueError(f"activation {data['hidden_act']} is not supported")
    if data.get("use_sliding_window"):
        raise ValueError("sliding windows are not supported in dense models")
    if data.get("mlp_bias") or (data.get("attention_bias") and data["model_type"] == "llama"):
        raise ValueError("biases on o_proj and the MLP are not supported")
    for name in _COUNTS:
        if not isinstance(data[name], int) or data[name] < 1:
            raise ValueError(f"{name} must be a whole number above 0, not {data[name]!r}")
    rope: Json = data.get("rope_parameters") or data.get("rope_scaling") or {}
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        raise ValueError(f"rope {rope} is not supported")
    heads = data["num_attention_heads"]
    kv_heads = data.get("num_key_value_heads") or heads
    head_dim = data.get("head_dim") or data["hidden_size"] // heads
    if head_dim % 2 or heads % kv_heads:
        raise ValueError(f"{heads} heads over {kv_heads} key heads of size {head_dim}")
    eos = data.get("eos_token_id")
    return DenseConfig(
        vocab_size=data["vocab_size"],
        hidden_size=data["hidden_size"],
        intermediate_size=data["intermediate_size"],
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        layers=(DenseLayer(kv_heads, head_dim),) * data["num_hidden_layers"],
        rope_theta=float(data.get("rope_theta") or rope.get("rope_theta") or 10_000.0),
        norm_eps=data.get("rms_norm_eps", 1e-6),
        tied=data.get("tie_word_embeddings", False),
        max_positions=data.get("max_position_embeddings", 2048),
        canvas_length=data.get("canvas_length", 256),
        bos_id=data.get("bos_token_id"),
        eos_ids=tuple(eos) if isinstance(eos, list) else (() if eos is None else (eos,)),
    )
