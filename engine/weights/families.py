"""From a folder to its backbone: which family its config.json names, and who reads that.

A new family is a file in `engine.backbones`, one here that reads its folders (`Family`), and a line
in FAMILIES.
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

import torch

from engine.backbones.base import Backbone, BackboneConfig
from engine.backbones.quantized import Format
from engine.errors import ModelError
from engine.models import BEST, WEIGHTS, base_of
from engine.profile import Profile
from engine.text.byte_level import mask_token
from engine.weights.loader import Progress

MASKED = "masked "
"""In front of a model_type: that of a language model whose tokenizer knows a mask."""

FAMILIES = {
    "diffusion_gemma": "engine.weights.loader",
    "Dream": "engine.weights.dream",
    "DreamOn": "engine.weights.dream",
    f"{MASKED}qwen2": "engine.weights.dream",
    "llama": "engine.weights.dense",
    "qwen2": "engine.weights.dense",
    "qwen3": "engine.weights.dense",
}
"""The module that reads a family's folders (`Family`), by the `model_type` of its config.json."""


class Family(Protocol):
    """What a module in FAMILIES has."""

    def read_config(self, folder: Path) -> BackboneConfig:
        """The shape of the network in `folder`. Raises ModelError."""
        ...

    def check_weights(self, folder: Path, config: Any) -> None:
        """Raises ModelError if the files of weights are not there, or of another shape."""
        ...

    def load_model(
        self,
        folder: Path,
        device: torch.device,
        dtype: torch.dtype,
        progress: Progress | None = None,
        format: Format | None = None,
    ) -> Backbone:
        """The network. format: what its weights are kept in; None takes what is fast and fits.

        Raises ModelError if it can't be read, OutOfMemory if it does not fit.
        """
        ...

    def default_profile(self, folder: Path, config: Any) -> Profile:
        """How to use a model whose folder has no infill.json. Raises ModelError."""
        ...


def family_of(folder: Path) -> Family:
    """Who reads `folder`. Raises ModelError if its family is not known."""
    kind = model_type(config_folder(folder))
    if kind not in FAMILIES:
        raise ModelError(f"{folder} holds a {kind!r} model; known are {', '.join(FAMILIES)}")
    module: Any = import_module(FAMILIES[kind])
    return module


def model_type(folder: Path) -> str | None:
    """The family that `folder`/config.json names. Raises ModelError if it can't be read."""
    kind = read_json(folder / "config.json").get("model_type")
    try:
        masked = f"{MASKED}{kind}" in FAMILIES and mask_token(folder) is not None
    except (OSError, ValueError) as error:
        raise ModelError(f"the tokenizer in {folder} is broken: {error}") from error
    return f"{MASKED}{kind}" if masked else kind


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

    Raises ModelError if that is not here, or base.json can't be read.
    """
    if not (folder / "base.json").is_file():
        return folder
    base = base_of(folder)
    if base is None:
        name = folder.name if folder.parent == WEIGHTS else BEST
        raise ModelError(f"the base of {folder.name} is not here: diffgemma-lsp pull {name}")
    return base
