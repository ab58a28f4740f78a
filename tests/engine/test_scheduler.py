"""The scheduler with a fake engine on its real thread: turns, deadlines, ends."""

from __future__ import annotations

import logging
import queue
import time
import weakref
from collections.abc import Callable, Iterator
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scheduling import (
    ENDS,
    INFILL,
    PATIENCE_S,
    STEPS,
    FakeEngine,
    OutOfMemoryError,
    Reader,
    request,
    submit,
)

from engine.errors import (
    Cancelled,
    DeadlineExceeded,
    EngineError,
    EngineUnavailable,
    ModelError,
    OutOfMemory,
)
from engine.serve.resident import Progress
from engine.serve.scheduler import Scheduler
from engine.serve.turns import Event, Job
from engine.types import Frame, Infill, InfillRequest
from tests.cases import cases

SCRIPT = st.lists(st.sampled_from(sorted(STEPS.keys() - {"lost"})), max_size=6)
ACTION = st.one_of(
    st.tuples(st.just("submit"), st.sampled_from([None, None, 60.0, 0.0])),
    st.tuples(st.sampled_from(["cancel", "expire"]), st.integers(0, 7)),
    st.tuples(st.sampled_from(["load", "unload", "pause", "close"]), st.none()),
)


@pytest.fixture(autouse=True, scope="module")
def no_garbage_collection() -> Iterator[None]:
    """Collecting the garbage of a whole test process takes longer than a case."""
    with mock.patch("engine.serve.failures.gc.collect"):
        yield


@cases(500)
@given(
    scripts=st.lists(SCRIPT, min_size=8, max_size=8),
    actions=st.lists(ACTION, max_size=24),
    loads=st.lists(st.booleans(), max_size=4),
)
def test_every_job_ends_exactly_once(
    scripts: list[list[str]], actions: list[tuple[str, object]], loads: list[bool]
) -> None:
    engine = FakeEngine(scripts)
    outcomes = iter(loads)

    def load(progress: Progress) -> FakeEngine:
        progress("reading", 0.5)
        if not next(outcomes, True):
            raise ModelError("broken")
        return engine

    scheduler = Scheduler(load, retry_s=0.0)
    jobs: list[tuple[Job, Reader]] = []
    withdrawn: set[int] = set()
    closed = False
    for what, value in actions:
        if what == "submit" and len(jobs) < len(scripts):
            try:
                jobs.append(submit(scheduler, len(jobs), value))  # type: ignore[arg-type]
            except EngineUnavailable:
                assert closed
        elif what in ("cancel", "expire") and value < len(jobs):  # type: ignore[operator]
            getattr(scheduler, what)(jobs[value][0])  # type: ignore[index]
            withdrawn.add(value)  # type: ignore[arg-type]
        elif what in ("load", "unload"):
            getattr(scheduler, what)()
        elif what == "pause":
            time.sleep(0.0005)
        elif what == "close":
            closed = True
            scheduler.close(wait_s=0)
    ends = [reader.end() for _, reader in jobs]
    assert scheduler.close(wait_s=PATIENCE_S)

    for seed, ((_, reader), end) in enumerate(zip(jobs, ends, strict=True)):
        assert sum(not isinstance(event, Frame) for event in reader.events) == 1
        assert reader.events[-1] is end
        frames = len(reader.events) - 1
        assert frames <= scripts[seed].count("frame")
        asked_for = (Cancelled, DeadlineExceeded, EngineUnavailable)
        if seed in withdrawn and isinstance(end, asked_for):
            continue
        if isinstance(end, DeadlineExceeded):
            assert jobs[seed][0].request.budget_s == 0.0
        elif isinstance(end, EngineUnavailable):
            assert closed
        elif not (isinstance(end, ModelError) and str(end) == "broken"):
            last = next((step for step in scripts[seed] if step in ENDS), "bug")
            assert isinstance(end, ENDS[last])
    assert scheduler.snapshot().jobs == 0
    begun = [request.seed for request in engine.begun]
    # A generator that was never advanced has nothing to leave.
    assert sorted(engine.left) == sorted(set(engine.left))
    assert set(engine.left) <= set(begun)
    assert set(engine.turns) <= set(engine.left)


def test_a_short_request_does_not_wait_for_a_long_one(started: Callable[..., Scheduler]) -> None:
    engine = FakeEngine([["frame"] * 50 + ["infill"], ["frame", "infill"], ["frame", "infill"]])
    scheduler = started(engine)
    engine.may_go.clear()
    readers = [submit(scheduler, seed)[1] for seed in range(3)]
    engine.in_step.wait(PATIENCE_S)
    engine.may_go.set()
    for reader in readers:
        assert reader.end() is INFILL
    assert engine.turns[1:7] == [1, 2, 0, 1, 2, 0] or engine.turns[:6] == [0, 1, 2, 0, 1, 2]
    assert engine.turns[-40:] == [0] * 40


def test_waiting_counts_against_the_budget(started: Callable[..., Scheduler]) -> None:
    engine = FakeEngine()
    now = time.monotonic()
    _, reader = submit(started(engine), budget_s=60.0, waited_s=20.0)
    assert reader.end() is INFILL
    (deadline,) = engine.deadlines
    assert deadline is not None
    assert now + 39 < deadline <= now + 41, "counted from when it came in, by an absolute time"


def test_a_deadline_that_passed_while_queued(started: Callable[..., Scheduler]) -> None:
    engine = FakeEngine()
    engine.may_go.clear()
    scheduler = started(engine)
    _, first = submit(scheduler, 0)
    engine.in_step.wait(PATIENCE_S)
    late, told = submit(scheduler, 1, budget_s=0.01)
    scheduler.expire(late)
    assert isinstance(told.end(), DeadlineExceeded)
    _, noticed = submit(scheduler, 2, budget_s=0.01)
    time.sleep(0.02)
    engine.may_go.set()
    assert isinstance(noticed.end(), DeadlineExceeded)
    assert first.end() is INFILL
    assert [request.seed for request in engine.begun] == [0]


def test_a_running_job_is_not_expired_from_outside(started: Callable[..., Scheduler]) -> None:
    engine = FakeEngine()
    engine.may_go.clear()
    scheduler = started(engine)
    job, reader = submit(scheduler, budget_s=60.0)
    engine.in_step.wait(PATIENCE_S)
    scheduler.expire(job)
    engine.may_go.set()
    assert reader.end() is INFILL


def test_cancel_ends_at_once_and_the_engine_stops_within_a_pass(
    started: Callable[..., Scheduler],
) -> None:
    engine = FakeEngine([["frame"] * 1_000_000])
    scheduler = started(engine)
    job, reader = submit(scheduler)
    while not reader.events:
        time.sleep(0.001)
    engine.may_go.clear()
    scheduler.cancel(job)
    assert isinstance(reader.end(), Cancelled)
    passes = len(engine.turns)
    engine.may_go.set()
    assert submit(scheduler, 1)[1].end() is INFILL
    assert engine.turns.count(0) <= passes + 1
    assert engine.left[0] == 0


def test_foreign_errors_of_a_pass_say_nothing_of_the_document(
    started: Callable[..., Scheduler], caplog: pytest.LogCaptureFixture
) -> None:
    scheduler = started(FakeEngine([["bug"], ["frame", "device memory"], []]))
    with caplog.at_level(logging.DEBUG):
        bug = submit(scheduler, 0)[1].end()
        full = submit(scheduler, 1)[1].end()
        unfinished = submit(scheduler, 2)[1].end()
    assert type(bug) is EngineError
    assert "ValueError at scheduling.py:" in str(bug)
    assert isinstance(full, OutOfMemory)
    assert "without a result" in str(unfinished)
    assert "secret" not in caplog.text + str(bug)
    assert submit(scheduler, 5)[1].end() is INFILL, "the worker lives"


def test_out_of_memory_frees_what_the_pass_held(started: Callable[..., Scheduler]) -> None:
    class Tensor:
        pass

    held: list[weakref.ref[Tensor]] = []

    class Greedy(FakeEngine):
        def stream(
            self,
            request: InfillRequest,
            cancelled: Callable[[], bool],
            deadline: float | None = None,
        ) -> Iterator[Frame | Infill | None]:
            tensor = Tensor()
            held.append(weakref.ref(tensor))
            yield None
            raise OutOfMemoryError

    reader = submit(started(Greedy()))[1]
    assert isinstance(reader.end(), OutOfMemory)
    assert held[0]() is None


def test_a_reader_that_fails_hurts_nobody(started: Callable[..., Scheduler]) -> None:
    def broken(event: Event) -> None:
        raise RuntimeError("event loop is closed")

    scheduler = started()
    scheduler.submit(request(), broken, time.monotonic())
    assert submit(scheduler, 1)[1].end() is INFILL
    assert scheduler.snapshot().jobs == 0


def test_close_ends_everything(started: Callable[..., Scheduler]) -> None:
    engine = FakeEngine()
    engine.may_go.clear()
    scheduler = started(engine)
    readers = [submit(scheduler, seed)[1] for seed in range(3)]
    engine.in_step.wait(PATIENCE_S)
    assert not scheduler.close(wait_s=0)
    assert {type(reader.end()) for reader in readers} == {EngineUnavailable}
    assert scheduler.snapshot().state == "stopping"
    with pytest.raises(EngineUnavailable):
        submit(scheduler)
    engine.may_go.set()
    assert scheduler.close(wait_s=PATIENCE_S)
    scheduler.unload().result(PATIENCE_S)
    assert all(len(reader.events) == 1 for reader in readers)


def test_freed_memory_goes_back_once_there_is_nothing_to_do() -> None:
    given = queue.SimpleQueue[bool]()

    def trimmed() -> None:
        given.put(True)

    with (
        mock.patch("engine.serve.scheduler.REST_S", 0.01),
        mock.patch("engine.serve.scheduler.trim_memory", trimmed),
    ):
        scheduler = Scheduler(lambda progress: FakeEngine())
        given.get(timeout=PATIENCE_S)
        for _ in range(2):
            _, reader = submit(scheduler)
            assert isinstance(reader.end(), Infill)
            given.get(timeout=PATIENCE_S)
        assert scheduler.close(PATIENCE_S)
        assert given.empty(), "once, not again and again"
