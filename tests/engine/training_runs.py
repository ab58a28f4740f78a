"""What tests of training runs share: a corpus, a small model's config, and recipes for it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np

from engine.text.tokenizer import TextTokenizer
from engine.training.dataset import Code
from engine.training.loop import Team
from engine.training.nano import NANO
from engine.training.recipe import Length, Origin, Recipe, Shape
from engine.training.run import Run
from engine.weights.profile import EMBEDDED

_ENGINE = Path(__file__).parents[2] / "engine"
SOURCES = sorted(
    p for p in _ENGINE.rglob("*.py") if p.parent.name not in ("training", "evaluation")
)


def module(number: int, functions: int = 12) -> str:
    """A Python file of its own, in shapes that holes care about."""
    lines = [f'"""Module {number}: recipes für {number} guests."""', "", "import math", ""]
    for index in range(functions):
        name = f"recipe_{number}_{index}"
        lines += [
            f"def {name}(flour, sugar=({index}, {number}), *, oven_{index}=None):",
            f'    """Bake cake {index} — {number} °C."""',
            f"    # Step {index}: stir {number + index} times",
            f"    total = flour * {index + 3} + math.sqrt(sugar[0] - {number})",
            f"    for layer_{index} in range(total % {number + 7}):",
            f"\tif oven_{index} is None:  ",
            f'            print("layer", layer_{index}, {{"n": [{index}, {number}]}})',
            "",
            f"    return {name}(total, sugar=sugar, oven_{index}=[a for a in (1, {index})])",
            "",
            "",
        ]
    return "\n".join(lines)


def write_corpus(folder: Path) -> Path:
    """A corpus folder made of this project's own source."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = TextTokenizer.load(EMBEDDED)
    documents = [tokenizer.encode(file.read_text(encoding="utf-8")) for file in SOURCES]
    for split, part in (("train", documents), ("valid", documents[:3])):
        np.concatenate([np.array(d, np.uint16) for d in part]).tofile(folder / f"{split}.bin")
        starts = np.cumsum([0, *(len(d) for d in part)])
        np.save(folder / f"{split}.idx.npy", starts.astype(np.int64))
    return folder


def save_base(folder: Path) -> Path:
    """A small checkpoint with new weights, made by a run in `folder`."""
    Run(small_recipe(folder, folder / "base"), Team(0, 1)).save()
    return folder / "base" / "model"


def small_config(folder: Path) -> Path:
    """The config.json of nano with two thin layers."""
    config: dict[str, Any] = copy.deepcopy(NANO)
    config["text_config"] |= {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"],
        "per_layer_config": {"1": {"head_dim": 16, "num_key_value_heads": 2}},
        "head_dim": 16,
        "moe_intermediate_size": 16,
    }
    path = folder / "small.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


def small_recipe(corpus: Path, out: Path, **length: Any) -> Recipe:
    """A run of a small model that takes moments; one step unless `length` says otherwise."""
    return Recipe(
        Length(out, **{"steps": 1, "validation": 1, **length}),
        Code(corpus),
        Origin(config=small_config(corpus), tokenizer=EMBEDDED),
        Shape(windows=2, context=64, canvases=4, canvas=24),
    )
