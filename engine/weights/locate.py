"""Finds a model's folder by what a user calls it: nothing (nano), the name of one that ships or is
known, a path, or a name on the hub.

The network is used only for a model that the user names by its hub name, and only for what is not
on disk yet. Of a repository, only configs, the tokenizer and safetensors are fetched: no code.
"""

from __future__ import annotations

from pathlib import Path

from engine.errors import ModelError
from engine.known import NAMES
from engine.models import SHIPPED, WEIGHTS, pulled
from engine.weights.hub import HUB_NAME, Progress, fetch
from engine.weights.profile import EMBEDDED


def locate(model: str | None, progress: Progress | None = None) -> Path:
    """The folder that holds the model.

    progress: told how much of a download is done. Raises ModelError with what to do if there is
    no such model.
    """
    if model is None:
        return EMBEDDED
    if model in SHIPPED:
        return WEIGHTS / model
    if found := pulled(model):
        return found
    if model in NAMES:
        raise ModelError(f"{model} is not here: diffgemma-lsp pull {model}")
    try:
        path = Path(model).expanduser()
        if path.is_dir():
            # What a training run leaves is a folder with the model in it.
            inside = path / "model"
            return inside if not _is_model(path) and _is_model(inside) else path
        if path.exists():
            raise ModelError(f"{model} is a file; name the folder that holds config.json")
    except (OSError, RuntimeError) as error:  # a name too long, or the home of nobody
        raise ModelError(f"no model at {model}: {error}") from error
    if not HUB_NAME.fullmatch(model):
        raise ModelError(f"no model at {model}; name a folder or a model such as owner/name")
    return fetch(model, progress)


def _is_model(folder: Path) -> bool:
    return (folder / "config.json").exists() or (folder / "base.json").exists()
