"""Reads the folder of a dense model, and the adapter of one that builds on it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from engine.backbones.base import Backbone
from engine.backbones.dense import Adapter, Dense
from engine.backbones.dense_config import DenseConfig, parse_dense
from engine.backbones.quantized import Format, bytes_of
from engine.errors import ModelError, OutOfMemory
from engine.profile import Profile
from engine.weights.families import config_folder, read_json
from engine.weights.loader import Progress, checkpoint_files
from engine.weights.precision import pick_format

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
    folder: Path,
    device: torch.device,
    dtype: torch.dtype,
    progress: Progress | None = None,
    format: Format | None = None,
) -> Backbone:
    """The dense model in `folder`, with its adapter if it has one; on a CPU in 8 bits.

    Raises ModelError if a file is missing or of another shape, OutOfMemory if it does not fit.
    """
    config = read_config(folder)
    check_weights(folder, config)
    return load_from(folder, config, device, dtype, progress, format)


def default_profile(folder: Path, config: DenseConfig) -> Profile:
    """There is none: without infill.json nothing says that such a model can fill a hole."""
    raise ModelError(
        f"the model in {folder} writes from left to right: name one that was made to fill holes"
    )


def check_shapes(folder: Path, config: DenseConfig) -> None:
    """Looks whether the files hold all weights of such a model, in its shapes; reads their headers
    only. Raises ModelError."""
    wanted = shapes(config)
    files = checkpoint_files(folder)
    try:
        for file in files:
            with _open(file) as tensors:
                for name in tensors.keys():  # noqa: SIM118 - it is no dict
                    shape = tuple(tensors.get_slice(name).get_shape())
                    if wanted.pop(name, shape) != shape:
                        asked = shapes(config)[name]
                        raise ModelError(
                            f"{name} in {file} has shape {shape}, the config asks for {asked}"
                        )
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{folder} has a broken file of weights: download it again") from error
    if wanted:
        raise ModelError(
            f"{len(wanted)} weights are missing from {folder}, {min(wanted)} first; "
            "download the model again"
        )


def shapes(config: DenseConfig) -> dict[str, tuple[int, ...]]:
    """The tensors of a Qwen2 of this shape, by their names: biases on queries, keys and values."""
    d, inner = config.hidden_size, config.intermediate_size
    q, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config.vocab_size, d),
        "model.norm.weight": (d,),
    }
    if not config.tied:
        found["lm_head.weight"] = (config.vocab_size, d)
    for i in range(len(config.layers)):
        layer = f"model.layers.{i}."
        for name, size in (("q", q), ("k", kv), ("v", kv)):
            found[f"{layer}self_attn.{name}_proj.weight"] = (size, d)
            found[f"{layer}self_attn.{name}_proj.bias"] = (size,)
        found[f"{layer}self_attn.o_proj.weight"] = (d, q)
        found[f"{layer}mlp.gate_proj.weight"] = found[f"{layer}mlp.up_proj.weight"] = (inner, d)
        found[f"{layer}mlp.down_proj.weight"] = (d, inner)
        found[f"{layer}input_layernorm.weight"] = (d,)
        found[f"{layer}post_attention_layernorm.weight"] = (d,)
    return found


def bytes_in(shapes: Mapping[str, tuple[int, ...]], format: Format, itemsize: int) -> int:
    """Memory that a dense model of these shapes takes. itemsize: bytes of a number that is not
    rounded, as biases and norms are. In 4 bits the embeddings and the head have 8."""
    total = 0
    for name, shape in shapes.items():
        if format == "plain" or len(shape) < 2:
            total += prod(shape) * itemsize
        else:
            in_layer = name.startswith("model.layers.")
            total += bytes_of(shape, 4 if format == "int4" and in_layer else 8)
    return total


def load_from(
    folder: Path,
    config: DenseConfig,
    device: torch.device,
    dtype: torch.dtype,
    progress: Progress | None,
    format: Format | None,
) -> Backbone:
    """The dense model of such a shape in `folder`. Raises as `load_model` does."""

    def needs(kept: Format) -> int:
        return bytes_in(shapes(config), kept, dtype.itemsize)

    base = config_folder(folder)
    try:
        state = StoredWeights(base, device, dtype, progress)
        adapter = None
        if (folder / ADAPTER).is_file():
            adapter = read_adapter(folder / ADAPTER, device)
        kept = format or pick_format(device, dtype, needs, fast=True)
        return Dense(config, state, adapter, kept, state.numbers())
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


class StoredWeights(Mapping[str, Tensor]):
    """The tensors of a checkpoint by transformers' names. Each is read from the disk when it is
    asked for and belongs to who asked, so that a model that packs them never has them twice."""

    def __init__(
        self, base: Path, device: torch.device, dtype: torch.dtype, progress: Progress | None = None
    ) -> None:
        self._device, self._dtype, self._progress = device, dtype, progress
        self._files: dict[str, Path] = {}
        for file in checkpoint_files(base):
            with _open(file) as tensors:
                names: list[str] = list(tensors.keys())
                self._files |= dict.fromkeys(names, file)
        self._asked: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        with _open(self._files[name]) as tensors:
            tensor: Tensor = tensors.get_tensor(name).to(device=self._device, dtype=self._dtype)
        self._asked.add(name)
        if self._progress:
            self._progress("loading", len(self._asked) / len(self._files))
        return tensor

    def numbers(self) -> int:
        """How many there are in all of them; reads headers only."""
        total = 0
        for file in dict.fromkeys(self._files.values()):
            with _open(file) as tensors:
                names: list[str] = list(tensors.keys())
                total += sum(prod(tensors.get_slice(name).get_shape()) for name in names)
        return total

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def __contains__(self, name: object) -> bool:
        return name in self._files


def read_adapter(path: Path, device: torch.device) -> Adapter:
    """What `write_adapter` wrote. Raises ValueError if something is missing."""
    with _open(path) as file:
        names: list[str] = list(file.keys())
        tensors = {name: file.get_tensor(name).to(device, torch.float32) for name in names}
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


def _open(file: Path) -> Any:
    return safe_open(file, framework="pt", device="cpu")
