"""Tiny GGUF files with random weights, as llama.cpp's converter writes them, and what they mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Quant
from tokenizers import pre_tokenizers
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
PADDING = ("[PAD1]", "[PAD2]")
MERGES = ("1 2", "Ġ x", "d e", "de f")
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"

NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
CONFIGS = {"llama": LlamaConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}


def tokens() -> list[str]:
    """Special tokens, all bytes, what the merges make, and padding up to a round number."""
    merged = [merge.replace(" ", "") for merge in MERGES]
    return [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), *merged, *PADDING]


def _token_types() -> list[int]:
    kinds = dict.fromkeys(SPECIAL, gguf.TokenType.CONTROL)
    kinds |= dict.fromkeys(PADDING, gguf.TokenType.UNUSED)
    return [kinds.get(token, gguf.TokenType.NORMAL) for token in tokens()]


def random_model(architecture: str, *, tied: bool) -> PreTrainedModel:
    """The reference: transformers' model with random weights, norms and biases included."""
    config = CONFIGS[architecture](
        vocab_size=len(tokens()),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        rope_theta=50_000.0,
        rms_norm_eps=1e-5,
        max_position_embeddings=128,
        tie_word_embeddings=tied,
    )
    model = AutoModelForCausalLM.from_config(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator) * 0.2
            parameter.copy_(noise + (parameter.ndim == 1))
    return model.eval()


def write(
    path: Path,
    model: PreTrainedModel,
    quant: Quant = Quant.F32,
    words: str = "smollm",
    head: Quant | None = None,
    **more: Any,
) -> None:
    """Writes the model, and has it round its matrices as the file does. head: how that one is
    rounded, if otherwise than the others. more: further keys."""
    config = model.config
    writer = gguf.GGUFWriter(path, config.model_type)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_rope_freq_base(50_000.0)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(words)
    writer.add_token_list(tokens())
    writer.add_token_types(_token_types())
    writer.add_token_merges(list(MERGES))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)
    for key, value in more.items():
        writer.add_key_value(key, value, _type(value))
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        kind = quant if tensor.ndim == 2 else Quant.F32
        if head is not None and name == "lm_head.weight":
            kind = head
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        turned = heads.get(name.split(".")[-2]) if config.model_type == "llama" else None
        rows = gguf.quantize(_turned(tensor, turned).numpy(), kind)
        writer.add_tensor(_their_name(name), rows, raw_dtype=kind)
        # Rows are quantized each by itself, so that their order does not matter.
        rounded = gguf.dequantize(gguf.quantize(tensor.numpy(), kind), kind)
        tensor.copy_(torch.from_numpy(rounded.copy()).bfloat16())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _turned(tensor: Tensor, heads: int | None) -> Tensor:
    """The rows of each head as llama.cpp has them: the halves interleaved."""
    if heads is None:
        return tensor
    rows = tensor.reshape(heads, 2, -1, tensor.shape[1])
    return rows.swapaxes(1, 2).reshape(tensor.shape).contiguous()


def _their_name(name: str) -> str:
    stem, _, end = name.rpartition(".")
    if stem.startswith("model.layers."):
        _, _, layer, rest = stem.split(".", 3)
        return f"blk.{layer}.{NAMES[rest]}.{end}"
    return f"{NAMES[stem]}.{end}"


def _type(value: Any) -> gguf.GGUFValueType:
    kinds = gguf.GGUFValueType
    return kinds.STRING if isinstance(value, str) else kinds.UINT32


def logits(model: PreTrainedModel) -> np.ndarray:
    """(positions, vocabulary) for a fixed text."""
    ids = torch.arange(40)[None] * 5 % len(tokens())
    with torch.no_grad():
        return model(input_ids=ids).logits[0].float().numpy()
