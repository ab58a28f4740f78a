"""One client's session: its settings, its documents, the engine, and what is in flight.

A request that needs the engine is a `Flight`. It ends exactly once: with what the engine made, at
its deadline with the best that there was by then, because something ended it, or by an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import replace
from typing import Any, NamedTuple, Protocol, TypeVar

from diffgemma_lsp.documents import Documents
from diffgemma_lsp.logs import describe
from diffgemma_lsp.neighbours import Neighbours
from diffgemma_lsp.proto import Encoding
from diffgemma_lsp.settings import Settings
from engine.errors import Cancelled, DeadlineExceeded, EngineError
from engine.types import Frame, Infill, InfillRequest

logger = logging.getLogger(__name__)

# Kept back from the time that the engine gets, for the way of its answer to the client.
RETURN_S = 0.04
# Kept back when the server stops waiting for an engine that is late.
LATE_S = 0.01
# How long the end of a session may wait for others.
CLOSE_S = 0.5

T = TypeVar("T")
ToUser = Callable[[str], None]


class Engine(Protocol):
    """What a session uses of the engine's client. Cancelling the reader of a stream cancels it."""

    def stream(self, request: InfillRequest) -> AsyncGenerator[Frame | Infill]: ...

    async def status(self) -> dict[str, Any] | None: ...

    async def warm_up(self) -> None: ...

    async def aclose(self) -> None: ...


MakeEngine = Callable[[Settings], Engine]


class Suggestion(NamedTuple):
    """What a run came to: a text, and how sure the model is of it, from 0 to 1."""

    text: str
    confidence: float


class Nothing(Exception):
    """There is nothing to show, and no error; the text says why."""


class Flight:
    """One request on its way, and the one place where it can be ended early."""

    def __init__(self, uri: str, invoked: bool, deadline: float) -> None:
        self.uri = uri
        self.invoked = invoked
        self.deadline = deadline
        self.over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.answer: asyncio.Task[Any] | None = None

    def end(self, reason: str) -> None:
        """Has the request answered at once, with nothing; its run is cancelled."""
        if not self.over.done():
            self.over.set_result(reason)

    @property
    def left_s(self) -> float:
        """The seconds until the deadline."""
        return self.deadline - time.monotonic()


class Session:
    """The state behind one client. Lives on one event loop."""

    def __init__(self, make_engine: MakeEngine, to_user: ToUser) -> None:
        self.settings = Settings()
        self.encoding: Encoding = "utf-16"
        self.documents = Documents()
        self.last_reason: str | None = None
        self.last_error: EngineError | None = None
        self._make_engine = make_engine
        self._to_user = to_user
        self._engine: asyncio.Future[Engine] | None = None
        self._flights: set[Flight] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self.neighbours = Neighbours(self.spawn)

    # ---- flights ----

    def begin(self, uri: str, invoked: bool, deadline: float) -> Flight:
        """A new flight. It ends the older ones of its document; invoked ones only if invoked."""
        for older in self._flights:
            if older.uri == uri and (invoked or not older.invoked):
                older.end("a newer request took its place")
        flight = Flight(uri, invoked, deadline)
        self._flights.add(flight)
        return flight

    def answer(self, flight: Flight, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """The task that answers the flight's request; with its end the flight is forgotten.

        A callback and not the task's own `finally`: a task that is cancelled before it first runs
        has none.
        """
        flight.answer = task = asyncio.ensure_future(work)
        task.add_done_callback(lambda _: self._flights.discard(flight))
        return task

    def end_flights(self, reason: str, uri: str | None = None) -> None:
        """Ends all flights, or those of one document."""
        for flight in self._flights:
            if uri in (None, flight.uri):
                flight.end(reason)

    @property
    def in_flight(self) -> int:
        """How many requests wait for the engine."""
        return len(self._flights)

    async def run(self, flight: Flight, request: InfillRequest) -> Suggestion:
        """What the engine makes of `request` until the flight's deadline.

        Raises Nothing when the flight is ended, and EngineError. Returns or raises at once in every
        case: the run itself is cancelled, and may take as long as it likes to notice.
        """
        frames: list[Frame] = []
        run = self.spawn(self._stream(flight, request, frames))
        try:
            waits = {run, flight.over}
            left = flight.left_s - LATE_S
            await asyncio.wait(waits, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        finally:
            run.cancel()
        if flight.over.done():
            raise Nothing(flight.over.result())
        if run.done():
            suggestion = run.result()
        elif frames:
            suggestion = _from_frame(frames[-1])
        else:
            raise DeadlineExceeded(
                "the engine had nothing to show in time: it is loading, or too slow on this machine"
            )
        self.last_error = None
        if self.neighbours.unsure:
            self.spawn(self.engine_status())
        return suggestion

    async def _stream(
        self, flight: Flight, request: InfillRequest, frames: list[Frame]
    ) -> Suggestion:
        try:
            engine = await self.engine()
            budget = flight.left_s - RETURN_S
            if budget <= 0:
                raise DeadlineExceeded("no time was left for the engine")
            timed = replace(request, budget_s=budget)
            async with contextlib.aclosing(engine.stream(timed)) as events:
                async for event in events:
                    if isinstance(event, Infill):
                        return Suggestion(event.holes[0], event.confidence)
                    frames[:] = [event]
        except (EngineError, asyncio.CancelledError):
            raise
        except Exception as error:
            raise _unexpected(error) from error
        raise EngineError("the engine's answer had no end: ask again")

    # ---- the engine ----

    async def engine(self) -> Engine:
        """The engine's client, made when it is first needed."""
        if self._engine is None:
            # In a thread, since it imports an HTTP client.
            self._engine = self.spawn(asyncio.to_thread(self._make_engine, self.settings))
        made = self._engine
        try:
            return await asyncio.shield(made)
        except asyncio.CancelledError:
            raise
        except Exception:
            if self._engine is made:
                self._engine = None  # the next request tries again
            raise

    async def warm_up(self) -> None:
        """Starts the engine and has it load its model, before anyone asks for anything."""
        try:
            await (await self.engine()).warm_up()
        except EngineError as error:
            self.report(error)
        except Exception as error:
            self.report(_unexpected(error))

    async def engine_status(self) -> dict[str, Any] | None:
        """What the engine says of itself, if it is there and says it soon. Starts nothing."""
        if self._engine is None or not self._engine.done():
            return None
        try:
            async with asyncio.timeout(CLOSE_S):
                status = await (await self.engine()).status()
        except (EngineError, OSError, TimeoutError) as error:
            logger.debug("no status of the engine: %s", error)
            return None
        self.neighbours.learn(status)
        return status

    async def close(self) -> None:
        """Ends what is in flight and lets go of the engine. Takes CLOSE_S at most."""
        self.end_flights("the server is shutting down")
        for task in self._tasks:
            task.cancel()
        made, self._engine = self._engine, None
        if made is not None and made.done() and not made.cancelled() and not made.exception():
            self.spawn(made.result().aclose())
        waits = self._tasks | {flight.answer for flight in self._flights if flight.answer}
        if waits:
            await asyncio.wait(waits, timeout=CLOSE_S)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Runs `work` in the background; the task is kept until it is done."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited for it has it; asyncio need not complain

    # ---- what is said ----

    def silent(self, reason: str) -> None:
        """Notes why a request was answered with nothing."""
        self.last_reason = reason
        logger.debug("nothing shown: %s", reason)

    def report(self, error: EngineError, invoked: bool = False) -> None:
        """Tells the user of an error of the engine: once, until it changes or the engine works.

        What the user asked for is never met with silence, so an `invoked` one is always told.
        """
        late = isinstance(error, Cancelled | DeadlineExceeded)  # nothing is broken
        if late and not invoked:
            return
        known = self.last_error is not None and self.last_error.code == error.code
        if not late:
            self.last_error = error
        logger.warning("%s: %s", error.code, error)
        if invoked or not known:
            self._to_user(str(error))


def _from_frame(frame: Frame) -> Suggestion:
    pieces = [piece for piece in frame.holes[0] if piece.text]
    # The geometric mean, as Infill has it; a certainty of 0 must not end in log(0).
    logs = [math.log(max(piece.certainty, 1e-9)) for piece in pieces]
    return Suggestion(frame.texts[0], math.exp(sum(logs) / len(logs)) if logs else 0.0)


def _unexpected(error: Exception) -> EngineError:
    return EngineError(f"internal error ({describe(error)}): please report it")
