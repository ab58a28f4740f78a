"""What a run leaves on disk: its state, from which it goes on, and a model that the engine loads.

Everything is written beside its place first and then moved there, and what belongs together is one
file. So a kill leaves the last good state and model, and so does a full disk, which is an error of
one line.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.errors import TrainingError

COMPANIONS = (
    *("tokenizer.json", "tokenizer_config.json", "infill.json", "generation_config.json"),
    *("base.json", "NOTICE"),
)

_STATE, _OLD_META = "state.safetensors", "state.json"


@dataclass(frozen=True)
class State:
    """All that a run needs to go on: tensors by name, and how far it had come."""

    tensors: dict[str, Tensor]
    steps: int
    minutes: float


def save_state(state: State, out: Path) -> None:
    """Writes the state into `out`: one file, so that its numbers and tensors belong together.

    Raises TrainingError if that can't be done; the state of before is still there then.
    """
    numbers = {"steps": str(state.steps), "minutes": repr(state.minutes)}
    with saving(out):
        write_tensors(state.tensors, out / _STATE, numbers)
        (out / _OLD_META).unlink(missing_ok=True)


def load_state(out: Path) -> State | None:
    """The state in `out`; None if there is none. Raises TrainingError if it is not usable."""
    path = out / _STATE
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:  # pyright: ignore[reportGeneralTypeIssues]
            meta: dict[str, Any] = file.metadata() or {}
        if "steps" not in meta:  # written before the numbers were in the same file
            meta = json.loads((out / _OLD_META).read_text(encoding="utf-8"))
        return State(load_file(path), int(meta["steps"]), float(meta["minutes"]))
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise TrainingError(f"{path} is not the state of a run: {error}; delete it") from error


def save_model(save: Callable[[Path], None], companions: Path, out: Path) -> None:
    """Has `save` write a checkpoint into an empty folder, then moves its files into `out`.

    companions: where the tokenizer is, and what else stands beside the weights.
    Raises TrainingError if there is no room for it; the model of before is still there then.
    """
    part = out.with_name(out.name + ".part")
    with saving(out):
        shutil.rmtree(part, ignore_errors=True)
        try:
            part.mkdir(parents=True)
            save(part)
            for name in COMPANIONS:
                if (companions / name).is_file():
                    shutil.copyfile(companions / name, part / name)
            out.mkdir(exist_ok=True)
            for file in sorted(part.iterdir()):
                _settle(file)
                file.replace(out / file.name)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def write_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Writes a safetensors file beside `path`, then moves it there."""
    part = path.with_suffix(".part")
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part, metadata)
        _settle(part)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_text(text: str, path: Path) -> None:
    """Writes a text file beside `path`, then moves it there. Raises TrainingError."""
    part = path.with_name(path.name + ".part")
    with saving(path.parent):
        try:
            part.write_text(text, encoding="utf-8")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def _settle(path: Path) -> None:
    """Waits until a file is on the disk: it shall not take a good one's place before."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextlib.contextmanager
def saving(out: Path) -> Generator[None]:
    """Around whatever writes to `out`: tells of a disk that is full, or that it may not write to,
    by a TrainingError of one line."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise TrainingError(
            f"can't save to {out}: {reason}; what was saved before is intact: "
            "make room and run the same command again"
        ) from error
