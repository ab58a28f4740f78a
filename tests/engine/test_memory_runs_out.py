"""A pass that finds no memory, with real engines on the scheduler's real thread: the request is
answered by what is left, or told in one line, and the next one works."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import torch
from scheduling import PATIENCE_S, Reader

from engine.attention import batch
from engine.engine import InfillEngine
from engine.errors import OutOfMemory
from engine.serve.scheduler import Scheduler
from engine.types import Fixed, Hole, Infill, InfillRequest
from tests.engine.tiny import tiny_dense_engine, tiny_engine

ENGINES: dict[str, Callable[[], InfillEngine]] = {
    "canvases": lambda: tiny_engine(seed=1),
    "from the left": lambda: tiny_dense_engine(seed=1),
}
ERRORS = {
    "device": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "host": MemoryError(),
    "allocator": RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: ..."),
}
LONG = InfillRequest((Fixed("a = 1\n" * 9), Hole(max_tokens=8), Fixed("\nb = 2\n")))
SHORT = InfillRequest((Fixed("a = 1\n"), Hole(max_tokens=4), Fixed("\n")))


class Memory:
    """Lets passes find none: those of these numbers, counted from 1, or those of more rows."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
        self.passes, self.failing, self.rows = 0, range(0), 1 << 30
        forward = batch.forward

        def failing(model: object, spans: list[object]) -> object:
            self.passes += 1
            if self.passes in self.failing or sum(map(len, spans)) > self.rows:  # type: ignore[arg-type]
                raise error
            return forward(model, spans)  # type: ignore[arg-type]

        monkeypatch.setattr(batch, "forward", failing)


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> InfillEngine:
    return ENGINES[request.param]()


@pytest.fixture
def scheduler(engine: InfillEngine) -> Iterator[Scheduler]:
    made = Scheduler(lambda progress: engine)
    yield made
    assert made.close(wait_s=PATIENCE_S)


def asked(scheduler: Scheduler, request: InfillRequest) -> Reader:
    reader = Reader()
    scheduler.submit(request, reader, time.monotonic())
    return reader


@pytest.mark.parametrize(
    ("error", "number"), [("device", 1), ("device", 3), ("host", 2), ("allocator", 2)]
)
def test_a_pass_without_memory_is_made_up_for(
    error: str,
    number: int,
    engine: InfillEngine,
    scheduler: Scheduler,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = engine.fill(LONG)
    engine.shed()
    engine.pass_seconds = 0.0
    memory = Memory(monkeypatch, ERRORS[error])
    memory.failing = range(number, number + 1)
    found = asked(scheduler, LONG).end()
    assert isinstance(found, Infill)
    assert memory.passes > number
    assert found.holes == expected.holes, "what was lost is nothing that shows"


@pytest.mark.parametrize("error", ERRORS)
def test_where_there_is_never_enough_it_is_said_in_one_line_and_the_next_request_works(
    error: str, engine: InfillEngine, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = engine.fill(SHORT)
    engine.shed()
    memory = Memory(monkeypatch, ERRORS[error])
    memory.failing = range(1, 1 << 30)
    found = asked(scheduler, LONG).end()
    assert isinstance(found, OutOfMemory)
    assert str(found).startswith("the request doesn't fit into memory: ")
    assert len(str(found).splitlines()) == 1
    assert "a = 1" not in str(found)
    memory.failing = range(0)
    after = asked(scheduler, SHORT).end()
    assert isinstance(after, Infill)
    assert after.holes == expected.holes
    assert all(cache.users == 0 for cache in engine.store.caches)


def test_what_is_too_large_together_runs_one_after_the_other(
    engine: InfillEngine, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [InfillRequest(SHORT.template, seed=seed) for seed in range(4)]
    expected = [engine.fill(one).holes for one in requests]
    engine.shed()
    memory = Memory(monkeypatch, ERRORS["device"])
    memory.rows = 48
    readers = [asked(scheduler, one) for one in requests]
    found = [reader.end() for reader in readers]
    assert [one.holes for one in found if isinstance(one, Infill)] == expected
