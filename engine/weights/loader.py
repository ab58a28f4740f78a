"""From a folder with config.json and safetensors to a model on a device.

safetensors only, never pickle; no code of a model repository is ever run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import groupby
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.overrides import TorchFunctionMode

from engine.backbones.config import ModelConfig, load_config
from engine.backbones.diffusion_gemma import DiffusionGemma
from engine.backbones.quantized import Format
from engine.backbones.rounding import bits_of, bytes_in, put
from engine.errors import ModelError, OutOfMemory
from engine.profile import Profile
from engine.weights.precision import pick_format
from engine.weights.profile import diffusion_gemma

Progress = Callable[[str, float], None]
"""Called with what is being done and how much of it is done, from 0 to 1."""

SMALL = 512
"""Up to this hidden size a model is as fast in its own precision."""

_DECODER = "model.decoder."
_ENCODER = "model.encoder.language_model."


def pick_device(name: str | None) -> torch.device:
    """The device called `name`, or the best there is: cuda (or cuda:N), mps, cpu.

    Raises ModelError.
    """
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        if torch.backends.mps.is_available():
            return torch.device("mps")
        return torch.device("cpu")
    if not re.fullmatch(r"cuda(:\d{1,3})?|mps|cpu", name):
        raise ModelError(f"{name!r} is no device: name cuda, mps or cpu, or leave it out")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        reason = re.split(r"\n|\. ", str(error))[0] or type(error).__name__
        raise ModelError(
            f"this machine has no {name} that PyTorch can use ({reason}): leave the device out for "
            "the best there is"
        ) from error
    return device


def pick_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it natively, else float32.

    Cards before Ampere only emulate it, and float16 has too small a range for what these models
    compute in it.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):
            native = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    else:
        native = True
    return torch.bfloat16 if native else torch.float32


def load_model(
    folder: Path,
    device: torch.device,
    dtype: torch.dtype,
    progress: Progress | None = None,
    format: Format | None = None,
) -> DiffusionGemma:
    """Reads the checkpoint in `folder`, one file or sharded, onto `device` as `dtype`.

    format: what its weights are kept in; None takes what is fast and fits there.

    Raises ModelError if a file is missing, corrupt or of another shape, before any weight is read,
    and OutOfMemory if it does not fit on the device.
    """
    model = _outline(load_config(folder))
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    large = model.config.hidden_size > SMALL

    def needs(kept: Format) -> int:
        return bytes_in(shapes, kept, dtype.itemsize)

    model.format = format or pick_format(device, dtype, needs, fast=large)
    try:
        stored = _stored(folder, model)
        model.load_state_dict(_read(stored, model, device, dtype, progress), assign=True)
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(
            f"the model in {folder} does not fit into the memory of {device}; "
            "free some or choose a smaller model"
        ) from error
    except _UNREADABLE as error:
        raise _unreadable(folder, error) from error
    return model.eval().requires_grad_(False)


class _NoInit(TorchFunctionMode):
    """Leaves tensors as they are made. To initialise those of "meta", torch imports its compiler:
    a second of time and 40 MB."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", None) == torch.nn.init.__name__:
            return None
        return func(*args, **(kwargs or {}))


def _outline(config: ModelConfig) -> DiffusionGemma:
    """The modules of such a model, without memory for its weights."""
    with torch.device("meta"), _NoInit():
        return DiffusionGemma(config)


def read_config(folder: Path) -> ModelConfig:
    """The shape of the network in `folder`. Raises ModelError."""
    return load_config(folder)


def check_weights(folder: Path, config: ModelConfig) -> None:
    """Looks whether the files in `folder` hold all weights of such a model, in its shapes, without
    reading them. Raises ModelError."""
    model = _outline(config)
    try:
        _stored(folder, model)
    except _UNREADABLE as error:
        raise _unreadable(folder, error) from error


def default_profile(folder: Path, config: ModelConfig) -> Profile:
    """How to use a DiffusionGemma that has no infill.json. Raises ModelError."""
    return diffusion_gemma(folder, config)


def checkpoint_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, in order. Raises ModelError if one is missing."""
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if index.is_file():
        try:
            names = sorted(
                set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            )
            files = [folder / name for name in names]
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise ModelError(f"{index} is broken; download the model again") from error
    else:
        files = [single]
    for file in files:
        if not file.is_file():
            raise ModelError(f"{file} is missing; download the model again")
    return files


class _Stored(NamedTuple):
    """A tensor of a checkpoint: where it is, what it is called there and here, how large it is."""

    file: Path
    name: str
    own: str
    numbers: int


def _stored(folder: Path, model: DiffusionGemma) -> list[_Stored]:
    """The tensors that are to be read, in the order of the files. Reads the files' headers only.

    Encoder and decoder share their weights; the decoder's copy is the one that is read. Biases
    transformers does not tie, so that both are, to be compared.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found: dict[str, list[_Stored]] = {}
    for file in checkpoint_files(folder):
        with safe_open(file, framework="pt", device="cpu") as tensors:  # pyright: ignore[reportGeneralTypeIssues]
            for name in tensors.keys():  # noqa: SIM118 - it is no dict
                own = own_name(name)
                if own is None or own not in wanted:
                    continue
                shape = tuple(tensors.get_slice(name).get_shape())
                if shape != wanted[own]:
                    raise ModelError(
                        f"{name} in {file} has shape {shape}, the config asks for {wanted[own]}"
                    )
                found.setdefault(own, []).append(_Stored(file, name, own, prod(shape)))
    missing = sorted(wanted.keys() - found.keys())
    if missing:
        raise ModelError(
            f"{len(missing)} weights are missing from {folder}, {missing[0]} first; "
            "download the model again"
        )
    chosen: list[_Stored] = []
    for own, copies in found.items():
        copies.sort(key=lambda one: not one.name.startswith(_DECODER))
        chosen += copies if own.endswith(".bias") else copies[:1]
    return sorted(chosen)


def _read(
    stored: list[_Stored],
    model: DiffusionGemma,
    device: torch.device,
    dtype: torch.dtype,
    progress: Progress | None,
) -> dict[str, Tensor]:
    """The state dict, tensor by tensor: there is never a second copy of the model in memory. What
    is kept in few bits is put into the model."""
    state: dict[str, Tensor] = {}
    size, done = dtype.itemsize * sum(one.numbers for one in stored), 0
    for file, of_file in groupby(stored, key=lambda one: one.file):
        with safe_open(file, framework="pt", device="cpu") as tensors:  # pyright: ignore[reportGeneralTypeIssues]
            for _, name, own, _ in of_file:
                tensor = tensors.get_tensor(name).to(device=device, dtype=dtype)
                if own in state and not torch.equal(state[own], tensor):
                    raise ModelError(f"{name} in {file} differs between encoder and decoder")
                if (bits := bits_of(own, model.format)) is not None:
                    put(model, own, tensor, bits)
                else:
                    state[own] = tensor
                done += tensor.nbytes
                if progress:
                    progress("loading", done / size)
    return state


_UNREADABLE = (SafetensorError, OSError, RuntimeError, ValueError)


def _unreadable(folder: Path, error: Exception) -> ModelError:
    first = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
    return ModelError(f"the model in {folder} can't be read ({first}): copy or download it again")


def own_name(name: str) -> str | None:
    """What a tensor of transformers' state dict is called here; None if it has no place here."""
    if name.startswith(_DECODER):
        return name.removeprefix(_DECODER)
    if name.startswith(_ENCODER):
        return name.removeprefix(_ENCODER).replace("layer_scalar", "encoder_layer_scalar")
    return "embed_tokens.weight" if name == "lm_head.weight" else None


def to_reference_state(model: DiffusionGemma) -> dict[str, Tensor]:
    """The state dict under transformers' names, as it is written to a checkpoint."""
    state: dict[str, Tensor] = {}
    for own, tensor in model.state_dict().items():
        if own.endswith("encoder_layer_scalar"):
            state[_ENCODER + own.replace("encoder_layer_scalar", "layer_scalar")] = tensor
        else:
            state[_DECODER + own] = tensor
        if own.startswith("layers.") and own.endswith(".bias"):
            state[_ENCODER + own] = tensor.clone()  # transformers does not tie biases
    return state
