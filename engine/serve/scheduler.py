"""One thread that owns the engine and gives each request one pass at a time.

The running requests take turns: the thread does one `next()` of one of them, then of another, as
engine.serve.turns says, so that a short fill never waits for a long rewrite to end. Loading and
unloading the model happen on the same thread; nothing else ever touches the engine. Whatever
happens, each job ends exactly once: with an Infill, or with an EngineError (Cancelled is one).
"""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal

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
from engine.memory import trim_memory
from engine.serve.resident import Engine, Load, Resident
from engine.serve.turns import Clock, Deliver, Event, Job, Turns
from engine.types import EngineInfo, Frame, Infill, InfillRequest

log = logging.getLogger(__name__)

REST_S = 1.0
"""After so long without work, freed memory goes back to the system: it costs milliseconds, of which
no request should pay."""

State = Literal["unloaded", "loading", "ready", "busy", "stopping"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the scheduler is doing. idle_s: seconds since there was last something to do.

    loaded_s: seconds since the model was loaded; None if it is not.
    loading: what is being done and how much of it is behind us (0 to 1), while the model loads.
    last_error: the line of the last load or pass that failed.
    """

    state: State
    loading: tuple[str, float] | None
    jobs: int
    idle_s: float
    loaded_s: float | None
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
    lost: called once, on the worker thread, when the device is beyond repair: whatever ran has been
        told and nothing is taken any more. The process should end, since only a new one can use the
        device again.
    clock: what deadlines are told by.
    """

    def __init__(
        self,
        load: Load,
        retry_s: float = 5.0,
        lost: Callable[[], None] = lambda: None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._lost = lost
        self._clock = clock
        self._resident = Resident(load, retry_s, self._lose_device)
        self._lock = threading.Lock()  # guards what follows up to the blank line, and `Job.ended`
        self._open: set[Job] = set()
        self._last_work = time.monotonic()
        self._closed = False

        self._inbox: queue.SimpleQueue[Job | _Wish] = queue.SimpleQueue()
        self._waiting: deque[Job] = deque()  # this and what follows: the worker's alone
        self._running = Turns(clock)
        self._unloads: list[_Wish] = []
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
            loading, info, last_error = self._resident.state
            jobs = len(self._open)
            busy = jobs or loading is not None
            state: State = "unloaded"
            if self._closed:
                state = "stopping"
            elif loading is not None:
                state = "loading"
            elif info is not None:
                state = "busy" if jobs else "ready"
            idle_s = 0.0 if busy else time.monotonic() - self._last_work
            loaded_s = self._resident.loaded_s
            return Snapshot(state, loading, jobs, idle_s, loaded_s, info, last_error)

    # ---- the worker thread ----

    def _work(self) -> None:
        while self._take_in():
            if self._unloads and not self._running:
                self._unload()
            if self._waiting and not self._unloads:
                self._begin_waiting()
            if self._running:
                self._one_pass(self._running.take())
        for job in self._running:
            _close(job)
        self._unload()
        while not self._inbox.empty():
            if isinstance(item := self._inbox.get(), _Wish):
                _grant(item)

    def _take_in(self) -> bool:
        """Sorts what has come in; waits for something if there is nothing to do. False: close."""
        block = not (self._waiting or self._running)
        rest_s: float | None = REST_S
        while True:
            try:
                item = self._inbox.get(block, rest_s)
            except queue.Empty:
                if not block:
                    return True
                trim_memory()
                rest_s = None
                continue
            block = False
            if isinstance(item, Job):
                self._waiting.append(item)
            elif item.what == "unload":
                self._unloads.append(item)
            elif item.what == "load":
                self._resident.forget_failure()
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
        if job.deadline <= self._clock():
            self._end(job, _too_late())
            return
        deadline = None if math.isinf(job.deadline) else job.deadline
        try:
            run = engine.stream(job.request, cancelled=lambda: job.ended, deadline=deadline)
        except Exception as error:
            self._fail(job, error)
            return
        with self._lock:
            job.run = run
        self._running.add(job)

    def _one_pass(self, job: Job) -> None:
        """One unit of work of one job, which then goes to the end of the queue or ends."""
        if job.ended or job.run is None:
            _close(job)
            return
        began = self._clock()
        try:
            event = next(job.run)
        except StopIteration:
            self._fail(job, EngineError("the engine ended without a result: please report this"))
            return
        except Exception as error:
            self._fail(job, error)
            return
        self._running.took(self._clock() - began)
        if isinstance(event, Infill):
            self._end(job, event)
            _close(job)
            return
        if event is not None:
            self._show(job, event)
        self._running.add(job)

    def _fail(self, job: Job, error: Exception) -> None:
        _close(job)
        if failures.lost_device(error):
            self._lose_device(error)
            return
        reported = failures.of_a_pass(error)
        if not isinstance(reported, BadRequest | Cancelled | DeadlineExceeded):
            self._resident.note_error(str(reported))
        if isinstance(reported, OutOfMemory):
            failures.forget_frames(error)
            shed = self._resident.shed()
            failures.release_memory()
            if shed and self._begin_again(job):
                return
        self._end(job, reported)

    def _begin_again(self, job: Job) -> bool:
        """Begins a job that found too little memory once more, from its beginning. False: not
        again. What it has shown so far counts for nothing, as any frame does."""
        engine = self._resident.engine
        if job.again or job.ended or engine is None:
            return False
        log.info("freed memory: a request is tried once more")
        job.again = True
        self._begin(job, engine)
        return True

    def _lose_device(self, error: Exception) -> None:
        """Ends everything for good: what the device holds is gone, and this process can't use it
        any more. Whoever asks next starts another one."""
        told = failures.of_a_lost_device(error)
        with self._lock:
            first, self._closed = not self._closed, True
            jobs = list(self._open)
        self._resident.note_error(str(told))
        for job in jobs:
            self._end(job, told)
        if first:
            self._lost()

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
        engine = self._resident.get()
        with self._lock:
            self._last_work = time.monotonic()
        return engine

    def _unload(self) -> None:
        self._resident.unload()
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
