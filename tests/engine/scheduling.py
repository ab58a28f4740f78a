"""What tests of the scheduler share: a fake engine that runs scripts, and a reader."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

from engine.errors import (
    BadRequest,
    Cancelled,
    EngineError,
    OutOfMemory,
)
from engine.serve.scheduler import Scheduler
from engine.serve.turns import Event, Job
from engine.types import EngineInfo, Fixed, Frame, Hole, Infill, InfillRequest, Piece

INFO = EngineInfo("fake", "cpu", "float32", 1, 16, 128, ("fill",))
FRAME = Frame(1, 1, ((Piece("x", 1.0),),), 0.0)
INFILL = Infill("x", ("x",), 1, 1, "settled", 1.0, {})


PATIENCE_S = 60.0
"""So long a thread may take for what takes it no time; only what is broken takes so long."""


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
    "lost": RuntimeError("CUDA error: device-side assert triggered, a secret of the document"),
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
        self.deadlines: list[float | None] = []
        self.left: list[int] = []
        self.may_go = threading.Event()
        self.may_go.set()
        self.in_step = threading.Event()

    def stream(
        self,
        request: InfillRequest,
        cancelled: Callable[[], bool],
        deadline: float | None = None,
    ) -> Iterator[Frame | Infill | None]:
        self.begun.append(request)
        self.deadlines.append(deadline)
        script = self.scripts[request.seed] if request.seed < len(self.scripts) else self.default
        try:
            for step in script:
                self.in_step.set()
                self.may_go.wait(PATIENCE_S)
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
        assert self.over.wait(PATIENCE_S), "the job did not end"
        return self.events[-1]


def request(seed: int = 0, budget_s: float | None = None) -> InfillRequest:
    return InfillRequest((Fixed("a"), Hole()), budget_s=budget_s, seed=seed)


def submit(
    scheduler: Scheduler, seed: int = 0, budget_s: float | None = None, waited_s: float = 0.0
) -> tuple[Job, Reader]:
    reader = Reader()
    return scheduler.submit(request(seed, budget_s), reader, time.monotonic() - waited_s), reader
