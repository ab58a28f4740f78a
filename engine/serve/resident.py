"""The model in memory: loaded when it is needed, told of when it can't be, given up on demand."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

import engine.serve.failures as failures
from engine.errors import ModelError, describe
from engine.types import EngineInfo, Frame, Infill, InfillRequest

log = logging.getLogger(__name__)

Progress = Callable[[str, float], None]


class Engine(Protocol):
    """What the scheduler needs of `engine.engine.InfillEngine`."""

    @property
    def info(self) -> EngineInfo: ...

    def stream(
        self,
        request: InfillRequest,
        cancelled: Callable[[], bool],
        deadline: float | None = None,
    ) -> Iterator[Frame | Infill | None]:
        """Each `next()` is one unit of work; None is a unit with nothing to show.

        deadline: when the result must be there, on the monotonic clock; None if there is no hurry.
        It goes before the request's `budget_s`, which counts from the request's arrival. A `next()`
        at which no further pass fits in ends the run with what it has, without a pass.
        """
        ...


@runtime_checkable
class Sheds(Protocol):
    """An engine that can do with less memory."""

    def shed(self) -> None:
        """Lets go of all that it keeps between requests only to be faster."""
        ...


Load = Callable[[Progress], Engine]


class Resident:
    """The engine, or why there is none. Its methods are the worker thread's alone; the properties
    may be read on any thread.

    load: makes the engine; may raise ModelError.
    retry_s: for so many seconds after a failed load its error is the answer.
    lost: called with the error if loading finds that the device is beyond repair.
    """

    def __init__(self, load: Load, retry_s: float, lost: Callable[[Exception], None]) -> None:
        self._load, self._retry_s, self._lost = load, retry_s, lost
        self._lock = threading.Lock()  # guards what follows up to the blank line
        self._loading: tuple[str, float] | None = None
        self._info: EngineInfo | None = None
        self._last_error: str | None = None
        self._loaded_at = math.inf

        self.engine: Engine | None = None
        self._failure: ModelError | None = None
        self._failed_at = -math.inf

    @property
    def state(self) -> tuple[tuple[str, float] | None, EngineInfo | None, str | None]:
        """What is being loaded and how much of it is done; what is loaded; the last error."""
        with self._lock:
            return self._loading, self._info, self._last_error

    @property
    def loaded_s(self) -> float | None:
        """For how many seconds there has been a model; None if there is none."""
        with self._lock:
            return None if self._info is None else time.monotonic() - self._loaded_at

    def get(self) -> Engine | ModelError:
        """The engine, loaded if need be, or why it can't be."""
        if self.engine is not None:
            return self.engine
        fresh = time.monotonic() - self._failed_at < self._retry_s
        if self._failure is not None and fresh:
            return self._failure
        self._note_progress("starting", 0.0)
        failure: ModelError | None = None
        info: EngineInfo | None = None
        try:
            engine = self._load(self._note_progress)
            info = engine.info
            self.engine = engine
        except Exception as error:
            failure = failures.of_loading(error)
            if failures.lost_device(error):
                self._lost(error)
            failures.forget_frames(error)
        with self._lock:
            self._loading = None
            self._last_error = None if failure is None else str(failure)
            self._info = info
            self._loaded_at = time.monotonic()
        self._failure, self._failed_at = failure, time.monotonic()
        if failure is not None:
            failures.release_memory()
            log.error("the model can't be loaded: %s", failure)
            return failure
        assert self.engine is not None
        assert info is not None
        log.info("loaded %s on %s", info.model, info.device)
        return self.engine

    def forget_failure(self) -> None:
        """Has the next `get` try again, however short ago loading failed."""
        self._failure = None

    def note_error(self, line: str) -> None:
        """Remembers how a pass failed."""
        with self._lock:
            self._last_error = line

    def shed(self) -> bool:
        """Has the engine let go of what it can do without; whether it could."""
        if not isinstance(self.engine, Sheds):
            return False
        try:
            self.engine.shed()
        except Exception as error:
            log.warning("the engine's caches can't be freed: %s", describe(error))
            return False
        return True

    def unload(self) -> None:
        """Frees the model's memory, if there is one."""
        if self.engine is None:
            return
        self.engine = None
        with self._lock:
            self._info = None
            self._last_error = None  # of a model that is gone
        failures.release_memory()
        log.info("unloaded the model")

    def _note_progress(self, what: str, fraction: float) -> None:
        with self._lock:
            self._loading = (what, min(max(fraction, 0.0), 1.0))
