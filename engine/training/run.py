"""The loop: steps until the budget is spent, saved now and then, gone on with after any end.

A budget counts over all resumptions. The learning rate warms up, holds, and falls to zero over most
of it; a larger budget prolongs a run. What becomes the model is the running average of the weights.
"""

from __future__ import annotations

import contextlib
import json
import math
import signal
import time
from collections.abc import Callable, Generator
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from safetensors.torch import save_file
from torch import Tensor, distributed
from torch.nn.utils import parametrize

from engine.backbones.config import parse_config
from engine.backbones.diffusion_gemma import DiffusionGemma, Layer
from engine.errors import TrainingError
from engine.training.checkpoint import State, load_state, save_model, save_state, saving, write_text
from engine.training.data import Batches
from engine.training.journal import Journal, Record
from engine.training.lora import adapters, attach, merged
from engine.training.muon import MixedOptimizer
from engine.training.nano import new_model, write_like, write_new
from engine.training.recipe import Objective, Rates, Recipe
from engine.training.step import Losses, TensorBatch, losses
from engine.weights.loader import load_model, pick_device, pick_dtype

LARGE = 1_000_000_000
"""Parameters; a model of so many takes minutes to write, and the state suffices to go on."""

FEW_STEPS = 30
"""With fewer a checkpoint stays what it was."""

PARTS = ("masters", "first", "second")


class Team:
    """The processes that train together: each takes its share of a step's windows.

    On a CPU that does other work too, processes of one thread each lose far less than threads
    that wait for each other at every operation.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size

    def average(self, tensors: list[Tensor]) -> None:
        """Averages gradients in place over the team."""
        if self.size == 1:
            return
        flat = torch.cat([t.float().flatten() for t in tensors])
        distributed.all_reduce(flat)
        for tensor, mean in zip(
            tensors, (flat / self.size).split([t.numel() for t in tensors]), strict=True
        ):
            tensor.copy_(mean.view_as(tensor))

    def most(self, *numbers: float) -> list[float]:
        """The largest of each number that any member has, so that all decide alike."""
        if self.size == 1:
            return list(numbers)
        largest = torch.tensor(numbers, dtype=torch.float64)
        distributed.all_reduce(largest, distributed.ReduceOp.MAX)
        return largest.tolist()


def learning_rate(rates: Rates, step: int, done: float) -> float:
    """The share of the full rate at `step`, with the share `done` of the run behind it."""
    warm = min(1.0, (step + 1) / rates.warm_up_steps)
    return warm * min(1.0, max(0.0, 1.0 - done) / rates.decay_share)


class Run:
    """A training run that can be stopped at any moment and gone on with.

    Raises ModelError if its checkpoint can't be read, TrainingError if its state can't.
    """

    def __init__(self, recipe: Recipe, team: Team) -> None:
        self.recipe, self.team = recipe, team
        self.data = recipe.data.open(recipe)
        self.device = pick_device(recipe.run.device)
        self.config = self._config()
        self.model = self._first_model()
        self.optimizer = MixedOptimizer(self.model, recipe.rates.muon, recipe.rates.adam)
        self.average = {n: m.clone() for n, m in self.optimizer.masters.items()}
        self.minutes = 0.0
        self._mark = time.perf_counter()
        self._asked_to_stop = self._stop = False
        with saving(recipe.run.out):
            recipe.run.out.mkdir(parents=True, exist_ok=True)
        state = load_state(recipe.run.out)
        if state is not None:
            self._resume(state)
        if recipe.run.compile:
            for layer in self.model.layers:
                assert isinstance(layer, Layer)
                layer.before = torch.compile(layer.before, dynamic=False)
                layer.after = torch.compile(layer.after, dynamic=False)

    @property
    def steps(self) -> int:
        """Updates made so far."""
        return self.optimizer.steps

    @property
    def done(self) -> float:
        """The share of the budget that is spent; 1 and more at the end."""
        run = self.recipe.run
        by_time = self.minutes / run.minutes if run.minutes else 0.0
        by_steps = self.steps / run.steps if run.steps else 0.0
        return max(by_time, by_steps)

    def train(self) -> bool:
        """Trains until the budget is spent, saving now and then and at the end.

        Ctrl-C or a request to end lets it finish its step and save, and not look at held-back files
        once more. Returns whether it came to the end of its budget. Raises TrainingError if it
        can't save.
        """
        leads = self.team.rank == 0
        console = Console(stderr=True, quiet=not leads)
        with self._stopped_by_signals(console), contextlib.ExitStack() as stack:
            journal = (
                stack.enter_context(Journal(self.recipe.run.out, self.steps)) if leads else None
            )
            bar = stack.enter_context(_progress(console))
            task = bar.add_task("train", total=1.0, note="starting")
            bar.update(task, completed=self.done)

            def looked(batch: int) -> None:
                bar.update(task, note=f"held-back files: {batch} of {self.recipe.run.validation}")

            if journal and self.steps == 0:
                journal.add(self._record(self.validate(looked)))
            bar.update(task, note=f"step {self.steps + 1}")
            saved = self.minutes
            self._mark = time.perf_counter()
            while self.done < 1.0 and not self._stop:
                record = self._record(self.step())
                due = self.minutes - saved >= self.recipe.run.save_every
                if journal:
                    journal.add(record | (self.validate(looked) if due else {}))
                if journal and due:
                    self.save(journal, last=False)
                    saved = self.minutes
                bar.update(task, completed=self.done, note=_note(record))
            over = self.done >= 1.0
            if journal and over:
                journal.add(self._record(self.validate(looked)) | {"final": True})
            if journal:
                bar.update(task, note="saving")
                self.save(journal)
                console.print(journal.table() if over else "stopped; the same command goes on")
            if over and self.recipe.model.start_from is not None and self.steps < FEW_STEPS:
                console.print(
                    f"{self.steps} steps change next to nothing: the same command with more "
                    "--minutes goes on from here; a GPU makes many times the steps"
                )
        return over

    def step(self) -> dict[str, float]:
        """One update of the weights; returns its losses in nats."""
        objective = self.recipe.objective
        own_passes = objective.own_passes if self.done >= objective.own_from else 0
        result = self._losses(
            self.data.training,
            self.steps,
            self.recipe.run.seed + 1,
            self.team,
            objective,
            own_passes,
        )
        result.total.backward()
        self.team.average(
            [p.grad for p in self.optimizer.parameters.values() if p.grad is not None]
        )
        # The slowest member's clock is everybody's, and so is the wish to stop: all end together.
        now = time.perf_counter()
        seconds, stop = self.team.most(now - self._mark, float(self._asked_to_stop))
        self._stop = bool(stop)
        self.minutes += seconds / 60
        self._mark = now
        rates = self.recipe.rates
        rate = learning_rate(rates, self.steps, self.done)
        norm = self.optimizer.step(rate)
        keep = min(1 - 1 / rates.average_over, self.steps / (self.steps + 10))
        for name, master in self.optimizer.masters.items():
            self.average[name].lerp_(master, 1 - keep)
        if not math.isfinite(norm):
            raise FloatingPointError(f"the gradient is {norm} at step {self.steps}")
        return {**_named(result), "rate": rate, "norm": norm}

    @torch.no_grad()
    def validate(self, looked: Callable[[int], None] = lambda _: None) -> dict[str, float]:
        """Losses of the averaged weights on held-back files, always on the same batches.

        Whatever the objective is, all free slots count here, so that figures compare.
        looked: told how many batches have been begun, since each can take seconds.
        """
        parameters = self.optimizer.parameters
        for name, parameter in parameters.items():
            parameter.copy_(self.average[name])
        alone, batches = Team(0, 1), self.recipe.run.validation
        plain = Objective(clamps=self.recipe.objective.clamps)
        each: list[dict[str, float]] = []
        for index in range(batches):
            looked(index + 1)
            each.append(_named(self._losses(self.data.validation, index, 0, alone, plain)))
        for name, parameter in parameters.items():
            parameter.copy_(self.optimizer.masters[name])
        return {
            f"valid_{key}": round(sum(one[key] for one in each) / batches, 4) for key in each[0]
        }

    def save(self, journal: Journal | None = None, last: bool = True) -> None:
        """Writes the whole state, a picture of what the journal has, and the averaged weights as
        a checkpoint in `out`/model: a large one only if it is the last. Raises TrainingError."""
        out = self.recipe.run.out
        state = self.optimizer.state_dict()
        tensors = {f"average.{name}": tensor for name, tensor in self.average.items()}
        for part in PARTS:
            tensors |= {f"{part}.{name}": tensor for name, tensor in state[part].items()}
        save_state(State(tensors, self.steps, self.minutes), out)
        if last or sum(p.numel() for p in self.model.parameters()) < LARGE:
            save_model(self._write_model, self.data.companions, out / "model")
        if journal is not None:
            write_text(journal.curve(), out / "loss.svg")

    def _write_model(self, folder: Path) -> None:
        weights = {name: tensor.cpu() for name, tensor in self.average.items()}
        base = self.recipe.model.start_from
        if base is None:
            write_new(weights, self.config, folder)
        elif self.recipe.lora.rank:
            own, scale = adapters(weights), self.recipe.lora.scale
            write_like(base, lambda name, weight: merged(name, weight, own, scale), folder)
            save_file(own, folder / "adapters.safetensors", {"scale": str(scale)})
        else:
            write_like(base, lambda name, weight: weights.get(name, weight).clone(), folder)

    def _config(self) -> dict[str, Any]:
        """The config.json of a model with new weights."""
        path = self.recipe.model.config
        return self.data.config if path is None else json.loads(path.read_text(encoding="utf-8"))

    def _first_model(self) -> DiffusionGemma:
        """New weights, or those of a checkpoint, without its optimizer's memory."""
        dtype = pick_dtype(self.device)
        base, lora = self.recipe.model.start_from, self.recipe.lora
        if base is not None:
            model = load_model(base, self.device, dtype).requires_grad_()
            if lora.rank:
                attach(model, lora.rank, lora.scale, self.recipe.run.seed)
            return model
        create = self.data.new_model or new_model
        return create(parse_config(self.config), self.recipe.run.seed).to(self.device, dtype)

    def _resume(self, state: State) -> None:
        def part(prefix: str) -> dict[str, Tensor]:
            return {
                name.removeprefix(prefix + "."): tensor.to(self.device)
                for name, tensor in state.tensors.items()
                if name.startswith(prefix + ".")
            }

        masters = part("masters")
        if {n: t.shape for n, t in masters.items()} != {
            n: t.shape for n, t in self.optimizer.masters.items()
        }:
            raise TrainingError(
                f"{self.recipe.run.out} holds a run that trains other weights than this one; "
                "choose another folder"
            )
        self.optimizer.load_state_dict({"steps": state.steps, **{p: part(p) for p in PARTS}})
        self.average = part("average")
        self.minutes = state.minutes

    def _losses(
        self,
        batches: Batches,
        index: int,
        seed: int,
        team: Team,
        objective: Objective,
        own_passes: int = 0,
    ) -> Losses:
        batch = batches.batch(index)
        tensors = TensorBatch(
            *(
                torch.from_numpy(array[team.rank :: team.size].copy()).to(self.device)
                for array in (batch.prefix, batch.canvas, batch.start, batch.free, batch.weight)
            )
        )
        generator = torch.Generator().manual_seed((seed * 1_000_003 + index) * 64 + team.rank)
        with parametrize.cached():  # an adapter is added to its weight once a step
            bos = self.model.config.bos_id
            return losses(self.model, tensors, generator, bos, objective, own_passes)

    def _record(self, losses: dict[str, float]) -> Record:
        return {**losses, "step": self.steps, "minutes": round(self.minutes, 3)}

    @contextlib.contextmanager
    def _stopped_by_signals(self, console: Console) -> Generator[None]:
        """The first Ctrl-C asks it to stop; after that they do what they did before."""

        def ask(number: int, frame: FrameType | None) -> None:
            self._asked_to_stop = True
            console.print("finishing the step, then saving")
            signal.signal(number, before[signal.Signals(number)])

        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.getsignal(number) for number in numbers}
        for number in numbers:
            signal.signal(number, ask)
        try:
            yield
        finally:
            for number in numbers:
                signal.signal(number, before[number])


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.fields[note]}"),
        BarColumn(),
        TextColumn("{task.percentage:.0f}%"),
        TimeElapsedColumn(),
        console=console,
    )


def _note(record: Record) -> str:
    return f"step {record['step']}  causal {record['causal']:.3f}  fill {record['fill']:.3f}"


def _named(result: Losses) -> dict[str, float]:
    return {
        "causal": float(result.causal),
        "fill": float(result.denoise),
        "frontier": float(result.frontier),
    }
