"""Trains nano: `python -m engine.training.train --data DIR --out DIR --minutes 120`.

A run has a budget of minutes of training time, counted over all its resumptions. The learning rate
warms up, holds, and falls to zero over most of the budget; the same command resumes a run that
was stopped, and a larger budget prolongs one. What ships is the running average of the weights.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from tokenizers import Tokenizer
from torch import Tensor, distributed, multiprocessing

from engine.loader import load_model, pick_device, pick_dtype
from engine.model import DiffusionGemma, Layer
from engine.training.dataset import Batches
from engine.training.muon import MixedOptimizer
from engine.training.nano import (
    BOS,
    CONTEXT,
    export,
    load_tensors,
    nano_config,
    new_model,
    save_tensors,
)
from engine.training.step import Losses, TensorBatch, losses

WARM_UP_STEPS = 60
DECAY_SHARE = 0.8
"""Of the budget, what the rate takes to fall to nothing. Long, since batches are small."""

AVERAGE_OVER = 100
"""Steps over which weights are averaged (the time constant of the running average)."""


@dataclass(frozen=True, slots=True)
class Options:
    """One run. Times are minutes of training, not of the clock on the wall."""

    data: Path
    out: Path
    tokenizer: Path
    minutes: float
    windows: int = 4
    context: int = CONTEXT
    canvas: int = 64
    save_every: float = 5.0
    muon_lr: float = 0.02
    adam_lr: float = 0.004
    seed: int = 1
    device: str | None = None
    compile: bool = False
    processes: int = 1
    start_from: Path | None = None


class Team:
    """The processes that train together: each takes its share of a step's windows.

    On a CPU that does other work too, processes of one thread each lose far less than threads
    that wait for each other at every operation.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size

    def average(self, tensors: list[Tensor], number: float) -> float:
        """Averages gradients in place over the team; returns the largest `number` of any member."""
        if self.size == 1:
            return number
        flat = torch.cat([t.float().flatten() for t in tensors])
        distributed.all_reduce(flat)
        for tensor, mean in zip(
            tensors, (flat / self.size).split([t.numel() for t in tensors]), strict=True
        ):
            tensor.copy_(mean.view_as(tensor))
        largest = torch.tensor(number, dtype=torch.float64)
        distributed.all_reduce(largest, distributed.ReduceOp.MAX)
        return float(largest)


def learning_rate(step: int, spent: float, budget: float) -> float:
    """The share of the full rate at `step`, with `spent` of `budget` minutes gone."""
    warm = min(1.0, (step + 1) / WARM_UP_STEPS)
    left = max(0.0, 1.0 - spent / budget)
    return warm * min(1.0, left / DECAY_SHARE)


class Run:
    """A training run that can be stopped at any moment and gone on with."""

    def __init__(self, options: Options, team: Team) -> None:
        self.options, self.team = options, team
        self.device = pick_device(options.device)
        self.model = self._first_model()
        self.optimizer = MixedOptimizer(self.model, options.muon_lr, options.adam_lr)
        self.average = {n: m.clone() for n, m in self.optimizer.masters.items()}
        self.spent = 0.0
        self._mark = time.perf_counter()
        tokenizer = Tokenizer.from_file(str(options.tokenizer / "tokenizer.json"))
        self.batches = Batches(
            options.data,
            tokenizer,
            options.seed,
            windows=options.windows,
            prefix=options.context,
            canvas=options.canvas,
        )
        # Always of the same shape, so that figures can be compared over a run's stages.
        self.validation = Batches(options.data, tokenizer, 0, windows=4, split="valid")
        options.out.mkdir(parents=True, exist_ok=True)
        if (options.out / "state.json").exists():
            self._resume()
        if options.compile:
            for layer in self.model.layers:
                assert isinstance(layer, Layer)
                layer.before = torch.compile(layer.before, dynamic=False)
                layer.after = torch.compile(layer.after, dynamic=False)

    def _first_model(self) -> DiffusionGemma:
        """Fresh weights, or those of a checkpoint, without its optimizer's memory."""
        dtype = pick_dtype(self.device)
        if self.options.start_from is not None:
            return load_model(self.options.start_from, self.device, dtype).requires_grad_()
        return new_model(nano_config(), self.options.seed).to(self.device, dtype)

    @property
    def steps(self) -> int:
        """Updates made so far."""
        return self.optimizer.steps

    def train(self) -> None:
        """Trains until the budget is spent, saving now and then and at the end."""
        console = Console(stderr=True, quiet=self.team.rank > 0)
        bar = Progress(
            TextColumn("{task.fields[note]}"), BarColumn(), TimeElapsedColumn(), console=console
        )
        leads = self.team.rank == 0
        log = (self.options.out / "log.jsonl" if leads else Path(os.devnull)).open("a")
        with bar, contextlib.closing(log):
            task = bar.add_task("train", total=self.options.minutes, note="starting")
            saved = self.spent
            while self.spent < self.options.minutes:
                record = self.step()
                record |= {"step": self.steps, "minutes": round(self.spent, 3)}
                if leads and self.spent - saved >= self.options.save_every:
                    record |= self.validate()
                    self.save()
                    saved = self.spent
                log.write(json.dumps(record) + "\n")
                log.flush()
                note = (
                    f"step {self.steps}  causal {record['causal']:.3f}  fill {record['fill']:.3f}"
                )
                bar.update(task, completed=self.spent, note=note)
            if leads:
                final = self.validate()
                log.write(json.dumps({"step": self.steps, "final": True, **final}) + "\n")
                self.save()
                console.print(f"trained {self.steps} steps, {self.spent:.0f} minutes: {final}")

    def step(self) -> dict[str, float]:
        """One update of the weights; returns its losses in nats."""
        result = self._losses(self.batches, self.steps, self.options.seed + 1, self.team)
        result.total.backward()
        grads = [p.grad for p in self.optimizer.parameters.values() if p.grad is not None]
        # The slowest member's clock is everybody's, so that all agree on rates and on the end.
        now = time.perf_counter()
        self.spent += self.team.average(grads, now - self._mark) / 60
        self._mark = now
        rate = learning_rate(self.steps, self.spent, self.options.minutes)
        norm = self.optimizer.step(rate)
        keep = min(1 - 1 / AVERAGE_OVER, self.steps / (self.steps + 10))
        for name, master in self.optimizer.masters.items():
            self.average[name].lerp_(master, 1 - keep)
        if not math.isfinite(norm):
            raise FloatingPointError(f"the gradient is {norm} at step {self.steps}")
        return {**_named(result), "rate": rate, "norm": norm}

    @torch.no_grad()
    def validate(self, batches: int = 8) -> dict[str, float]:
        """Losses of the averaged weights on held-back files, always on the same batches."""
        parameters = self.optimizer.parameters
        for name, parameter in parameters.items():
            parameter.copy_(self.average[name])
        alone = Team(0, 1)
        all_losses = [_named(self._losses(self.validation, i, 0, alone)) for i in range(batches)]
        for name, parameter in parameters.items():
            parameter.copy_(self.optimizer.masters[name])
        return {
            f"valid_{key}": round(sum(one[key] for one in all_losses) / batches, 4)
            for key in all_losses[0]
        }

    def save(self) -> None:
        """Writes the whole state, and the averaged weights as a checkpoint in `out`/model."""
        out = self.options.out
        state = self.optimizer.state_dict()
        tensors = {"average." + name: tensor for name, tensor in self.average.items()}
        for part in ("masters", "first", "second"):
            tensors |= {f"{part}.{name}": tensor for name, tensor in state[part].items()}
        save_tensors(tensors, out / "state.safetensors")
        meta = {"steps": self.steps, "minutes": self.spent}
        part = out / "state.json.part"
        part.write_text(json.dumps(meta), encoding="utf-8")
        part.replace(out / "state.json")
        export(
            {name: tensor.cpu() for name, tensor in self.average.items()},
            self.options.tokenizer,
            out / "model",
        )

    def _resume(self) -> None:
        out = self.options.out
        meta: dict[str, Any] = json.loads((out / "state.json").read_text(encoding="utf-8"))
        tensors = load_tensors(out / "state.safetensors")

        def part(prefix: str) -> dict[str, Tensor]:
            return {
                name.removeprefix(prefix + "."): tensor.to(self.device)
                for name, tensor in tensors.items()
                if name.startswith(prefix + ".")
            }

        self.optimizer.load_state_dict(
            {"steps": meta["steps"], **{p: part(p) for p in ("masters", "first", "second")}}
        )
        self.average = part("average")
        self.spent = meta["minutes"]

    def _losses(self, batches: Batches, index: int, seed: int, team: Team) -> Losses:
        batch = batches.batch(index)
        tensors = TensorBatch(
            *(
                torch.from_numpy(array[team.rank :: team.size].copy()).to(self.device)
                for array in (batch.prefix, batch.canvas, batch.start, batch.free, batch.weight)
            )
        )
        generator = torch.Generator().manual_seed((seed * 1_000_003 + index) * 64 + team.rank)
        return losses(self.model, tensors, generator, BOS)


def _named(result: Losses) -> dict[str, float]:
    return {
        "causal": float(result.causal),
        "fill": float(result.denoise),
        "frontier": float(result.frontier),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m engine.training.train", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.bin")
    parser.add_argument("--out", type=Path, required=True, help="folder for the state and model")
    parser.add_argument("--tokenizer", type=Path, default=Path("engine/weights/nano"))
    parser.add_argument("--minutes", type=float, required=True, help="training time in all")
    parser.add_argument("--windows", type=int, default=4, help="windows of context in a step")
    parser.add_argument("--context", type=int, default=CONTEXT, help="prefix tokens of a window")
    parser.add_argument("--canvas", type=int, default=64, help="tokens of a canvas")
    parser.add_argument("--save-every", type=float, default=5.0, help="minutes")
    parser.add_argument("--muon-lr", type=float, default=0.02)
    parser.add_argument("--adam-lr", type=float, default=0.004)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device")
    parser.add_argument("--processes", type=int, default=1, help="share each step among so many")
    parser.add_argument(
        "--start-from", type=Path, help="a checkpoint whose weights a new run takes"
    )
    parser.add_argument("--compile", action="store_true", help="fuse what stands beside attention")
    options = Options(**vars(parser.parse_args()))
    if options.processes == 1:
        Run(options, Team(0, 1)).train()
        return
    with tempfile.TemporaryDirectory() as folder:
        meeting = f"file://{folder}/meeting"
        spawn = multiprocessing.spawn  # pyright: ignore[reportPrivateImportUsage]
        spawn(_member, (options, meeting), nprocs=options.processes)


def _member(rank: int, options: Options, meeting: str) -> None:
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // options.processes))
    distributed.init_process_group(
        "gloo", init_method=meeting, rank=rank, world_size=options.processes
    )
    Run(options, Team(rank, options.processes)).train()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
