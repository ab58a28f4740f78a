"""From a folder to its backbone: which family its config.json names, and who reads that.

A new family is a file in `engine.backbones` (and one here, if its files need more than names), and
a line in FAMILIES.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import torch

from engine.backbones.base import Backbone
from engine.errors import ModelError
from engine.paths import BEST, WEIGHTS, base_of
from engine.weights.loader import Progress

Load = Callable[[Path, torch.device, torch.dtype, Progress | None], Backbone]

FAMILIES = {
    "diffusion_gemma": "engine.weights.loader:load_model",
    "llama": "engine.weights.dense:load_dense",
    "qwen2": "engine.weights.dense:load_dense",
    "qwen3": "engine.weights.dense:load_dense",
}
"""Who loads a folder, by the `model_type` of its config.json, as `module:function`."""


def load_backbone(
    folder: Path, device: torch.device, dtype: torch.dtype, progress: Progress | None = None
) -> Backbone:
    """The backbone of the checkpoint in `folder` on `device`, in `dtype`.

    Raises ModelError if its family is not known or it can't be read, OutOfMemory if it does not
    fit.
    """
    kind = model_type(config_folder(folder))
    if kind not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise ModelError(f"{folder} holds a {kind!r} model; known are {known}")
    module, _, function = FAMILIES[kind].partition(":")
    load: Load = getattr(import_module(module), function)
    return load(folder, device, dtype, progress)


def model_type(folder: Path) -> str | None:
    """The family that `folder`/config.json names. Raises ModelError if it can't be read."""
    return read_json(folder / "config.json").get("model_type")


def read_json(path: Path) -> dict[str, Any]:
    """A file of a model that holds a JSON object. Raises ModelError if it does not."""
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"no model at {path.parent}: {path.name} can't be read") from error
    except ValueError as error:
        raise ModelError(f"{path} is not JSON; download the model again") from error
    if not isinstance(data, dict):
        raise ModelError(f"{path} holds no JSON object; download the model again")
    return cast("dict[str, Any]", data)


def config_folder(folder: Path) -> Path:
    """Where a model's config.json and tokenizer are: in its folder, or, if that holds what was
    trained on top of a model that is fetched (base.json), with that one.

    Raises ModelError if that is not here.
    """
    if not (folder / "base.json").is_file():
        return folder
    try:
        base = base_of(folder)
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"{folder / 'base.json'} is broken: {error}") from error
    if base is None:
        name = folder.name if folder.parent == WEIGHTS else BEST
        raise ModelError(f"the base of {folder.name} is not here: diffgemma-lsp pull {name}")
    return base


tokenizer_folder = config_folder
