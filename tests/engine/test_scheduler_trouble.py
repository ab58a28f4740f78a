"""The scheduler when memory or the device fails, with a fake engine on its real thread."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest
from scheduling import FRAME, INFILL, PATIENCE_S, FakeEngine, OutOfMemoryError, submit

from engine.errors import EngineUnavailable, OutOfMemory
from engine.serve.resident import Progress
from engine.serve.scheduler import Scheduler
from engine.types import Frame, Infill, InfillRequest


class Frugal(FakeEngine):
    """Finds no memory until it has shed its caches so many times; remembers the order of it all."""

    def __init__(self, needs: int) -> None:
        super().__init__()
        self.needs, self.log = needs, list[str]()

    def shed(self) -> None:
        self.log.append("shed")

    def stream(
        self,
        request: InfillRequest,
        cancelled: Callable[[], bool],
        deadline: float | None = None,
    ) -> Iterator[Frame | Infill | None]:
        self.deadlines.append(deadline)
        try:
            self.log.append("begun")
            yield FRAME
            if self.log.count("shed") < self.needs:
                raise OutOfMemoryError("CUDA out of memory")
            yield INFILL
        finally:
            self.log.append("left")


def test_without_memory_caches_are_shed_and_the_request_is_tried_once_more(
    started: Callable[..., Scheduler],
) -> None:
    engine = Frugal(needs=1)
    _, reader = submit(started(engine), budget_s=60.0)
    assert reader.end() is INFILL
    assert engine.log == ["begun", "left", "shed", "begun", "left"]
    assert len(set(engine.deadlines)) == 1, "the second try has no more time"
    assert reader.events == [FRAME, FRAME, INFILL]


def test_it_is_tried_no_third_time(started: Callable[..., Scheduler]) -> None:
    engine = Frugal(needs=3)
    scheduler = started(engine)
    assert isinstance(submit(scheduler)[1].end(), OutOfMemory)
    assert engine.log.count("begun") == 2
    assert engine.log.count("shed") == 2, "what the second try held is freed, too"
    assert submit(scheduler)[1].end() is INFILL, "the next request has a try and another one"


def test_an_engine_that_sheds_nothing_is_not_asked_again(
    started: Callable[..., Scheduler],
) -> None:
    engine = FakeEngine([["device memory"]])
    assert isinstance(submit(started(engine))[1].end(), OutOfMemory)
    assert len(engine.begun) == 1


def test_shedding_that_fails_is_no_second_failure(started: Callable[..., Scheduler]) -> None:
    class Stubborn(Frugal):
        def shed(self) -> None:
            raise RuntimeError("no")

    assert isinstance(submit(started(Stubborn(needs=1)))[1].end(), OutOfMemory)


def test_a_lost_device_ends_all_that_runs_and_nothing_begins(
    started: Callable[..., Scheduler], caplog: pytest.LogCaptureFixture
) -> None:
    lost: list[bool] = []
    engine = FakeEngine([["frame"] * 10_000, ["frame", "lost"], ["frame"] * 10_000])
    engine.may_go.clear()
    scheduler = started(engine, lost=lambda: lost.append(True))
    with caplog.at_level(logging.DEBUG):
        readers = [submit(scheduler, seed)[1] for seed in range(3)]
        engine.may_go.set()
        ends = [reader.end() for reader in readers]
    assert {type(end) for end in ends} == {EngineUnavailable}
    assert all("the device failed (RuntimeError at scheduling.py:" in str(end) for end in ends)
    assert all("ask again to start another one" in str(end) for end in ends)
    assert lost == [True]
    assert scheduler.snapshot().state == "stopping"
    with pytest.raises(EngineUnavailable, match="ask again"):
        submit(scheduler, 3)
    assert scheduler.close(wait_s=PATIENCE_S)
    assert sorted(engine.left) == [0, 1, 2]
    assert "secret" not in caplog.text + "".join(map(str, ends))


def test_a_device_that_is_lost_while_loading(started: Callable[..., Scheduler]) -> None:
    lost: list[bool] = []

    def load(progress: Progress) -> FakeEngine:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    scheduler = started(load=load, lost=lambda: lost.append(True))
    assert isinstance(submit(scheduler)[1].end(), EngineUnavailable)
    assert lost == [True]
