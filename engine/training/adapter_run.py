"""The training of an adapter: the loop of engine.training.loop over engine.training.packed.

Processes share a step's windows and average gradients; or each makes steps of its own and weights
are averaged now and then ([run] average_every), which costs next to nothing where a step is short
and what joins the processes is slow (local SGD, arXiv 1805.09767).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, distributed
from torch.utils.data import DataLoader, Dataset

from engine.errors import TrainingError
from engine.training.adapter import EXTRAS, AdapterModel, Tokens, load_adapter_model, serving
from engine.training.checkpoint import State, load_state, saving
from engine.training.data import Batches, Opened
from engine.training.journal import Record
from engine.training.loop import Loop, Team, learning_rate
from engine.training.nano import write_like
from engine.training.packed import END, FIRST, MASK, Packed, Windows, nats, pack
from engine.training.recipe import Recipe
from engine.weights.dense import ADAPTER, adapter_state
from engine.weights.loader import pick_device, pick_dtype

LOSSES = {"token": "token", "first": "first of a hole", "end": "end", "mask": "behind a mask"}

EXTRAS_FASTER = 3.0
"""How much faster what is no matrix learns: the mask's embedding and the end's row."""

BETAS = (0.9, 0.98)

PARTS = ("masters", "average", "first", "second")


class AdapterRun(Loop):
    """A run that trains the adapter of a model.

    Raises ModelError if the model can't be read, TrainingError if it can't be trained so, or the
    state of the run can't be read.
    """

    losses = LOSSES
    noted = ("token", "end", "mask")

    def __init__(self, recipe: Recipe, team: Team) -> None:
        super().__init__(recipe, team)
        self.folder = recipe.model.start_from
        if self.folder is None or recipe.run.compile:
            raise TrainingError(
                "an adapter needs a model, [model] start_from, and is trained without [run] compile"
            )
        self.data: Opened[Windows] = recipe.data.open(recipe)
        self.device = pick_device(recipe.run.device)
        self.model = self._first_model()
        self.trained = self.model.trained
        self.average = {name: tensor.detach().clone() for name, tensor in self.trained.items()}
        rates, extras = recipe.rates, [self.trained[name] for name in EXTRAS]
        matrices = [tensor for name, tensor in self.trained.items() if name not in EXTRAS]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices}, {"params": extras}],
            rates.adam,
            BETAS,
            weight_decay=0.0,
            fused=True,
        )
        self._steps = 0
        with saving(recipe.run.out):
            recipe.run.out.mkdir(parents=True, exist_ok=True)
        state = load_state(recipe.run.out)
        if state is not None:
            self._resume(state)
        self._alone = team.size == 1 or recipe.run.average_every is not None
        self._met, self._met_at = self._steps, time.monotonic()
        self._tokens = serving(self.folder).tokens
        self._ahead = self._batches()

    @property
    def steps(self) -> int:
        """Updates made so far."""
        return self._steps

    @property
    def companions(self) -> Path:
        """See Loop."""
        return self.data.companions

    def step(self) -> Record:
        """One update of the adapter; returns its losses in nats."""
        batch = next(self._ahead).to(self.device)
        each = nats(self.model, batch)
        loss = (each * batch.weight).sum() / batch.weight.sum()
        loss.backward()
        if not self._alone:
            self.team.average([t.grad for t in self.trained.values() if t.grad is not None])
            self._clocked(time.perf_counter())
        rates = self.recipe.rates
        rate = learning_rate(rates, self._steps, self.done)
        for group, faster in zip(self.optimizer.param_groups, (1.0, EXTRAS_FASTER), strict=True):
            group["lr"] = rates.adam * rate * faster
        norm = float(torch.nn.utils.clip_grad_norm_(self.trained.values(), 1.0))
        if not math.isfinite(norm):
            raise FloatingPointError(f"the gradient is {norm} at step {self._steps}")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._steps += 1
        keep = min(1 - 1 / rates.average_over, self._steps / (self._steps + 1))
        with torch.no_grad():
            means = [self.average[name] for name in self.trained]
            weights = list(self.trained.values())
            torch._foreach_lerp_(means, weights, 1 - keep)  # pyright: ignore
        if self._alone:
            self._go_on_alone()
        return {"loss": float(loss.detach()), **_told([(each.detach(), batch.tag)]), "rate": rate}

    @torch.no_grad()
    def validate(self, looked: Callable[[int], None] = lambda _: None) -> Record:
        """See Loop: the mean over all predictions of a kind in the same windows."""
        own = {name: tensor.clone() for name, tensor in self.trained.items()}
        self._set(self.average)
        each: list[tuple[Tensor, Tensor]] = []
        for index in range(self.recipe.run.validation):
            looked(index + 1)
            rng = np.random.default_rng([0, index, 1])
            batch = pack(self.data.validation.batch(index), self._tokens, rng).to(self.device)
            each.append((nats(self.model, batch), batch.tag))
        self._set(own)
        return {f"valid_{key}": round(value, 4) for key, value in _told(each).items()}

    def tensors(self) -> dict[str, Tensor]:
        """See Loop: `masters.NAME`, their running `average`, and the optimizer's moments."""
        names = {id(tensor): name for name, tensor in self.trained.items()}
        held = {f"masters.{name}": tensor.detach() for name, tensor in self.trained.items()}
        held |= {f"average.{name}": tensor for name, tensor in self.average.items()}
        for tensor, state in self.optimizer.state.items():
            held[f"first.{names[id(tensor)]}"] = state["exp_avg"]
            held[f"second.{names[id(tensor)]}"] = state["exp_avg_sq"]
        return held

    def write_model(self, folder: Path) -> None:
        """See Loop: the adapter in bfloat16, beside which stands what names its base. A base that
        is a folder of its own is written, too."""
        own = adapter_state(self.model.adapter(self.average))
        scale = own.pop("scale")
        half = {name: tensor.to("cpu", torch.bfloat16) for name, tensor in own.items()}
        save_file({"scale": scale, **half}, folder / ADAPTER, {"format": "pt"})
        if not (self.companions / "base.json").is_file():
            write_like(self.companions, lambda _, tensor: tensor, folder)

    def _first_model(self) -> AdapterModel:
        recipe, device = self.recipe, self.device
        assert self.folder is not None
        return load_adapter_model(
            self.folder,
            device,
            pick_dtype(device),
            recipe.lora.rank,
            recipe.lora.scale,
            recipe.run.seed,
            recipe.model.fresh,
        )

    def _batches(self) -> Iterator[Packed]:
        """What the steps to come are made of, from the next one on."""
        team = self.team
        share = (team.rank, team.size) if not self._alone else (0, 1)
        steps = _Steps(self.data.training, self._tokens, share, self.recipe.run.seed)

        def numbers() -> Iterator[int]:
            workers = self.recipe.run.workers
            ahead = self._steps
            while True:
                # Workers are asked ahead of the steps; without them the number is the step's own,
                # which a team's meeting may have moved on.
                number = ahead if workers else self._steps
                yield number * team.size + team.rank if self._alone else number
                ahead += 1

        loader: DataLoader[Packed] = DataLoader(
            steps,
            batch_size=None,
            sampler=cast("Any", _Endless(numbers)),
            num_workers=self.recipe.run.workers,
            prefetch_factor=4 if self.recipe.run.workers else None,
            pin_memory=self.device.type == "cuda",
        )
        return iter(loader)

    @torch.no_grad()
    def _set(self, values: dict[str, Tensor]) -> None:
        for name, tensor in self.trained.items():
            tensor.copy_(values[name])

    def _go_on_alone(self) -> None:
        """Counts a step's time, and meets the others when that is due, or it is the last one."""
        if self.team.size == 1:
            self._clocked(time.perf_counter())
            return
        now = time.perf_counter()
        self.minutes += (now - self._mark) / 60
        self._mark = now
        due = time.monotonic() - self._met_at >= (self.recipe.run.average_every or 0)
        if due or self._asked_to_stop or self.done >= 1:
            self._meet()

    @torch.no_grad()
    def _meet(self) -> None:
        """Averages weights over the team, by the steps that each has made, and agrees on the rest:
        nobody sees a batch again, and all end together."""
        made = float(self._steps - self._met) + 1e-6
        flat = torch.cat([t.float().cpu().flatten() for t in self.trained.values()]) * made
        total = torch.tensor([made])
        distributed.all_reduce(flat)
        distributed.all_reduce(total)
        sizes = [tensor.numel() for tensor in self.trained.values()]
        means = (flat / total).split(sizes)
        for tensor, mean in zip(self.trained.values(), means, strict=True):
            tensor.copy_(mean.view_as(tensor))
        steps, self.minutes, stop = self.team.most(
            self._steps, self.minutes, float(self._asked_to_stop)
        )
        self._steps, self._stop = int(steps), bool(stop)
        self._met, self._met_at = self._steps, time.monotonic()

    def _resume(self, state: State) -> None:
        held = {
            part: {
                name.removeprefix(f"{part}."): tensor.to(self.device)
                for name, tensor in state.tensors.items()
                if name.startswith(f"{part}.")
            }
            for part in PARTS
        }
        shapes = {name: tensor.shape for name, tensor in self.trained.items()}
        if {name: tensor.shape for name, tensor in held["masters"].items()} != shapes:
            raise TrainingError(
                f"{self.recipe.run.out} holds a run that trains another adapter than this one; "
                "choose another folder"
            )
        self._set(held["masters"])
        self.average = held["average"]
        self._steps, self.minutes = state.steps, state.minutes
        for name, tensor in self.trained.items():
            if name in held["first"]:
                self.optimizer.state[tensor] = {
                    "step": torch.tensor(float(state.steps), device=self.device),
                    "exp_avg": held["first"][name],
                    "exp_avg_sq": held["second"][name],
                }


class _Steps(Dataset[Packed]):
    """A member's share of each batch, packed: by (rank, size), of a batch's windows."""

    def __init__(
        self,
        batches: Batches[Windows],
        tokens: Tokens,
        share: tuple[int, int],
        seed: int,
    ) -> None:
        self._batches, self._tokens, self._share, self._seed = batches, tokens, share, seed

    def __getitem__(self, index: int) -> Packed:
        rank, size = self._share
        rng = np.random.default_rng([self._seed, index, rank, 1])
        return pack(self._batches.batch(index)[rank::size], self._tokens, rng)


class _Endless:
    """The numbers of batches as a sampler."""

    def __init__(self, numbers: Callable[[], Iterator[int]]) -> None:
        self._numbers = numbers

    def __iter__(self) -> Iterator[int]:
        return self._numbers()


def _told(each: list[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Mean losses of the kinds of LOSSES, from the loss [P] and the tag [P] of each batch."""
    loss, tag = (torch.cat(parts) for parts in zip(*each, strict=True))
    chosen = {"token": tag < END, "first": tag == FIRST, "end": tag == END, "mask": tag == MASK}
    return {key: float(loss[rows].mean()) for key, rows in chosen.items() if rows.any()}
