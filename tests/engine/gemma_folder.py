"""A small random DiffusionGemma in the layout of google/diffusiongemma-26B-A4B-it: the same files,
1,047 tensors by their names in 11 shards, precision, configs, vocabulary and ids of special tokens,
30 layers of which every sixth is full, 128 experts of which 8 are chosen, heads of 256 and 512.
Only the widths are not.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import Tensor, bfloat16, no_grad

from engine.training.nano import SMALLEST_VISION
from tests.engine.tiny import MERGES, reference_model

VOCAB = 262_144
TENSORS, SHARDS = 1_047, 11
TURN, TURN_END, CHANNEL, CHANNEL_END, NEWLINE = 105, 106, 100, 101, 107
ENDS = [1, 106, 50]

SPECIAL = {0: "<pad>", 1: "<eos>", 2: "<bos>", 3: "<unk>", 4: "<mask>", 46: "<|tool>"}
SPECIAL |= {47: "<tool|>", 48: "<|tool_call>", 49: "<tool_call|>", 50: "<|tool_response>"}
SPECIAL |= {51: "<tool_response|>", 52: '<|"|>', 98: "<|think|>", CHANNEL: "<|channel>"}
SPECIAL |= {CHANNEL_END: "<channel|>", TURN: "<|turn>", TURN_END: "<turn|>"}
SPECIAL |= {255_999: "<|image>", 256_000: "<|audio>", 258_880: "<|image|>"}
SPECIAL |= {258_881: "<|audio|>", 258_882: "<image|>", 258_883: "<audio|>", 258_884: "<|video|>"}
UNUSED = range(6, 46)
"""Tokens that were never trained. They are not flagged as special."""

TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
{{- '<|turn>' + ('model' if message.role == 'assistant' else message.role) + '\\n' -}}
{%- if message.content is string -%}{{- message.content | trim -}}
{%- else -%}{%- for part in message.content -%}{{- part.text | trim -}}{%- endfor -%}{%- endif -%}
{{- '<turn|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|turn>model\\n' -}}THOUGHT{%- endif -%}
"""
THOUGHT = "{%- if not enable_thinking -%}{{- '<|channel>thought\\n<channel|>' -}}{%- endif -%}"
REVISIONS = {"with the thought": THOUGHT, "without": ""}
"""What stands behind the model's turn in the template, in both revisions that the hub had."""


def config() -> dict[str, Any]:
    """config.json, as published but for the widths."""
    text: dict[str, Any] = {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 2,
        "dtype": "bfloat16",
        "eos_token_id": 1,
        "final_logit_softcapping": 30.0,
        "global_head_dim": 512,
        "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": 32,
        "initializer_range": 0.02,
        "intermediate_size": 48,
        "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 5,
        "max_position_embeddings": 262_144,
        "model_type": "diffusion_gemma_text",
        "moe_intermediate_size": 16,
        "num_attention_heads": 16,
        "num_experts": 128,
        "num_global_key_value_heads": 2,
        "num_hidden_layers": 30,
        "num_key_value_heads": 8,
        "pad_token_id": 0,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {
            "full_attention": {
                "partial_rotary_factor": 0.25,
                "rope_theta": 1_000_000.0,
                "rope_type": "proportional",
            },
            "sliding_attention": {"rope_theta": 10_000.0, "rope_type": "default"},
        },
        "sliding_window": 1024,
        "tie_word_embeddings": True,
        "top_k_experts": 8,
        "use_bidirectional_attention": "vision",
        "vocab_size": VOCAB,
    }
    return {
        "architectures": ["DiffusionGemmaForBlockDiffusion"],
        "boi_token_id": 255_999,
        "canvas_length": 256,
        "dtype": "bfloat16",
        "eoi_token_id": 258_882,
        "eos_token_id": ENDS,
        "image_token_id": 258_880,
        "initializer_range": 0.02,
        "model_type": "diffusion_gemma",
        "text_config": text,
        "tie_word_embeddings": True,
        "transformers_version": "5.8.0.dev0",
        "vision_config": {**SMALLEST_VISION, "num_hidden_layers": 27, "standardize": True},
        "vision_soft_tokens_per_image": 280,
    }


GENERATION: dict[str, Any] = {
    "bos_token_id": 2,
    "confidence_threshold": 0.005,
    "eos_token_id": ENDS,
    "max_denoising_steps": 48,
    "max_new_tokens": 256,
    "pad_token_id": 0,
    "sampler_config": {"_cls_name": "EntropyBoundSamplerConfig", "entropy_bound": 0.1},
    "stability_threshold": 1,
    "t_max": 0.8,
    "t_min": 0.4,
    "transformers_version": "5.8.0.dev0",
}


def write(folder: Path, seed: int = 0, spread: float = 0.3) -> Any:
    """Writes the checkpoint into `folder`, which it makes; returns transformers' model with the
    same weights, in bfloat16."""
    folder.mkdir(parents=True)
    _json(folder / "config.json", config())
    _json(folder / "generation_config.json", GENERATION)
    write_template(folder, REVISIONS["with the thought"])
    _write_tokenizer(folder)
    reference = reference_model(config(), seed, spread).to(bfloat16)
    with no_grad():
        for name, weight in reference.named_parameters():
            # Scores over heads this wide would be so sharp that rounding decides.
            weight.mul_(0.4 if "q_norm" in name else 1.0)
    tensors: dict[str, Tensor] = {
        name: tensor.clone()
        for name, tensor in reference.state_dict().items()
        if "language_model" not in name or name.endswith("layer_scalar")
        if name != "lm_head.weight"
    }
    assert len(tensors) == TENSORS
    names = list(tensors)
    files = [f"model-{i + 1:05}-of-{SHARDS:05}.safetensors" for i in range(SHARDS)]
    for i, file in enumerate(files):
        save_file({name: tensors[name] for name in names[i::SHARDS]}, folder / file)
    places = {name: files[i % SHARDS] for i, name in enumerate(names)}
    size = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(places.items()))}
    _json(folder / "model.safetensors.index.json", index)
    return reference


def write_template(folder: Path, thought: str) -> None:
    """chat_template.jinja in one of REVISIONS."""
    text = TEMPLATE.replace("THOUGHT", thought)
    (folder / "chat_template.jinja").write_text(text, encoding="utf-8")


def _write_tokenizer(folder: Path) -> None:
    """Byte-fallback BPE over text whose blanks are "▁", as the sentencepiece vocabularies are that
    tokenizer.json holds."""
    words: dict[str, int] = {name: i for i, name in SPECIAL.items()}
    words |= {f"<unused{i - 6}>": i for i in UNUSED} | {"[multimodal]": 5, "\n": NEWLINE}
    merges = [tuple(merge.replace("Ġ", "▁").split(" ")) for merge in MERGES]
    merges = [pair for pair in merges if all(part.isascii() or "▁" in part for part in pair)]
    places = iter(i for i in range(VOCAB) if i not in set(words.values()))
    for word in (f"<0x{byte:02X}>" for byte in range(256)):
        words[word] = next(places)
    for word in ["▁", *map(chr, range(33, 127)), *("".join(pair) for pair in merges)]:
        words.setdefault(word, next(places))
    words |= {f"w{i}": i for i in places}
    bpe = models.BPE(vocab=words, merges=merges, byte_fallback=True, unk_token="<unk>")
    tokenizer = Tokenizer(bpe)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(parts)
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in SPECIAL.values()])
    unused = [name for name, i in words.items() if i in UNUSED or i == 5]
    tokenizer.add_tokens([AddedToken(name, special=False, normalized=False) for name in unused])
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
    named |= {"unk_token": "<unk>", "mask_token": "<mask>", "eot_token": "<turn|>"}
    _json(folder / "tokenizer_config.json", {"tokenizer_class": "GemmaTokenizer", **named})
    _json(folder / "special_tokens_map.json", named)


def linked(source: Path, target: Path) -> Path:
    """A copy of the checkpoint whose files can be replaced: weights are links."""
    target.mkdir(parents=True)
    for file in source.iterdir():
        if file.suffix == ".safetensors":
            (target / file.name).hardlink_to(file)
        else:
            shutil.copyfile(file, target / file.name)
    return target


def _json(path: Path, data: object) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
