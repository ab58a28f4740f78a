"""Finds a model's folder by what a user calls it: nothing (nano), the name of one that ships, a
path, or a name on the hub.

The network is used only for a model that the user names by its hub name, and only for what is not
on disk yet. Of a repository, only configs, the tokenizer and safetensors are fetched: no code.
"""

from __future__ import annotations

import re
from pathlib import Path

from engine.errors import ModelError
from engine.paths import SHIPPED, WEIGHTS
from engine.weights.profile import EMBEDDED

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_WANTED = ["*.json", "*.safetensors", "*.jinja"]


def locate(model: str | None) -> Path:
    """The folder that holds the model. Raises ModelError with what to do if there is none."""
    if model is None:
        return EMBEDDED
    if model in SHIPPED:
        return WEIGHTS / model
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
    if not _HUB_NAME.fullmatch(model) or model.startswith("."):
        raise ModelError(f"no model at {model}; name a folder or a model such as owner/name")
    return _from_hub(model)


def _is_model(folder: Path) -> bool:
    return (folder / "config.json").exists() or (folder / "base.json").exists()


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        try:
            return Path(snapshot_download(name, allow_patterns=_WANTED, local_files_only=True))
        except LocalEntryNotFoundError:
            return Path(snapshot_download(name, allow_patterns=_WANTED))
    except Exception as error:  # of the hub, of HTTP, of the disk: all mean the same here
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise ModelError(f"{name} can't be fetched: {reason}") from error
