"""Trains a model: `python -m engine.training.train CONFIG.toml --data DIR --out DIR`.

A config describes a run (engine/training/recipe.py); flags go before it and suffice without it.
The same command goes on with a run that was stopped. Exit codes: 0 done, 2 it can't be done (one
line on stderr says why), 130 stopped by Ctrl-C, with everything saved.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Generator, Sequence
from dataclasses import replace
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import torch
from torch import distributed, multiprocessing
from torch.multiprocessing.spawn import ProcessExitedException  # pyright: ignore[reportPrivateImportUsage]

from engine.errors import EngineError, TrainingError, complaint
from engine.program import INTERRUPTED, take_interrupts
from engine.training.adapter import has_adapter
from engine.training.adapter_run import AdapterRun
from engine.training.infill import Infill
from engine.training.loop import Loop, Team
from engine.training.recipe import Recipe, Table, read_recipe
from engine.training.run import Run
from engine.weights.locate import locate

FAILED = 2

GRACE_S = 10.0
"""So long the other members of a team may take to end by themselves when one has failed."""

FLAGS: dict[str, tuple[str, str, Any, str]] = {
    "--data": ("data", "folder", Path, "folder with train.bin, or with texts.jsonl"),
    "--files": ("data", "list", Path, "a text file that names files, a path a line"),
    "--out": ("run", "out", Path, "folder for the state and the model"),
    "--minutes": ("run", "minutes", float, "training time in all"),
    "--steps": ("run", "steps", int, "steps in all"),
    "--save-every": ("run", "save_every", float, "minutes between saves"),
    "--seed": ("run", "seed", int, "of the weights and of the batches"),
    "--rank": ("lora", "rank", int, "of low-rank adapters; 0 trains all weights"),
    "--device": ("run", "device", str, "cuda, mps or cpu"),
    "--processes": ("run", "processes", int, "share each step among so many"),
    "--average-every": ("run", "average_every", float, "seconds; or gradients at each step"),
    "--workers": ("run", "workers", int, "processes that make batches ahead of the steps"),
    "--start-from": ("model", "start_from", Path, "a checkpoint whose weights a new run takes"),
    "--tokenizer": ("model", "tokenizer", Path, "folder with tokenizer.json"),
    "--windows": ("step", "windows", int, "windows of context in a step"),
    "--context": ("step", "context", int, "prefix tokens of a window"),
    "--canvas": ("step", "canvas", int, "tokens of a canvas"),
    "--muon-lr": ("rates", "muon", float, "rate of matrices"),
    "--adam-lr": ("rates", "adam", float, "rate of all else"),
}
"""Flags by the table and the key that they stand for, with their type and their help."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    take_interrupts()
    try:
        recipe = recipe_of(_parser().parse_args(argv))
        kind = kind_of_run(recipe)
        recipe.data.prepare(recipe)
        return run(recipe, kind)
    except EngineError as error:
        return _failed(error)
    except KeyboardInterrupt:
        return INTERRUPTED


def recipe_of(options: argparse.Namespace) -> Recipe:
    """The recipe in the config file with the flags before it.

    Raises TrainingError, or ModelError if there is no such checkpoint.
    """
    given = vars(options)
    overrides: dict[str, Table] = {}
    for flag, (table, key, _, _) in FLAGS.items():
        value = given[flag.removeprefix("--").replace("-", "_")]
        if value is not None:
            overrides.setdefault(table, {})[key] = value
    if options.compile:
        overrides.setdefault("run", {})["compile"] = True
    recipe = read_recipe(options.config, overrides)
    base = recipe.model.start_from
    if base is None:
        return recipe
    return replace(recipe, model=replace(recipe.model, start_from=locate(str(base))))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m engine.training.train", description=__doc__)
    parser.add_argument("config", type=Path, nargs="?", metavar="CONFIG.toml")
    for flag, (table, key, kind, text) in FLAGS.items():
        parser.add_argument(flag, type=kind, metavar="X", help=f"{text} ([{table}] {key})")
    parser.add_argument("--compile", action="store_true", help="fuse what stands beside attention")
    return parser


def kind_of_run(recipe: Recipe) -> type[Loop]:
    """What trains the recipe's model: all of a DiffusionGemma, or the adapter of a dense model.

    Raises TrainingError if the data is made for the other one, ModelError if a base is missing.
    """
    base, infill = recipe.model.start_from, isinstance(recipe.data, Infill)
    if base is None or not has_adapter(base):
        if infill:
            raise TrainingError(
                '[data] kind = "infill" is for a model with an adapter, such as mini'
            )
        return Run
    if not infill:
        raise TrainingError(
            f'what is trained of {base.name} is its adapter, which takes [data] kind = "infill": '
            "see engine/training/finetune_mini.toml"
        )
    return AdapterRun


def run(recipe: Recipe, kind: type[Loop] = Run) -> int:
    """Trains, in as many processes as the recipe says; returns the exit code."""
    return _alone(recipe, kind) if recipe.run.processes == 1 else _together(recipe, kind)


def _alone(recipe: Recipe, kind: type[Loop]) -> int:
    return 0 if kind(recipe, Team(0, 1)).train() else INTERRUPTED


def _together(recipe: Recipe, kind: type[Loop]) -> int:
    # Ctrl-C reaches all processes; the members finish their step, and this one waits for them.
    before = signal.signal(signal.SIGINT, _the_members_have_it_too)
    try:
        with tempfile.TemporaryDirectory() as folder, _held_back(signal.SIGINT):
            spawn = multiprocessing.spawn  # pyright: ignore[reportPrivateImportUsage]
            arguments = (recipe, kind, f"file://{folder}/meeting")
            members = spawn(_member, arguments, nprocs=recipe.run.processes, join=False)
            assert members is not None, "as it is where nobody has joined them"
            while not members.join(grace_period=GRACE_S):
                continue
    except ProcessExitedException as error:
        return error.exit_code
    finally:
        signal.signal(signal.SIGINT, before)
    return 0


def _the_members_have_it_too(number: int, frame: object) -> None:
    """Goes on waiting."""


@contextlib.contextmanager
def _held_back(number: signal.Signals) -> Generator[None]:
    """Keeps a signal waiting, also for the processes that are started in this block, until they let
    it in: none of them loses it, and none is interrupted while it imports."""
    resource_tracker.ensure_running()  # which lets it in as it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _member(rank: int, recipe: Recipe, kind: type[Loop], meeting: str) -> None:
    size = recipe.run.processes
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // size))
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=size)
    take_interrupts()
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        done = kind(recipe, Team(rank, size)).train()
    except EngineError as error:
        sys.exit(_failed(error))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    # Whoever ends early ends the others; so they all wait until the first one has saved.
    distributed.barrier()
    distributed.destroy_process_group()
    sys.exit(0 if done or rank > 0 else INTERRUPTED)


def _failed(error: EngineError) -> int:
    print(complaint(error), file=sys.stderr)
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
