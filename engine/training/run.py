"""The training of a whole DiffusionGemma, or of low-rank adapters that are merged into it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.utils import parametrize

from engine.backbones.config import parse_config
from engine.backbones.diffusion_gemma import DiffusionGemma, Layer
from engine.errors import TrainingError
from engine.training.checkpoint import State, load_state, saving
from engine.training.data import Batch, Batches, Opened
from engine.training.journal import LOSSES
from engine.training.loop import Loop, Team, learning_rate
from engine.training.lora import adapters, attach, merged
from engine.training.muon import MixedOptimizer
from engine.training.nano import new_model, write_like, write_new
from engine.training.recipe import Objective, Recipe
from engine.training.step import Losses, TensorBatch, losses
from engine.weights.loader import load_model, pick_device, pick_dtype

LARGE = 1_000_000_000
"""Parameters; a model of so many takes minutes to write, and the state suffices to go on."""

PARTS = ("masters", "first", "second")


class Run(Loop):
    """A run that trains a model.

    Raises ModelError if its checkpoint can't be read, TrainingError if its state can't.
    """

    losses = LOSSES
    noted = ("causal", "fill")

    def __init__(self, recipe: Recipe, team: Team) -> None:
        super().__init__(recipe, team)
        self.data: Opened[Batch] = recipe.data.open(recipe)
        self.device = pick_device(recipe.run.device)
        self.config = self._config()
        self.model = self._first_model()
        self.optimizer = MixedOptimizer(self.model, recipe.rates.muon, recipe.rates.adam)
        self.average = {n: m.clone() for n, m in self.optimizer.masters.items()}
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
        self._clocked(time.perf_counter())
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

    def tensors(self) -> dict[str, Tensor]:
        """See Loop."""
        state = self.optimizer.state_dict()
        tensors = {f"average.{name}": tensor for name, tensor in self.average.items()}
        for part in PARTS:
            tensors |= {f"{part}.{name}": tensor for name, tensor in state[part].items()}
        return tensors

    @property
    def companions(self) -> Path:
        """See Loop."""
        return self.data.companions

    @property
    def large(self) -> bool:
        """See Loop."""
        return sum(p.numel() for p in self.model.parameters()) >= LARGE

    def write_model(self, folder: Path) -> None:
        """See Loop."""
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
        batches: Batches[Batch],
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


def _named(result: Losses) -> dict[str, float]:
    return {
        "causal": float(result.causal),
        "fill": float(result.denoise),
        "frontier": float(result.frontier),
    }
