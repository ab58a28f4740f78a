"""Requests that wait for the engine, and the tasks that answer them.

A request ends exactly once: with what the engine made, at its deadline with the best that there was
by then, because something ended it, or by an error.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Coroutine
from typing import Any, Literal, TypeVar

from engine.errors import EngineError, describe

logger = logging.getLogger(__name__)

T = TypeVar("T")

RequestKind = Literal["automatic", "invoked", "action", "ahead", "next"]
"""Who wants it: an editor while one types; a user who asked for a suggestion, or for an edit;
nobody yet, and it gives way to everything else; an editor after an edit, for what must follow."""


class Nothing(Exception):
    """There is nothing to show, and no error; the text says why."""


class PendingRequest:
    """One request on its way, and the one place where it can be ended early.

    budget_s: how much time there is, up to the deadline. held_s: for so long it is held if there is
    no model yet; its time begins anew with that.
    """

    held_s = 0.0

    def __init__(
        self, uri: str, kind: RequestKind, since: float, budget_s: float, method: str = ""
    ) -> None:
        self.uri, self.method = uri, method
        self.kind: RequestKind = kind
        self.budget_s, self.deadline = budget_s, since + budget_s
        self.over: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def end(self, reason: str) -> None:
        """Has the request answered at once, with nothing; its run is cancelled."""
        if not self.over.done():
            self.over.set_result(reason)

    def must_go_on(self) -> None:
        """Raises Nothing if it was ended."""
        if self.over.done():
            raise Nothing(self.over.result())

    async def wait(self, work: asyncio.Future[Any], most_s: float) -> bool:
        """Whether `work` is done by then. Raises Nothing as soon as the request is ended."""
        await asyncio.wait((work, self.over), timeout=most_s, return_when=asyncio.FIRST_COMPLETED)
        self.must_go_on()
        return work.done()

    async def until(self, event: asyncio.Event) -> bool:
        """Whether that happens before its time is up. Raises Nothing as `wait` does."""
        happens = asyncio.ensure_future(event.wait())
        try:
            return await self.wait(happens, self.left_s)
        finally:
            happens.cancel()

    @property
    def invoked(self) -> bool:
        """Whether the user asked for it."""
        return self.kind in ("invoked", "action")

    @property
    def left_s(self) -> float:
        """The seconds until the deadline."""
        return self.deadline - time.monotonic()


def gives_way(older: PendingRequest, newer: PendingRequest) -> bool:
    """Whether a request ends when a newer one begins for the same document."""
    if newer.kind in ("ahead", "next"):
        return older.kind == newer.kind
    if older.kind == newer.kind == "automatic":
        return older.method == newer.method  # an editor may use both at each key
    return older.kind in ("automatic", "next") or older.kind == newer.kind == "invoked"


class Requests:
    """What is under way for one client: requests, and what is done in the background.

    arrived: when the message that is being handled arrived, by time.monotonic().
    at_change: called when something has changed that says how the server is doing.
    """

    def __init__(self) -> None:
        self.arrived: Callable[[], float] = time.monotonic
        self.at_change: Callable[[], None] = _nobody_asks
        self._wanted = time.monotonic()
        self._pending: set[PendingRequest] = set()
        self._answers: set[asyncio.Task[Any]] = set()
        self._background: set[asyncio.Task[Any]] = set()

    def begin(
        self,
        uri: str,
        kind: RequestKind,
        budget_ms: float,
        since: float | None = None,
        method: str = "",
    ) -> PendingRequest:
        """A new request. It ends the automatic ones of its document, but for those of another
        method if it is automatic too; a suggestion that is asked for also ends one that was asked
        for before.

        budget_ms: how long it may take, from when its message arrived or from `since`.
        """
        began = self.arrived() if since is None else since
        pending = PendingRequest(uri, kind, began, budget_ms / 1000, method)
        for older in list(self._pending):
            if older.uri == uri and gives_way(older, pending):
                self._end(older, "a newer request took its place")
        self._pending.add(pending)
        if kind != "ahead":
            self._wanted = time.monotonic()
        self.at_change()
        return pending

    def answer(self, pending: PendingRequest, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """The task that answers the request; with its end the request is forgotten.

        A callback and not the task's own `finally`: a task that is cancelled before it first runs
        has none.
        """
        task = asyncio.ensure_future(work)
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)
        task.add_done_callback(lambda _: self._answered(pending))
        return task

    def _answered(self, pending: PendingRequest) -> None:
        self._pending.discard(pending)
        self.at_change()

    def _end(self, pending: PendingRequest, reason: str) -> None:
        # Forgotten at once, though its answer comes a moment later: where thousands of requests
        # arrive at the same time, each of them must not look at all that it put an end to.
        pending.end(reason)
        self._pending.discard(pending)

    def end(
        self, reason: str, uri: str | None = None, kinds: tuple[RequestKind, ...] | None = None
    ) -> None:
        """Ends all requests, or those of one document, or of some kinds."""
        for pending in list(self._pending):
            if uri in (None, pending.uri) and (kinds is None or pending.kind in kinds):
                self._end(pending, reason)

    @property
    def documents(self) -> set[str]:
        """The documents that any of the requests is about."""
        return {pending.uri for pending in self._pending}

    @property
    def in_flight(self) -> int:
        """How many requests wait for the engine."""
        return sum(pending.kind != "ahead" for pending in self._pending)

    @property
    def quiet_s(self) -> float:
        """For how many seconds nobody has wanted anything of the engine."""
        return time.monotonic() - self._wanted

    def rest(self) -> None:
        """Until somebody wants something of the engine, nobody has for ever."""
        self._wanted = -math.inf

    @property
    def idle(self) -> bool:
        """Whether nothing is under way, not even what nobody waits for."""
        return not self._pending

    def idle_but_for(self, pending: PendingRequest) -> bool:
        """Whether nobody else waits for the engine."""
        return all(other is pending or other.kind == "ahead" for other in self._pending)

    # ---- in the background ----

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Runs `work`, for which nobody waits: an error that nobody foresaw is logged."""
        task = self.keep(work)
        task.add_done_callback(_log_unforeseen)
        return task

    def keep(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Runs `work`; the task is kept until it is done. Whoever waits for it has its error."""
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._background.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited may have gone; asyncio need not complain

    def stop(self) -> None:
        """Ends all requests and cancels what is done in the background."""
        self.at_change = _nobody_asks
        self.end("the server is shutting down")
        for task in self._background:
            task.cancel()

    async def wait(self, wait_s: float) -> None:
        """Waits until nothing is under way any more, but no longer than that."""
        if under_way := self._background | self._answers:
            await asyncio.wait(under_way, timeout=wait_s)


def _log_unforeseen(task: asyncio.Task[Any]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, Nothing | EngineError):
        logger.error("internal error in the background: %s", describe(error))


def _nobody_asks() -> None:
    """Stands where nobody wants to know how the server is doing."""
