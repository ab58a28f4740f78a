"""Whose turn it is: the order in which running jobs get their passes.

Three rules, the first that applies:

1. A job whose deadline would pass while another one works is due. It may finish with what it has,
   which takes no pass, so that its answer is at most one pass late, however many others run.
2. Interactive jobs (with little time, such as suggestions while typing) go round before background
   jobs (rewrites, evaluations),
3. but of four turns in a row the background gets at least one.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from engine.errors import EngineError
from engine.types import Frame, Infill, InfillRequest

Event = Frame | Infill | EngineError
Deliver = Callable[[Event], None]
Clock = Callable[[], float]

INTERACTIVE_S = 2.0
"""A request that has so little time in all is somebody who types."""

IN_A_ROW = 3
"""So many turns interactive jobs may have while one of the background waits."""

_DUE_TURNS = 3
"""So many turns a job gets for being due: one may still go into a pass, one into ending. After them
it waits like any other, so that no job that ignores its deadline holds up the rest."""

_FADE = 0.9
"""How fast a slow pass is forgotten, for each faster one."""


@dataclass(eq=False, slots=True)
class Job:
    """One request on its way through the scheduler; made by `Scheduler.submit`.

    deadline: on the monotonic clock; infinity if there is none.
    due_turns: turns that it got because its deadline was near.
    again: whether it was begun a second time.
    """

    request: InfillRequest
    deliver: Deliver
    deadline: float
    ended: bool = False
    run: Iterator[Frame | Infill | None] | None = None
    due_turns: int = 0
    again: bool = False

    @property
    def interactive(self) -> bool:
        """Whether somebody waits for it with the hands on the keyboard."""
        return self.request.budget_s is not None and self.request.budget_s <= INTERACTIVE_S


class Turns:
    """The jobs that run. Not thread-safe: the scheduler's thread has it for itself."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._interactive: deque[Job] = deque()
        self._background: deque[Job] = deque()
        self._in_a_row = 0  # interactive turns since the background's last one
        self._unit = 0.0  # seconds that a turn may take

    def __len__(self) -> int:
        return len(self._interactive) + len(self._background)

    def __iter__(self) -> Iterator[Job]:
        yield from self._interactive
        yield from self._background

    def add(self, job: Job) -> None:
        """Queues a job, behind those of its kind."""
        self._queue_of(job).append(job)

    def take(self) -> Job:
        """Takes out the job whose turn it is; there must be one."""
        job = self._ended() or self._due()
        if job is not None:
            self._queue_of(job).remove(job)
            return job
        if self._interactive and (not self._background or self._in_a_row < IN_A_ROW):
            self._in_a_row += 1
            return self._interactive.popleft()
        self._in_a_row = 0
        return self._background.popleft()

    def took(self, seconds: float) -> None:
        """Learns how long a turn takes: slower ones at once, faster ones by and by."""
        self._unit = max(seconds, self._unit * _FADE)

    def _queue_of(self, job: Job) -> deque[Job]:
        return self._interactive if job.interactive else self._background

    def _ended(self) -> Job | None:
        """A job that was withdrawn: leaving it takes no time and frees what it holds."""
        return next((job for job in self if job.ended), None)

    def _due(self) -> Job | None:
        """The job that has to finish now; of several the one whose deadline is first."""
        horizon = self._clock() + self._unit
        due = [job for job in self if job.deadline <= horizon and job.due_turns < _DUE_TURNS]
        if not due:
            return None
        job = min(due, key=lambda one: one.deadline)
        job.due_turns += 1
        return job
