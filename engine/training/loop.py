"""The loop: steps until the budget is spent, saved now and then, gone on with after any end.

A budget counts over all resumptions. The learning rate warms up, holds, and falls to zero over most
of it; a larger budget prolongs a run. What becomes the model is the running average of the weights.

What a step is, and what is trained, is a subclass': engine.training.run trains all of a model,
engine.training.adapter_run the adapter of one.
"""

from __future__ import annotations

import contextlib
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from pathlib import Path
from types import FrameType
from typing import ClassVar

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor, distributed

from engine.training.checkpoint import State, save_model, save_state, write_text
from engine.training.journal import Journal, Record
from engine.training.recipe import Rates, Recipe

FEW_STEPS = 30
"""With fewer a checkpoint stays what it was."""


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
    if rates.warm_up_share:
        warm = min(warm, max(done, 1e-3) / rates.warm_up_share)
    return warm * min(1.0, max(0.0, 1.0 - done) / rates.decay_share)


class Loop(ABC):
    """A training run that can be stopped at any moment and gone on with."""

    losses: ClassVar[dict[str, str]]
    """What is measured, by the keys of a record, with the names that people read."""

    noted: ClassVar[tuple[str, ...]]
    """Those beside the bar."""

    def __init__(self, recipe: Recipe, team: Team) -> None:
        self.recipe, self.team = recipe, team
        self.minutes = 0.0
        self._mark = time.perf_counter()
        self._asked_to_stop = self._stop = False

    @property
    @abstractmethod
    def steps(self) -> int:
        """Updates made so far."""

    @abstractmethod
    def step(self) -> Record:
        """One update of the weights; returns its losses in nats."""

    @abstractmethod
    def validate(self, looked: Callable[[int], None] = lambda _: None) -> Record:
        """Losses of the averaged weights on held-back data, always on the same batches.

        looked: told how many batches have been begun, since each can take seconds.
        """

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """All that a run needs to go on, beside its numbers."""

    @abstractmethod
    def write_model(self, folder: Path) -> None:
        """Writes the averaged weights as a checkpoint into an empty folder."""

    @property
    @abstractmethod
    def companions(self) -> Path:
        """Where the tokenizer is, and what else stands beside the weights."""

    @property
    def large(self) -> bool:
        """Whether a model takes minutes to write, so that the state has to suffice to go on."""
        return False

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
            journal = None
            if leads:
                journal = Journal(self.recipe.run.out, self.steps, self.losses)
                stack.enter_context(journal)
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
                bar.update(task, completed=self.done, note=self._note(record))
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

    def save(self, journal: Journal | None = None, last: bool = True) -> None:
        """Writes the whole state, a picture of what the journal has, and the averaged weights as
        a checkpoint in `out`/model: a large one only if it is the last. Raises TrainingError."""
        out = self.recipe.run.out
        save_state(State(self.tensors(), self.steps, self.minutes), out)
        if last or not self.large:
            save_model(self.write_model, self.companions, out / "model")
        if journal is not None:
            write_text(journal.curve(), out / "loss.svg")

    def _record(self, losses: Record) -> Record:
        return {**losses, "step": self.steps, "minutes": round(self.minutes, 3)}

    def _note(self, record: Record) -> str:
        parts = [f"{key} {record[key]:.3f}" for key in self.noted if key in record]
        return "  ".join([f"step {record['step']}", *parts])

    def _clocked(self, now: float) -> None:
        """Counts the time since the last step. The slowest member's clock is everybody's, and so is
        the wish to stop: all end together."""
        seconds, stop = self.team.most(now - self._mark, float(self._asked_to_stop))
        self._stop = bool(stop)
        self.minutes += seconds / 60
        self._mark = now

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
