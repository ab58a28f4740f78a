"""Small random checkpoints of Dream's family, in the layouts that are published: the same files,
tensor names, shards, precisions, configs and ids of special tokens. Only the sizes are not.
"""

from __future__ import annotations

import json
import os
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import pre_tokenizers
from torch import Tensor

from engine.text.byte_level import read_byte_level
from tests.engine.tiny import MERGES

KINDS = ("dreamon", "dream-coder", "d3llm-dream-coder", "open-dcoder")
VOCAB = 151_643
"""Tokens of the vocabulary; special ones come behind them."""

END, MASK, EXPAND = 151_643, 151_666, 151_667
OPEN_MASK = 151_665

_QWEN = ["endoftext", "im_start", "im_end", "object_ref_start", "object_ref_end", "box_start"]
_QWEN += ["box_end", "quad_start", "quad_end", "vision_start", "vision_end", "vision_pad"]
_QWEN += ["image_pad", "video_pad"]
_QWEN_TEXT = ["<tool_call>", "</tool_call>"]
_QWEN_FIM = ["fim_prefix", "fim_middle", "fim_suffix", "fim_pad", "repo_name", "file_sep"]


def added(kind: str) -> dict[str, tuple[int, bool]]:
    """Tokens behind the vocabulary: their ids, and whether they are special."""
    names = [(f"<|{name}|>", True) for name in _QWEN]
    names += [(name, False) for name in _QWEN_TEXT]
    names += [(f"<|{name}|>", False) for name in _QWEN_FIM]
    if kind == "open-dcoder":
        names.append(("<M>", True))
    else:
        names += [("<|beginoftext|>", True), ("<|mask|>", True)]
    if kind == "dreamon":
        names.append(("<|expand|>", True))
    return {name: (VOCAB + i, special) for i, (name, special) in enumerate(names)}


def config(kind: str) -> dict[str, Any]:
    """A config.json, as published but for the sizes."""
    shape: dict[str, Any] = {
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "hidden_size": 32,
        "initializer_range": 0.02,
        "intermediate_size": 48,
        "max_window_layers": 3,
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "torch_dtype": "bfloat16",
        "use_sliding_window": False,
    }
    if kind == "open-dcoder":
        return shape | {
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "qwen2",
            "bos_token_id": 151643,
            "eos_token_id": 151645,
            "max_position_embeddings": 32768,
            "sliding_window": 32768,
            "tie_word_embeddings": True,
            "use_cache": True,
            "vocab_size": 151936,
        }
    return shape | {
        "architectures": ["DreamModel"],
        "auto_map": {
            "AutoConfig": "configuration_dream.DreamConfig",
            "AutoModel": "modeling_dream.DreamModel",
        },
        "model_type": "Dream",
        "bos_token_id": 151665,
        "eos_token_id": END,
        "pad_token_id": END,
        "mask_token_id": MASK,
        "max_position_embeddings": 32768,
        "rope_scaling": None,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "use_cache": False,
        "use_mrope": False,
        "vocab_size": 152064,
    }


def state(kind: str, seed: int = 0) -> dict[str, Tensor]:
    """Random tensors under the published names."""
    shape, draw = config(kind), torch.Generator().manual_seed(seed)
    d, inner = shape["hidden_size"], shape["intermediate_size"]
    kv = d // shape["num_attention_heads"] * shape["num_key_value_heads"]

    def weight(*size: int, spread: float = 0.4) -> Tensor:
        return (torch.randn(*size, generator=draw) * spread).to(torch.bfloat16)

    found = {"model.embed_tokens.weight": weight(shape["vocab_size"], d, spread=1.0)}
    for i in range(shape["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        found[f"{layer}input_layernorm.weight"] = 1 + weight(d, spread=0.1)
        found[f"{layer}post_attention_layernorm.weight"] = 1 + weight(d, spread=0.1)
        for name, size in (("q", d), ("k", kv), ("v", kv)):
            found[f"{layer}self_attn.{name}_proj.weight"] = weight(size, d)
            found[f"{layer}self_attn.{name}_proj.bias"] = weight(size)
        found[f"{layer}self_attn.o_proj.weight"] = weight(d, d)
        found[f"{layer}mlp.gate_proj.weight"] = weight(inner, d)
        found[f"{layer}mlp.up_proj.weight"] = weight(inner, d)
        found[f"{layer}mlp.down_proj.weight"] = weight(d, inner)
    found["model.norm.weight"] = 1 + weight(d, spread=0.1)
    if not shape["tie_word_embeddings"]:
        found["lm_head.weight"] = weight(shape["vocab_size"], d)
    return found


def write(folder: Path, kind: str, seed: int = 0) -> Path:
    """Writes a checkpoint of a kind of KINDS into `folder`, which it makes; returns it."""
    folder.mkdir(parents=True)
    _json(folder / "config.json", config(kind))
    end, start = END, 151665
    generation: dict[str, Any] = {"_from_model_config": True, "alg": "origin", "alg_temp": None}
    generation |= {"bos_token_id": start, "eos_token_id": end, "pad_token_id": end, "eps": 0.001}
    generation |= {"mask_token_id": None, "output_history": False, "steps": 512}
    generation |= {"temperature": 0.0, "top_k": None, "top_p": None}
    if kind == "open-dcoder":
        generation = {"bos_token_id": end, "eos_token_id": [151645, end], "pad_token_id": end}
    _json(folder / "generation_config.json", generation | {"transformers_version": "4.46.2"})
    _write_tokenizer(folder, kind)
    tensors = state(kind, seed)
    if kind == "open-dcoder":
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return folder
    names = list(tensors)
    shards = {f"model-{i + 1:05}-of-00004.safetensors": names[i::4] for i in range(4)}
    for file, inside in shards.items():
        save_file({name: tensors[name] for name in inside}, folder / file, {"format": "pt"})
    places = {name: file for file, inside in shards.items() for name in inside}
    size = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(places.items()))}
    _json(folder / "model.safetensors.index.json", index)
    return folder


def linked(source: Path, target: Path) -> Path:
    """A copy of a checkpoint whose files can be replaced: large ones are links."""
    target.mkdir(parents=True)
    for file in source.iterdir():
        if file.suffix == ".safetensors":
            os.link(file, target / file.name)
        else:
            shutil.copyfile(file, target / file.name)
    return target


@cache
def _vocabulary() -> dict[str, int]:
    words = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(m.replace(" ", "") for m in MERGES)]
    words += [f"w{i}" for i in range(VOCAB - len(words))]
    return {word: i for i, word in enumerate(words)}


def _write_tokenizer(folder: Path, kind: str) -> None:
    tokens = added(kind)
    _json(folder / "vocab.json", _vocabulary())
    lines = ["#version: 0.2", *MERGES]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    _json(folder / "added_tokens.json", {name: i for name, (i, _) in tokens.items()})
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    decoder = {
        str(i): {"content": name, **plain, "special": special}
        for name, (i, special) in tokens.items()
    }
    mask = "<M>" if kind == "open-dcoder" else "<|mask|>"
    names = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "mask_token": mask}
    shared: dict[str, Any] = {"add_prefix_space": False, "added_tokens_decoder": decoder}
    shared |= {"errors": "replace", "model_max_length": 131072, "split_special_tokens": False}
    if kind == "open-dcoder":
        own: dict[str, Any] = {"tokenizer_class": "Qwen2Tokenizer", "bos_token": None}
    else:
        code = ["tokenization_dream.DreamTokenizer", None]
        own = {"tokenizer_class": "DreamTokenizer", "auto_map": {"AutoTokenizer": code}}
        own["bos_token"] = "<|beginoftext|>"
    _json(folder / "tokenizer_config.json", shared | own | names)
    _json(
        folder / "special_tokens_map.json", {n: {"content": c, **plain} for n, c in names.items()}
    )
    if kind == "open-dcoder":
        read_byte_level(folder).save(str(folder / "tokenizer.json"))


def _json(path: Path, data: object) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
