"""Reads the folder of a dense model, and the adapter of one that builds on it."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from engine.backbones.base import Backbone
from engine.backbones.dense import Adapter, Dense
from engine.backbones.dense_config import DenseConfig, parse_dense
from engine.backbones.linear import Format
from engine.errors import ModelError, OutOfMemory
from engine.weights.families import config_folder, read_json
from engine.weights.loader import Progress, checkpoint_files

ADAPTER = "adapter.safetensors"

_PAIR = re.compile(r"layers\.(?P<name>\d+\.[a-z_.]+)\.(?P<part>down|up)")


def read_config(folder: Path) -> DenseConfig:
    """The shape of the network in `folder`. Raises ModelError."""
    path = config_folder(folder) / "config.json"
    return parse_dense(read_json(path), str(path))


def check_weights(folder: Path, config: DenseConfig) -> None:
    """Raises ModelError if the files of weights are not there."""
    base = config_folder(folder)
    checkpoint_files(base)
    if folder != base and not (folder / ADAPTER).is_file():
        raise ModelError(f"{folder / ADAPTER} is missing; install the package again")


def load_model(
    folder: Path, device: torch.device, dtype: torch.dtype, progress: Progress | None = None
) -> Backbone:
    """The dense model in `folder`, with its adapter if it has one; on a CPU in 8 bits.

    Raises ModelError if a file is missing or of another shape, OutOfMemory if it does not fit.
    """
    base, config = config_folder(folder), read_config(folder)
    check_weights(folder, config)
    try:
        state = load_weights(base, device, dtype, progress)
        adapter = None
        if (folder / ADAPTER).is_file():
            adapter = read_adapter(folder / ADAPTER, device)
        format: Format = "int8" if device.type == "cpu" and dtype == torch.bfloat16 else "plain"
        return Dense(config, state, adapter, format)
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(
            f"the model in {folder} does not fit into the memory of {device}; "
            "free some or choose a smaller model"
        ) from error
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise ModelError(
            f"the model in {folder} can't be read ({first}): copy or download it again"
        ) from error


def load_weights(
    base: Path, device: torch.device, dtype: torch.dtype, progress: Progress | None = None
) -> dict[str, Tensor]:
    """The tensors of a checkpoint, by transformers' names."""
    state: dict[str, Tensor] = {}
    for file in checkpoint_files(base):
        state |= _read(file, device, dtype, progress)
    return state


def read_adapter(path: Path, device: torch.device) -> Adapter:
    """What `write_adapter` wrote. Raises ValueError if something is missing."""
    tensors = _read(path, device, torch.float32, None)
    pairs: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if match := _PAIR.fullmatch(name):
            pairs.setdefault(match["name"], {})[match["part"]] = tensor
    low_rank = {name: (pair["down"], pair["up"]) for name, pair in pairs.items()}
    scale = float(tensors["scale"])
    return Adapter(low_rank, scale, tensors["embeddings"], tensors["head"])


def adapter_state(adapter: Adapter) -> dict[str, Tensor]:
    """An adapter as named tensors, for a file."""
    state = {
        "scale": torch.tensor(adapter.scale),
        "embeddings": adapter.embeddings,
        "head": adapter.head,
    }
    for name, (down, up) in adapter.low_rank.items():
        state[f"layers.{name}.down"], state[f"layers.{name}.up"] = down, up
    return state


def _read(
    file: Path, device: torch.device, dtype: torch.dtype, progress: Progress | None
) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    with safe_open(file, framework="pt", device="cpu") as tensors:  # pyright: ignore[reportGeneralTypeIssues]
        names: list[str] = list(tensors.keys())
        for count, name in enumerate(names):
            state[name] = tensors.get_tensor(name).to(device=device, dtype=dtype)
            if progress:
                progress("loading", (count + 1) / len(names))
    return state
