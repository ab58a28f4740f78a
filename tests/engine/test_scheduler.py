"""The scheduler with a fake engine on its real thread: turns, deadlines, ends, loading."""

from __future__ import annotations

import gc
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import (
    BadRequest,
    Cancelled,
    DeadlineExceeded,
    EngineError,
    EngineUnavailable,
    ModelError,
    OutOfMemory,
)
from engine.scheduler import Event, Job, Progress, Scheduler
from engine.types import EngineInfo, Fixed, Frame, Hole, Infill, InfillRequest, Piece

INFO = EngineInfo("fake", "cpu", "float32", 1, 16, 128, ("fill",))
FRAME = Frame(1, 1, ((Piece("x", 1.0),),), 0.0, 1.0)
INFILL = Infill("x", ("x",), 1, 1, "settled", 1.0, {})


class OutOfMemoryError(RuntimeError):
    """Named as torch's is."""


STEPS: dict[str, Event | Exception | None] = {
    "frame": FRAME,
    "nothing": None,
    "infill": INFILL,
    "bad": BadRequest("no"),
    "bug": ValueError("a secret of the document"),
    "memory": MemoryError(),
    "device memory": OutOfMemoryError("CUDA out of memory"),
}
ENDS = {
    "infill": Infill,
    "bad": BadRequest,
    "bug": EngineError,
    "memory": OutOfMemory,
    "device memory": OutOfMemory,
}


class FakeEngine:
    """Runs a script per request, found by its seed; can be held before each step."""

    info = INFO

    def __init__(self, scripts: Sequence[Sequence[str]] = (), default: Sequence[str] = ()) -> None:
        self.scripts = scripts
        self.default = default or ("frame", "infill")
        self.turns: list[int] = []
        self.begun: list[InfillRequest] = []
        self.left: list[int] = []
        self.may_go = threading.Event()
        self.may_go.set()
        self.in_step = threading.Event()

    def stream(
        self, request: InfillRequest, cancelled: Callable[[], bool]
    ) -> Iterator[Frame | Infill | None]:
        self.begun.append(request)
        script = self.scripts[request.seed] if request.seed < len(self.scripts) else self.default
        try:
            for step in script:
                self.in_step.set()
                self.may_go.wait(10)
                self.turns.append(request.seed)
                if cancelled():
                    raise Cancelled("noticed")
                outcome = STEPS[step]
                if isinstance(outcome, Exception):
                    raise outcome
                yield outcome  # type: ignore[misc]
        finally:
            self.left.append(request.seed)


class Reader:
    """Takes the events of one job."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.over = threading.Event()

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if not isinstance(event, Frame):
            self.over.set()

    def end(self) -> Event:
        assert self.over.wait(10), "the job did not end"
        return self.events[-1]


def request(seed: int = 0, budget_s: float | None = None) -> InfillRequest:
    return InfillRequest((Fixed("a"), Hole()), budget_s=budget_s, seed=seed)


def submit(
    scheduler: Scheduler, seed: int = 0, budget_s: float | None = None, waited_s: float = 0.0
) -> tuple[Job, Reader]:
    reader = Reader()
    return scheduler.submit(request(seed, budget_s), reader, time.monotonic() - waited_s), reader


@pytest.fixture
def started() -> Iterator[Callable[..., Scheduler]]:
    made: list[Scheduler] = []

    def start(engine: FakeEngine | None = None, **options: object) -> Scheduler:
        load = options.pop("load", None) or (lambda progress: engine or FakeEngine())
        made.append(Scheduler(load, **options))  # type: ignore[arg-type]
        return made[-1]

    yield start
    for scheduler in made:
        assert scheduler.close(wait_s=5)


SCRIPT = st.lists(st.sampled_from(sorted(STEPS)), max_size=6)
ACTION = st.one_of(
    st.tuples(st.just("submit"), st.sampled_from([None, None, 60.0, 0.0])),
    st.tuples(st.sampled_from(["cancel", "expire"]), st.integers(0, 7)),
    st.tuples(st.sampled_from(["load", "unload", "pause", "close"]), st.none()),
)


@pytest.fixture(autouse=True, scope="module")
def no_garbage_collection() -> Iterator[None]:
    """Collecting the garbage of a whole test process takes longer than a case."""
    with mock.patch("engine.failures.gc.collect"):
        yield


@settings(max_examples=500, deadline=None)
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
    assert scheduler.close(wait_s=5)

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
    engine.in_step.wait(5)
    engine.may_go.set()
    for reader in readers:
        assert reader.end() is INFILL
    assert engine.turns[1:7] == [1, 2, 0, 1, 2, 0] or engine.turns[:6] == [0, 1, 2, 0, 1, 2]
    assert engine.turns[-40:] == [0] * 40


def test_waiting_counts_against_the_budget(started: Callable[..., Scheduler]) -> None:
    engine = FakeEngine()
    _, reader = submit(started(engine), budget_s=60.0, waited_s=20.0)
    assert reader.end() is INFILL
    left = engine.begun[0].budget_s
    assert left is not None
    assert 30 < left <= 40


def test_a_deadline_that_passed_while_queued(started: Callable[..., Scheduler]) -> None:
    engine = FakeEngine()
    engine.may_go.clear()
    scheduler = started(engine)
    _, first = submit(scheduler, 0)
    engine.in_step.wait(5)
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
    engine.in_step.wait(5)
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


def test_a_failed_load_is_told_and_tried_again(started: Callable[..., Scheduler]) -> None:
    attempts: list[bool] = []

    def load(progress: Progress) -> FakeEngine:
        attempts.append(True)
        if len(attempts) < 3:
            raise ModelError("no model at /there")
        return FakeEngine()

    scheduler = started(load=load, retry_s=0.2)
    readers = [submit(scheduler, seed)[1] for seed in range(4)]
    assert {str(reader.end()) for reader in readers} == {"no model at /there"}
    assert len(attempts) == 1, "one attempt serves all who ask within retry_s"
    assert scheduler.snapshot().last_error == "no model at /there"
    time.sleep(0.25)
    assert isinstance(submit(scheduler)[1].end(), ModelError)
    scheduler.load().result(5)  # does not wait for retry_s
    assert submit(scheduler)[1].end() is INFILL
    assert len(attempts) == 3
    assert scheduler.snapshot().last_error is None


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (MemoryError(), OutOfMemory, "doesn't fit"),
        (OutOfMemoryError("CUDA"), OutOfMemory, "doesn't fit"),
        (FileNotFoundError("weights.bin"), ModelError, "FileNotFoundError: weights.bin"),
    ],
)
def test_foreign_errors_of_a_load(
    started: Callable[..., Scheduler], error: Exception, kind: type[ModelError], words: str
) -> None:
    def load(progress: Progress) -> FakeEngine:
        raise error

    end = submit(started(load=load))[1].end()
    assert type(end) is kind
    assert words in str(end)
    assert "\n" not in str(end)


def test_foreign_errors_of_a_pass_say_nothing_of_the_document(
    started: Callable[..., Scheduler], caplog: pytest.LogCaptureFixture
) -> None:
    scheduler = started(FakeEngine([["bug"], ["frame", "device memory"], []]))
    with caplog.at_level(logging.DEBUG):
        bug = submit(scheduler, 0)[1].end()
        full = submit(scheduler, 1)[1].end()
        unfinished = submit(scheduler, 2)[1].end()
    assert type(bug) is EngineError
    assert "ValueError at test_scheduler.py:" in str(bug)
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
            self, request: InfillRequest, cancelled: Callable[[], bool]
        ) -> Iterator[Frame | Infill | None]:
            tensor = Tensor()
            held.append(weakref.ref(tensor))
            yield None
            raise OutOfMemoryError

    reader = submit(started(Greedy()))[1]
    assert isinstance(reader.end(), OutOfMemory)
    assert held[0]() is None


def test_progress_of_loading_is_seen(started: Callable[..., Scheduler]) -> None:
    halfway, may_go = threading.Event(), threading.Event()

    def load(progress: Progress) -> FakeEngine:
        progress("reading", 0.5)
        halfway.set()
        may_go.wait(5)
        return FakeEngine()

    scheduler = started(load=load)
    assert scheduler.snapshot().state == "unloaded"
    loaded = scheduler.load()
    assert halfway.wait(5)
    now = scheduler.snapshot()
    assert (now.state, now.loading, now.idle_s) == ("loading", ("reading", 0.5), 0.0)
    job, reader = submit(scheduler)
    scheduler.cancel(job)
    assert isinstance(reader.end(), Cancelled), "loading does not hold up a cancel"
    may_go.set()
    loaded.result(5)
    now = scheduler.snapshot()
    assert (now.state, now.loading, now.info) == ("ready", None, INFO)


def test_unload_waits_for_what_runs_and_frees_the_engine(
    started: Callable[..., Scheduler],
) -> None:
    made: list[weakref.ref[FakeEngine]] = []
    gate, in_step = threading.Event(), threading.Event()

    def load(progress: Progress) -> FakeEngine:
        engine = FakeEngine()
        engine.may_go, engine.in_step = gate, in_step
        made.append(weakref.ref(engine))
        return engine

    scheduler = started(load=load)
    _, first = submit(scheduler, 0)
    in_step.wait(5)
    unloaded = scheduler.unload()
    _, second = submit(scheduler, 1)
    assert scheduler.snapshot().state == "busy"
    assert not unloaded.done()
    gate.set()
    unloaded.result(5)
    assert first.end() is INFILL
    assert second.end() is INFILL
    gc.collect()
    assert len(made) == 2
    assert made[0]() is None


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
    engine.in_step.wait(5)
    assert not scheduler.close(wait_s=0)
    assert {type(reader.end()) for reader in readers} == {EngineUnavailable}
    assert scheduler.snapshot().state == "stopping"
    with pytest.raises(EngineUnavailable):
        submit(scheduler)
    engine.may_go.set()
    assert scheduler.close(wait_s=5)
    scheduler.unload().result(1)
    assert all(len(reader.events) == 1 for reader in readers)
