"""Whose turn it is, and how late answers are beside others; time is made by the fake's passes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from scheduling import FRAME, INFILL, INFO, PATIENCE_S, Reader, request

from engine.errors import DeadlineExceeded
from engine.serve.scheduler import Scheduler
from engine.serve.turns import IN_A_ROW, INTERACTIVE_S, Job, Turns
from engine.types import EngineInfo, Frame, Infill, InfillRequest

PASS_S = 0.03


def job(seed: int, budget_s: float | None, deadline: float = float("inf")) -> Job:
    return Job(request(seed, budget_s), lambda event: None, deadline)


def order(turns: Turns, count: int) -> list[int]:
    """Whose turns the next ones are, if nobody ends."""
    taken: list[int] = []
    for _ in range(count):
        one = turns.take()
        taken.append(one.request.seed)
        turns.add(one)
    return taken


def test_those_of_one_kind_go_round() -> None:
    turns = Turns()
    for seed in range(3):
        turns.add(job(seed, None))
    assert order(turns, 6) == [0, 1, 2, 0, 1, 2]


def test_interactive_jobs_go_first_and_the_background_gets_one_turn_in_four() -> None:
    turns = Turns()
    for seed, budget in enumerate([None, 0.5, 30.0, INTERACTIVE_S]):
        turns.add(job(seed, budget))
    assert order(turns, 12) == [1, 3, 1, 0, 3, 1, 3, 2, 1, 3, 1, 0]
    assert IN_A_ROW == 3


def test_what_was_withdrawn_is_left_first() -> None:
    turns = Turns()
    jobs = [job(seed, None) for seed in range(5)]
    for one in jobs:
        turns.add(one)
    jobs[3].ended = True
    assert turns.take() is jobs[3]
    assert len(turns) == 4


def test_who_is_due_goes_first_but_not_for_ever() -> None:
    now = 100.0
    turns = Turns(lambda: now)
    turns.took(PASS_S)
    jobs = [job(0, 0.5), job(1, 0.5, now + 9), job(2, 30.0, now + 0.02), job(3, 30.0, now - 1)]
    for one in jobs:
        turns.add(one)
    # Neither 3 nor 2 ends when it should; after their due turns they wait like any other.
    assert order(turns, 10) == [3, 3, 3, 2, 2, 2, 0, 1, 0, 3]


@dataclass
class Clock:
    """Time that passes when somebody says so."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Timed:
    """Each pass takes PASS_S; a run goes on until no further pass fits before its deadline."""

    clock: Clock
    passes: dict[int, int] = field(default_factory=dict[int, int])
    ended: dict[int, float] = field(default_factory=dict[int, float])
    go: threading.Event = field(default_factory=threading.Event)
    info: EngineInfo = INFO

    def stream(
        self,
        request: InfillRequest,
        cancelled: Callable[[], bool],
        deadline: float | None = None,
    ) -> Iterator[Frame | Infill | None]:
        self.go.wait(PATIENCE_S)
        end = self.clock.now + 90 * PASS_S if deadline is None else deadline
        passes = 0
        while passes == 0 or self.clock.now + PASS_S <= end:
            if self.clock.now >= end:
                self.ended[request.seed] = self.clock.now
                raise DeadlineExceeded("before the first pass")
            self.clock.now += PASS_S
            passes += 1
            self.passes[request.seed] = passes
            yield FRAME
        self.ended[request.seed] = self.clock.now
        yield INFILL


@pytest.mark.parametrize("others", ["none", "background", "interactive", "all at once", "mixed"])
def test_beside_eight_others_an_answer_is_at_most_one_pass_late(
    started: Callable[..., Scheduler], others: str
) -> None:
    clock = Clock()
    engine = Timed(clock)
    scheduler = started(load=lambda progress: engine, clock=clock)
    budgets: dict[str, list[float | None]] = {
        "none": [],
        "background": [None, 30.0] * 4,
        "interactive": [0.4 + 0.05 * n for n in range(8)],
        "all at once": [0.55] * 8,
        "mixed": [None, 0.3, 5.0, 0.55, 30.0, 0.55, 0.8, 1.9],
    }
    asked = [*budgets[others], 0.55]
    readers = [Reader() for _ in asked]
    for seed, (budget, reader) in enumerate(zip(asked, readers, strict=True)):
        scheduler.submit(request(seed, budget), reader, clock.now)
    engine.go.set()  # all are there before the first pass
    for reader in readers:
        assert reader.end() is INFILL
    late = {
        seed: engine.ended[seed] - (1000.0 + budget)
        for seed, budget in enumerate(asked)
        if budget is not None
    }
    assert max(late.values()) <= PASS_S + 1e-9, late
    mine = len(asked) - 1
    # Alone it has all passes that fit; beside the background three of four, and so on.
    least = {"none": 17, "background": 12, "interactive": 2, "all at once": 1, "mixed": 2}
    assert engine.passes[mine] >= least[others]


def test_the_background_gets_on_beside_somebody_who_types(
    started: Callable[..., Scheduler],
) -> None:
    """Suggestions that follow each other without a rest: a rewrite still gets a turn in four."""
    clock = Clock()
    engine = Timed(clock)
    scheduler = started(load=lambda progress: engine, clock=clock)
    rewrite, last = Reader(), Reader()
    scheduler.submit(request(0, 30.0), rewrite, clock.now)
    readers = [*(Reader() for _ in range(6)), last]
    for seed, reader in enumerate(readers, start=1):
        scheduler.submit(request(seed, 1.5), reader, clock.now)
    engine.go.set()
    for reader in readers:
        assert reader.end() is INFILL
    by_then = round((max(engine.ended[seed] for seed in range(1, 8)) - 1000.0) / PASS_S)
    theirs = sum(engine.passes[seed] for seed in range(1, 8))
    assert by_then - theirs >= by_then // 4 - 2
    assert rewrite.end() is INFILL
