"""One thread that owns the engine and gives each request one pass at a time.

Requests join and leave at every pass: the thread goes round the running ones and does one `next()`
of each, so that a short fill never waits for a long rewrite to end. Loading and unloading the model
happen on the same thread; nothing else ever touches the engine. Whatever happens, each job ends
exactly once: with an Infill, or with an EngineError (Cancelled is one).
"""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import engine.serve.failures as failures
from engine.errors import (
    BadRequest,
    Cancelled,
    DeadlineExceeded,
    EngineError,
    EngineUnavailable,
    ModelError,
    OutOfMemory,
    describe,
)
from engine.types import EngineInfo, Frame, Infill, InfillRequest

log = logging.getLogger(__name__)

Event = Frame | Infill | EngineError
Deliver = Callable[[Event], None]
Progress = Callable[[str, float], None]
State = Literal["unloaded", "loading", "ready", "busy", "stopping"]


class Engine(Protocol):
    """What the scheduler needs of `engine.engine.InfillEngine`."""

    @property
    def info(self) -> EngineInfo: ...

    def stream(
        self, request: InfillRequest, cancelled: Callable[[], bool]
    ) -> Iterator[Frame | Infill | None]:
        """Each `next()` is one unit of work; None is a unit with nothing to show."""
        ...


Load = Callable[[Progress], Engine]


@dataclass(eq=False, slots=True)
class Job:
    """One request on its way through the scheduler; made by `Scheduler.submit`."""

    request: InfillRequest
    deliver: Deliver
    deadline: float  # on the monotonic clock; infinity if there is none
    ended: bool = False
    run: Iterator[Frame | Infill | None] | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the scheduler is doing. idle_s: seconds since there was last something to do.

    loading: what is being done and how much of it is behind us (0 to 1), while the model loads.
    last_error: the line of the last load or pass that failed.
    """

    state: State
    loading: tuple[str, float] | None
    jobs: int
    idle_s: float
    info: EngineInfo | None
    last_error: str | None


@dataclass(slots=True)
class _Wish:
    """Something asked of the thread that is not a job."""

    what: Literal["load", "unload", "close"]
    done: Future[None] = field(default_factory=Future[None])


class Scheduler:
    """Owns the engine. Its public methods may be called from any thread and return at once.

    load: makes the engine; called on the worker thread, may raise ModelError.
    retry_s: for so many seconds after a failed load, requests get its error without a new attempt.
    """

    def __init__(self, load: Load, retry_s: float = 5.0) -> None:
        self._load_engine = load
        self._retry_s = retry_s
        self._lock = threading.Lock()  # guards what follows up to the blank line, and `Job.ended`
        self._open: set[Job] = set()
        self._loading: tuple[str, float] | None = None
        self._info: EngineInfo | None = None
        self._last_error: str | None = None
        self._last_work = time.monotonic()
        self._closed = False

        self._inbox: queue.SimpleQueue[Job | _Wish] = queue.SimpleQueue()
        self._engine: Engine | None = None  # this and what follows: the worker's alone
        self._waiting: deque[Job] = deque()
        self._running: deque[Job] = deque()
        self._unloads: list[_Wish] = []
        self._load_failure: ModelError | None = None
        self._load_failed_at = -math.inf
        self._worker = threading.Thread(target=self._work, name="engine", daemon=True)
        self._worker.start()

    def submit(self, request: InfillRequest, deliver: Deliver, received: float) -> Job:
        """Queues a request; its events go to `deliver`, the last of them an Infill or an error.

        deliver: called on any thread, with a lock held: it must be quick and not call back.
        received: when the request came in (time.monotonic), from which its budget counts.
        Raises EngineUnavailable once the scheduler is closed.
        """
        budget = math.inf if request.budget_s is None else request.budget_s
        job = Job(request, deliver, received + budget)
        with self._lock:
            if self._closed:
                raise EngineUnavailable("the engine is stopping: ask again")
            self._open.add(job)
        self._inbox.put(job)
        return job

    def cancel(self, job: Job) -> None:
        """Ends the job as Cancelled; the worker leaves it before its next pass."""
        self._end(job, Cancelled("withdrawn"))

    def expire(self, job: Job) -> None:
        """To be called at the deadline: ends a job that has not begun. A running one sees to it."""
        with self._lock:
            begun = job.run is not None
        if not begun:
            self._end(job, _too_late())

    def load(self) -> Future[None]:
        """Loads the model unless it is loaded, now even if an attempt has just failed.

        The future ends when the attempt has; whether it succeeded is in the snapshot.
        """
        with self._lock:
            self._last_work = time.monotonic()
        return self._wish("load")

    def unload(self) -> Future[None]:
        """Frees the model once what is running has ended; what comes later loads it again."""
        return self._wish("unload")

    def close(self, wait_s: float = 1.0) -> bool:
        """Ends all jobs and the thread. False if the thread is still in a pass after `wait_s`."""
        with self._lock:
            self._closed = True
            jobs = list(self._open)
        for job in jobs:
            self._end(job, EngineUnavailable("the engine was stopped: ask again to start it"))
        self._wish("close")
        self._worker.join(wait_s)
        return not self._worker.is_alive()

    def snapshot(self) -> Snapshot:
        """What is going on right now."""
        with self._lock:
            jobs = len(self._open)
            busy = jobs or self._loading is not None
            state: State = "unloaded"
            if self._closed:
                state = "stopping"
            elif self._loading is not None:
                state = "loading"
            elif self._info is not None:
                state = "busy" if jobs else "ready"
            idle_s = 0.0 if busy else time.monotonic() - self._last_work
            return Snapshot(state, self._loading, jobs, idle_s, self._info, self._last_error)

    # ---- the worker thread ----

    def _work(self) -> None:
        while self._take_in():
            if self._unloads and not self._running:
                self._unload_engine()
            if self._waiting and not self._unloads:
                self._begin_waiting()
            if self._running:
                self._one_pass(self._running.popleft())
        for job in self._running:
            _close(job)
        self._unload_engine()
        while not self._inbox.empty():
            if isinstance(item := self._inbox.get(), _Wish):
                _grant(item)

    def _take_in(self) -> bool:
        """Sorts what has come in; waits for something if there is nothing to do. False: close."""
        block = not (self._waiting or self._running)
        while True:
            try:
                item = self._inbox.get(block)
            except queue.Empty:
                return True
            block = False
            if isinstance(item, Job):
                self._waiting.append(item)
            elif item.what == "unload":
                self._unloads.append(item)
            elif item.what == "load":
                self._load_failure = None
                self._engine_or_error()
                _grant(item)
            else:
                _grant(item)
                return False

    def _begin_waiting(self) -> None:
        if all(job.ended for job in self._waiting):
            self._waiting.clear()
            return
        engine = self._engine_or_error()
        while self._waiting:
            job = self._waiting.popleft()
            if isinstance(engine, EngineError):
                self._end(job, engine)
            else:
                self._begin(job, engine)

    def _begin(self, job: Job, engine: Engine) -> None:
        left = job.deadline - time.monotonic()
        if left <= 0:
            self._end(job, _too_late())
            return
        request = replace(job.request, budget_s=None if math.isinf(left) else left)
        try:
            run = engine.stream(request, cancelled=lambda: job.ended)
        except Exception as error:
            self._fail(job, error)
            return
        with self._lock:
            job.run = run
        self._running.append(job)

    def _one_pass(self, job: Job) -> None:
        """One unit of work of one job, which then goes to the end of the queue or ends."""
        if job.ended or job.run is None:
            _close(job)
            return
        try:
            event = next(job.run)
        except StopIteration:
            self._fail(job, EngineError("the engine ended without a result: please report this"))
            return
        except Exception as error:
            self._fail(job, error)
            return
        if isinstance(event, Infill):
            self._end(job, event)
            _close(job)
            return
        if event is not None:
            self._show(job, event)
        self._running.append(job)

    def _fail(self, job: Job, error: Exception) -> None:
        _close(job)
        reported = failures.of_a_pass(error)
        if not isinstance(reported, BadRequest | Cancelled | DeadlineExceeded):
            with self._lock:
                self._last_error = str(reported)
        if isinstance(reported, OutOfMemory):
            failures.forget_frames(error)
            failures.release_memory()
        self._end(job, reported)

    def _show(self, job: Job, frame: Frame) -> None:
        with self._lock:
            if not job.ended:
                _hand_over(job, frame)

    def _end(self, job: Job, outcome: Infill | EngineError) -> None:
        """The only place where a job ends; the second call for the same job does nothing."""
        with self._lock:
            if job.ended:
                return
            job.ended = True
            self._open.discard(job)
            self._last_work = time.monotonic()
            _hand_over(job, outcome)

    # ---- the model ----

    def _engine_or_error(self) -> Engine | ModelError:
        """The engine, loaded if need be; a failure counts for `retry_s` before the next attempt."""
        if self._engine is not None:
            return self._engine
        fresh_failure = time.monotonic() - self._load_failed_at < self._retry_s
        if self._load_failure is not None and fresh_failure:
            return self._load_failure
        self._note_progress("starting", 0.0)
        failure: ModelError | None = None
        info: EngineInfo | None = None
        try:
            engine = self._load_engine(self._note_progress)
            info = engine.info
            self._engine = engine
        except Exception as error:
            failure = failures.of_loading(error)
            failures.forget_frames(error)
        with self._lock:
            self._loading = None
            self._last_work = time.monotonic()
            self._last_error = None if failure is None else str(failure)
            self._info = info
        self._load_failure, self._load_failed_at = failure, time.monotonic()
        if failure is not None:
            failures.release_memory()
            log.error("the model can't be loaded: %s", failure)
            return failure
        assert self._engine is not None
        assert info is not None
        log.info("loaded %s on %s", info.model, info.device)
        return self._engine

    def _note_progress(self, what: str, fraction: float) -> None:
        with self._lock:
            self._loading = (what, min(max(fraction, 0.0), 1.0))

    def _unload_engine(self) -> None:
        if self._engine is not None:
            self._engine = None
            with self._lock:
                self._info = None
                self._last_error = None  # of a model that is gone
            failures.release_memory()
            log.info("unloaded the model")
        for wish in self._unloads:
            _grant(wish)
        self._unloads.clear()

    def _wish(self, what: Literal["load", "unload", "close"]) -> Future[None]:
        wish = _Wish(what)
        self._inbox.put(wish)
        if not self._worker.is_alive():
            _grant(wish)
        return wish.done


def _grant(wish: _Wish) -> None:
    # Whoever wished may have stopped waiting, which cancels the future.
    if not wish.done.done() and wish.done.set_running_or_notify_cancel():
        wish.done.set_result(None)


def _hand_over(job: Job, event: Event) -> None:
    try:
        job.deliver(event)
    except Exception as error:
        # Whoever asked is gone (its event loop is closed); the job has ended all the same.
        log.warning("nobody took a %s: %s", type(event).__name__, type(error).__name__)


def _close(job: Job) -> None:
    """Lets the engine's generator clean up now, not when the collector comes by."""
    close = getattr(job.run, "close", None)
    if close is None:
        return
    try:
        close()
    except Exception as error:
        log.warning("leaving a request failed: %s", describe(error))


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded("the time was up before the engine got to it: ask again in a moment")
