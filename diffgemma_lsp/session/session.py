"""One client's session: its settings, its documents, the engine, and what is in flight.

A request that needs the engine is a `Flight` (flights.py). It ends exactly once: with what the
engine made, at its deadline with the best that there was by then, because something ended it, or by
an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from lsprotocol.types import MessageType

from diffgemma_lsp.context.neighbours import Neighbours
from diffgemma_lsp.lsp.client import Client
from diffgemma_lsp.lsp.log import describe
from diffgemma_lsp.lsp.positions import Encoding
from diffgemma_lsp.session import loading
from diffgemma_lsp.session.model import Model
from diffgemma_lsp.session.reasons import Reasons
from diffgemma_lsp.session.requests import (
    Answer,
    Flight,
    Kind,
    Nothing,
    from_frame,
    from_result,
    gives_way,
)
from diffgemma_lsp.session.suggestion_cache import Suggestions
from diffgemma_lsp.session.typing_pace import Pace
from diffgemma_lsp.settings.effective import Scopes
from diffgemma_lsp.settings.schema import Settings
from diffgemma_lsp.text.documents import Document, Documents, Notebooks
from diffgemma_lsp.text.snapshot import DocumentSnapshot
from diffgemma_lsp.text.text import Point
from engine.errors import Cancelled, DeadlineExceeded, EngineError, ModelError
from engine.types import Frame, Infill, InfillRequest, Snippet

logger = logging.getLogger(__name__)

# Kept back from the time that the engine gets, for the way of its answer to the client.
RETURN_S = 0.04
# Kept back when the server stops waiting for an engine that is late.
LATE_S = 0.01
CLOSE_S = 0.5  # for so long the end of a session may wait for others

T = TypeVar("T")


class Engine(Protocol):
    """What a session uses of the engine's client. Cancelling the reader of a stream cancels it."""

    def stream(self, request: InfillRequest) -> AsyncGenerator[Frame | Infill]: ...

    async def status(self) -> dict[str, Any] | None: ...

    async def warm_up(self) -> None: ...

    async def unload(self) -> bool: ...

    async def aclose(self) -> None: ...


MakeEngine = Callable[[Settings], Engine]
Watch = Callable[[Frame], None]


class Session:
    """The state behind one client. Lives on one event loop."""

    def __init__(self, make_engine: MakeEngine, client: Client) -> None:
        self.scopes = Scopes()
        self.encoding: Encoding = "utf-16"
        self.documents = Documents()
        self.notebooks = Notebooks()
        self.suggestions = Suggestions()
        self.pace = Pace()
        self.reasons = Reasons()
        self.last_reason: str | None = None
        self.last_error: EngineError | None = None
        self.missed = 0
        """Requests in a row for which the engine, with its model loaded, had nothing in time."""
        self.model = Model()
        self.starting = False
        """Whether the engine is being started ahead of the first request."""
        self.at_change: Callable[[], None] = lambda: None
        """Called when something has changed that says how the server is doing."""
        self._make_engine = make_engine
        self.client = client
        self._engine: asyncio.Future[Engine] | None = None
        self._learning: asyncio.Task[dict[str, Any] | None] | None = None
        self._flights: set[Flight] = set()
        self._answers: set[asyncio.Task[Any]] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self.neighbours = Neighbours(self.spawn)

    # ---- settings and documents ----

    @property
    def settings(self) -> Settings:
        """What holds where nothing is said of the document, and for what belongs to none."""
        return self.scopes.settings

    def settings_for(self, uri: str, language_id: str) -> Settings:
        """What holds for one document. A cell's path is that of its notebook."""
        return self.scopes.settings_for(self.notebooks.home(uri) or uri, language_id)

    def off(self, uri: str, language_id: str) -> str | None:
        """Why there are no suggestions in this document, or None if there are."""
        path = self.notebooks.home(uri) or uri
        return self.settings_for(uri, language_id).off(path, language_id)

    def snapshot(
        self, document: Document, start: Point, end: Point | None = None
    ) -> DocumentSnapshot:
        """The document as it is now, with the cells around it if it is one of a notebook."""
        cells = (
            tuple(
                cell.text
                for uri in uris
                # Another language would be read as a part of this one.
                if (cell := self.documents.get(uri)) and cell.language_id == document.language_id
            )
            for uris in self.notebooks.around(document.uri)
        )
        before, after = cells
        snapshot = DocumentSnapshot.of(document, start, end)
        return replace(snapshot, cells_before=before, cells_after=after)

    def snippets(self, snapshot: DocumentSnapshot) -> tuple[Snippet, ...]:
        """What of other files belongs to the snapshot's cursor, for models that profit."""
        self.neighbours.settings = self.settings
        return self.neighbours.around(snapshot)

    # ---- flights ----

    def begin(self, uri: str, kind: Kind, deadline: float) -> Flight:
        """A new flight. It ends the automatic ones of its document, and a suggestion that is asked
        for also one that was asked for before."""
        for older in list(self._flights):
            if older.uri == uri and gives_way(older.kind, kind):
                self._end(older, "a newer request took its place")
        flight = Flight(uri, kind, deadline)
        self._flights.add(flight)
        self.at_change()
        return flight

    def answer(self, flight: Flight, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """The task that answers the flight's request; with its end the flight is forgotten.

        A callback and not the task's own `finally`: a task that is cancelled before it first runs
        has none.
        """
        task = asyncio.ensure_future(work)
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)
        task.add_done_callback(lambda _: self._land(flight))
        return task

    def _land(self, flight: Flight) -> None:
        self._flights.discard(flight)
        self.at_change()

    def _end(self, flight: Flight, reason: str) -> None:
        # Forgotten at once, though its answer comes a moment later: where thousands of requests
        # arrive at the same time, each of them must not look at all that it put an end to.
        flight.end(reason)
        self._flights.discard(flight)

    def end_flights(
        self, reason: str, uri: str | None = None, kinds: tuple[Kind, ...] | None = None
    ) -> None:
        """Ends all flights, or those of one document, or of some kinds."""
        for flight in list(self._flights):
            if uri in (None, flight.uri) and (kinds is None or flight.kind in kinds):
                self._end(flight, reason)

    def end_unwanted(self) -> None:
        """Ends the flights of documents for which suggestions are turned off."""
        for flight in list(self._flights):
            document = self.documents.get(flight.uri)
            if document and (reason := self.off(document.uri, document.language_id)):
                self._end(flight, reason)

    @property
    def in_flight(self) -> int:
        """How many requests wait for the engine."""
        return sum(flight.kind != "ahead" for flight in self._flights)

    @property
    def idle(self) -> bool:
        """Whether nothing is under way, not even what nobody waits for."""
        return not self._flights

    def idle_but_for(self, flight: Flight) -> bool:
        """Whether nobody else waits for the engine."""
        return all(other is flight or other.kind == "ahead" for other in self._flights)

    async def run(
        self, flight: Flight, request: InfillRequest, watch: Watch | None = None
    ) -> Answer:
        """What the engine makes of `request` until the flight's deadline. watch: sees each frame.

        Raises Nothing when the flight is ended, and EngineError. Returns or raises at once in every
        case: the run itself is cancelled, and may take as long as it likes to notice.
        """
        frames: list[Frame] = []
        if flight.kind != "ahead":
            self.end_flights("there is something to do", kinds=("ahead",))
        run = self.spawn(self._stream(flight, request, frames, watch))
        try:
            waits = {run, flight.over}
            left = flight.left_s - LATE_S
            await asyncio.wait(waits, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        finally:
            run.cancel()
        if flight.over.done():
            raise Nothing(flight.over.result())
        if run.done():
            answer = run.result()
        elif frames:
            answer = from_frame(frames[-1])
        else:
            raise DeadlineExceeded(
                "the engine had nothing to show in time: it is loading, or too slow on this machine"
            )
        self.last_error = None
        if flight.kind != "ahead":
            self.missed = 0
        return answer

    async def _stream(
        self, flight: Flight, request: InfillRequest, frames: list[Frame], watch: Watch | None
    ) -> Answer:
        try:
            engine = await self.engine()
            budget = flight.left_s - RETURN_S
            if budget <= 0:
                raise DeadlineExceeded("no time was left for the engine")
            timed = replace(request, budget_s=budget)
            async with contextlib.aclosing(engine.stream(timed)) as events:
                async for event in events:
                    if not self.model.name:  # it is loaded by now
                        await self.engine_status()
                    if isinstance(event, Infill):
                        return from_result(event)
                    frames[:] = [event]
                    if watch is not None:
                        watch(event)
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
        self.starting = True
        self.at_change()
        try:
            await (await self.engine()).warm_up()
        except EngineError as error:
            self.report(error)
            return
        except Exception as error:
            self.report(_unexpected(error))
            return
        finally:
            self.starting = False
            self.at_change()
        failure = await loading.failure(self.engine_status)
        if failure is not None and self.last_error is None:
            self.report(ModelError(failure))

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
        if info := (status or {}).get("info"):
            self.model = Model.of(info)
            self.last_error = loading.still(self.last_error)
        return status

    async def abilities(self) -> tuple[str, ...]:
        """What the model can do: "fill", and "instruct" if it follows instructions.

        Known once it is loaded; before that, no more than every model can.
        """
        # One question for all who ask at the same time: some editors do at every key.
        if self._learning is None or self._learning.done():
            self._learning = self.spawn(self.engine_status())
        await asyncio.shield(self._learning)
        return self.model.can

    async def close(self) -> None:
        """Ends what is in flight and lets go of the engine. Takes CLOSE_S at most."""
        self.at_change = lambda: None
        self.end_flights("the server is shutting down")
        for task in self._tasks:
            task.cancel()
        made, self._engine = self._engine, None
        if made is not None and made.done() and not made.cancelled() and not made.exception():
            self.spawn(made.result().aclose())
        waits = self._tasks | self._answers
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

    @contextlib.contextmanager
    def account(self, uri: str, method: str, asked: bool, tell: bool = False) -> Generator[None]:
        """Ends its block where there is nothing to show, and keeps why; what is shown is noted too.

        asked: the user asked for it, so an error is told; tell: any other reason is told as well.
        """
        try:
            yield
        except Nothing as reason:
            (self.tell if tell else self.came_to)(uri, method, str(reason))
        except EngineError as error:
            self.report(error, asked)
            self.came_to(uri, method, str(error))
        else:
            self.came_to(uri, method, None)

    def came_to(self, uri: str, method: str, reason: str | None) -> None:
        """Notes what a request came to: nothing, for this reason, or something to show."""
        self.last_reason = reason
        self.reasons.note(uri, method, reason)
        if reason is not None:
            logger.debug("nothing shown: %s", reason)

    def tell(self, uri: str, method: str, reason: str) -> None:
        """Tells the user why what was asked for came to nothing."""
        self.came_to(uri, method, reason)
        self.client.show(MessageType.Info, reason)

    def report(self, error: EngineError, invoked: bool = False) -> None:
        """Tells the user of an error of the engine: once, until it changes or the engine works.

        What the user asked for is never met with silence, so an `invoked` one is always told.
        """
        late = isinstance(error, Cancelled | DeadlineExceeded)  # nothing is broken
        if isinstance(error, DeadlineExceeded):
            self.spawn(self._miss())
        if late and not invoked:
            return
        known = self.last_error is not None and self.last_error.code == error.code
        if not late:
            self.last_error = error
        logger.warning("%s: %s", error.code, error)
        self.at_change()
        if invoked or not known:
            self.client.show(MessageType.Error, str(error))

    async def _miss(self) -> None:
        """Counts a missed deadline, unless the engine has a reason: it is starting or loading."""
        status = await self.engine_status() or {}
        if status.get("state") in ("ready", "busy"):
            self.missed += 1
            self.at_change()


def _unexpected(error: Exception) -> EngineError:
    return EngineError(f"internal error ({describe(error)}): please report it")
