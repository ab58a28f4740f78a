"""From a folder with config.json and safetensors to a model on a device.

safetensors only, never pickle; no code of a model repository is ever run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from engine.backbones.config import ModelConfig, load_config
from engine.backbones.diffusion_gemma import DiffusionGemma
from engine.errors import ModelError, OutOfMemory

Progress = Callable[[str, float], None]
"""Called with what is being done and how much of it is done, from 0 to 1."""

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
    """bfloat16 where the device multiplies it natively, else float32."""
    if device.type != "cpu":
        return torch.bfloat16
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return torch.bfloat16 if native else torch.float32


def load_model(
    folder: Path,
    device: torch.device,
    dtype: torch.dtype,
    progress: Progress | None = None,
) -> DiffusionGemma:
    """Reads the checkpoint in `folder`, one file or sharded, onto `device` as `dtype`.

    Raises ModelError if a file is missing, corrupt or of another shape, OutOfMemory if it does not
    fit on the device.
    """
    config = load_config(folder)
    files = checkpoint_files(folder)
    try:
        with torch.device("meta"):
            model = DiffusionGemma(config)
        state = _read(config, files, device, dtype, set(model.state_dict()), progress)
        model.load_state_dict(state, assign=True)
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(
            f"the model in {folder} does not fit into the memory of {device}; "
            "free some or choose a smaller model"
        ) from error
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise ModelError(
            f"the model in {folder} can't be read ({first}): copy or download it again"
        ) from error
    return model.eval().requires_grad_(False)


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


def _read(
    config: ModelConfig,
    files: list[Path],
    device: torch.device,
    dtype: torch.dtype,
    wanted: set[str],
    progress: Progress | None,
) -> dict[str, Tensor]:
    shapes = _shapes(config)
    state: dict[str, Tensor] = {}
    for done, file in enumerate(files):
        with safe_open(file, framework="pt", device="cpu") as tensors:  # pyright: ignore[reportGeneralTypeIssues]
            names: list[str] = list(tensors.keys())
            for count, name in enumerate(names):
                for own in own_names(name):
                    # Encoder and decoder share their weights; the decoder's copy is the one kept.
                    # Biases transformers does not tie, so that they could differ.
                    known, bias = own in state, own.endswith(".bias")
                    if own not in wanted or (known and not bias and not name.startswith(_DECODER)):
                        continue
                    tensor = tensors.get_tensor(name)
                    if tuple(tensor.shape) != shapes[own]:
                        raise ModelError(
                            f"{name} in {file} has shape {tuple(tensor.shape)}, "
                            f"the config asks for {shapes[own]}"
                        )
                    tensor = tensor.to(device=device, dtype=dtype)
                    if known and bias and not torch.equal(state[own], tensor):
                        raise ModelError(f"{name} in {file} differs between encoder and decoder")
                    state[own] = tensor
                if progress:
                    progress("loading", (done + (count + 1) / len(names)) / len(files))
    missing = sorted(wanted - set(state))
    if missing:
        raise ModelError(
            f"{len(missing)} weights are missing from {files[0].parent}, {missing[0]} first; "
            "download the model again"
        )
    return state


def _shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {k: tuple(v.shape) for k, v in DiffusionGemma(config).state_dict().items()}


def own_names(name: str) -> Iterator[str]:
    """What a tensor of transformers' state dict is called here."""
    if name.startswith(_DECODER):
        yield name.removeprefix(_DECODER)
    elif name.startswith(_ENCODER):
        own = name.removeprefix(_ENCODER)
        yield own.replace("layer_scalar", "encoder_layer_scalar")
    elif name == "lm_head.weight":
        yield "embed_tokens.weight"


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
