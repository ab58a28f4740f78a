"""What tests of adapter training share: a tiny Llama with infill.json, a corpus, recipes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from training_runs import module
from transformers import LlamaConfig, LlamaForCausalLM

from engine.training.adapter import AdapterModel, load_adapter_model
from engine.training.infill import Infill
from engine.training.recipe import Length, Lora, Origin, Rates, Recipe, Shape
from engine.weights.profile import EMBEDDED

VOCAB = 4096
"""Of nano's tokenizer, which the tiny model takes."""

END, MASK = VOCAB, VOCAB + 1


def write_base(folder: Path, layers: int = 2) -> Path:
    """A Llama with random weights, nano's tokenizer, and an infill.json as mini's is."""
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=8,
        rope_theta=10_000.0,
        tie_word_embeddings=True,
        bos_token_id=2,
        eos_token_id=1,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.15) if parameter.ndim > 1 else parameter.uniform_(0.5, 1.5)
    model.float().save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(EMBEDDED / name, folder / name)
    profile = {
        "name": "tiny",
        "slack": "<|end|>",
        "mask": "<|mask|>",
        "extra": ["<|end|>", "<|mask|>"],
        "blanks": True,
        "context": 256,
        "canvas": 64,
        "hole": 16,
        "longest": 32,
        "suffix": 24,
        "prefill": 64,
        "neighbours": False,
        "weights": {"written": 1.0, "before": 0.0, "after": 0.0},
    }
    (folder / "infill.json").write_text(json.dumps(profile))
    return folder


def write_texts(folder: Path, count: int = 6) -> Path:
    """A corpus of two languages, of which the last documents are held back."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "name": f"m{number}.{'py' if number % 2 else 'js'}",
            "language": "python" if number % 2 else "javascript",
            "text": module(number) if number % 2 else script(number),
        }
        for number in range(count)
    ]
    for name, part in (("texts", rows[:-2]), ("heldout", rows[-2:])):
        lines = "".join(json.dumps(row) + "\n" for row in part)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return folder


def script(number: int) -> str:
    """A JavaScript file of its own."""
    lines = ["'use strict';", ""]
    for index in range(14):
        lines += [
            f"function bake{number}_{index}(flour, sugar = [{index}, {number}]) {{",
            f"  // Step {index}",
            f"  if (flour.total > {index + number}) {{",
            f'    return {{ "cake": flour[sugar[0]], layer: "n{index}" }};',
            "  }",
            f"  return bake{number}_{index}(flour.next, sugar.map((a) => a + {number}));",
            "}",
            "",
        ]
    return "\n".join(lines)


def tiny_recipe(base: Path, texts: Path, out: Path, **length: Any) -> Recipe:
    """A run that takes moments; one step unless `length` says otherwise."""
    return Recipe(
        Length(out, **{"steps": 1, "validation": 1, "seed": 3, "device": "cpu", **length}),
        Infill(texts, languages={"python": 0.6, "other": 0.4}),
        Origin(start_from=base),
        Shape(windows=2, context=96, canvases=6, canvas=32),
        Rates(adam=0.02, warm_up_steps=2, average_over=5),
        Lora(rank=4, scale=2.0),
    )


def tiny_model(base: Path, seed: int = 0, loud: bool = False) -> AdapterModel:
    """The model in float32 with a new adapter; `loud`: one that changes a lot."""
    model = load_adapter_model(base, torch.device("cpu"), torch.float32, 4, 2.0, seed, fresh=True)
    if loud:
        draw = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, tensor in model.trained.items():
                if name.endswith(".up") or name in ("embeddings", "head"):
                    tensor.copy_(torch.randn(tensor.shape, generator=draw) * 0.3)
    return model
