"""The scheduler with a fake engine on its real thread: loading and unloading the model."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable

import pytest
from scheduling import INFILL, INFO, PATIENCE_S, FakeEngine, OutOfMemoryError, submit

from engine.errors import Cancelled, ModelError, OutOfMemory
from engine.serve.resident import Progress
from engine.serve.scheduler import Scheduler


def test_a_failed_load_is_told_and_tried_again(
    started: Callable[..., Scheduler], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr("engine.serve.resident.time.monotonic", lambda: now)
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
    now += 0.25
    assert isinstance(submit(scheduler)[1].end(), ModelError)
    scheduler.load().result(PATIENCE_S)  # does not wait for retry_s
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


def test_progress_of_loading_is_seen(started: Callable[..., Scheduler]) -> None:
    halfway, may_go = threading.Event(), threading.Event()

    def load(progress: Progress) -> FakeEngine:
        progress("reading", 0.5)
        halfway.set()
        may_go.wait(PATIENCE_S)
        return FakeEngine()

    scheduler = started(load=load)
    assert scheduler.snapshot().state == "unloaded"
    loaded = scheduler.load()
    assert halfway.wait(PATIENCE_S)
    now = scheduler.snapshot()
    assert (now.state, now.loading, now.idle_s) == ("loading", ("reading", 0.5), 0.0)
    job, reader = submit(scheduler)
    scheduler.cancel(job)
    assert isinstance(reader.end(), Cancelled), "loading does not hold up a cancel"
    may_go.set()
    loaded.result(PATIENCE_S)
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
    in_step.wait(PATIENCE_S)
    unloaded = scheduler.unload()
    _, second = submit(scheduler, 1)
    assert scheduler.snapshot().state == "busy"
    assert not unloaded.done()
    gate.set()
    unloaded.result(PATIENCE_S)
    assert first.end() is INFILL
    assert second.end() is INFILL
    gc.collect()
    assert len(made) == 2
    assert made[0]() is None
