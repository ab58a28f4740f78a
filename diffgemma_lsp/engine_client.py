"""The engine service as seen from here: find it, start it, stream from it, cancel.

The service is one process per model and user, which whoever needs it first starts and nobody owns.
Closing a stream cancels its request. Imports neither torch nor transformers.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import time
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import httpx

from diffgemma_lsp.engine_process import EngineOptions, EngineProcess, Spawn, service_command
from engine.errors import DeadlineExceeded, EngineError, EngineUnavailable, describe
from engine.paths import (
    PROTOCOL,
    VERSION_HEADER,
    EnginePaths,
    engine_paths,
    identity,
    lock_is_held,
    make_private,
    replaced,
)
from engine.types import Frame, Infill, InfillRequest
from engine.wire import EventReader, request_to_json

logger = logging.getLogger(__name__)

START_WAIT_S = 30.0
"""For so long may a started service take to answer; it answers long before its model is loaded."""

STOP_WAIT_S = 10.0
ANSWER_WAIT_S = 5.0
"""For so long may a living service take for a short answer; importing torch can hold it up."""

GRACE_S = 10.0
"""So long after its deadline a request counts as lost."""


class EngineClient:
    """Talks to the engine service and starts it when needed. Bound to one event loop.

    spawn: gives the command that starts the service; tests put theirs.
    paths: of a service that lives already, whatever it was started with.
    Raises EngineUnavailable where there are no Unix sockets.
    """

    def __init__(
        self,
        options: EngineOptions,
        spawn: Spawn = service_command,
        paths: EnginePaths | None = None,
    ) -> None:
        self.options = options
        self.paths = paths or engine_paths(
            options.model, options.device, options.runtime_dir, options.replica
        )
        self._spawn = spawn
        self._http = httpx.AsyncClient(
            # As many connections as requests: by default the hundredth waits until it is an error.
            transport=httpx.AsyncHTTPTransport(
                uds=str(self.paths.socket), limits=httpx.Limits(max_connections=None)
            ),
            base_url="http://engine",
            headers={VERSION_HEADER: identity()},
            timeout=ANSWER_WAIT_S,
            trust_env=False,  # a proxy has no business here
        )
        self._starting: asyncio.Task[None] | None = None
        self._known_good = False

    async def stream(self, request: InfillRequest) -> AsyncGenerator[Frame | Infill]:
        """The frames as they settle, then the Infill. Starts the engine if need be.

        The budget counts from this call. Leave early with `contextlib.aclosing` (or by cancelling
        the task): that cancels the request in the engine within one pass.
        Raises the EngineError that the engine reports; DeadlineExceeded if the budget is used up
        before the engine has the request; EngineUnavailable if it can't be started, or died.
        """
        events = self._events(request)
        async with contextlib.aclosing(events):
            async for event in events:
                yield event

    async def status(self) -> dict[str, Any] | None:
        """What the service says of itself (GET /status); None if none is running. Never starts it.

        Raises EngineUnavailable if there is one that does not answer.
        """
        if not self._may_exist():
            return None
        try:
            return (await self._http.get("/status")).json()
        except httpx.TimeoutException as error:
            raise self._silent() from error
        except (httpx.TransportError, ValueError):
            return None

    async def ensure_started(self) -> None:
        """Makes sure that a service of our protocol answers; its model may still be loading.

        Raises EngineUnavailable, with the last line of its log if it ended at once.
        """
        if self._starting is None or self._starting.done():
            self._starting = asyncio.create_task(self._start())
            self._starting.add_done_callback(_note_outcome)
        # One start for all who wait; whoever stops waiting does not stop the others.
        await asyncio.shield(self._starting)

    async def warm_up(self) -> None:
        """Starts the service and has it load its model; does not wait for that to be done."""
        await self._ask("/load", start=True)

    async def unload(self) -> bool:
        """Has the service free its model's memory. False if none is running."""
        return await self._ask("/unload", start=False, wait_s=60.0)

    async def stop(self) -> bool:
        """Ends the service and waits until it is gone. False if none was running.

        Raises EngineUnavailable if it does not end.
        """
        self._known_good = False
        holder = self.paths.holder
        asked = await self._ask("/stop", start=False)
        give_up = time.monotonic() + STOP_WAIT_S
        # Another client may start the next one at once.
        while asked and lock_is_held(self.paths.lock) and self.paths.holder == holder:
            if time.monotonic() > give_up:
                raise self._silent()
            await asyncio.sleep(0.02)
        return asked

    async def aclose(self) -> None:
        """Closes the connections. The service goes on."""
        if self._starting is not None:
            self._starting.cancel()
        await self._http.aclose()

    # ---- requests ----

    async def _events(self, request: InfillRequest) -> AsyncGenerator[Frame | Infill]:
        budget = math.inf if request.budget_s is None else request.budget_s
        deadline = time.monotonic() + budget
        last_try = False
        while True:
            await self._start_before(deadline)
            left = deadline - time.monotonic()
            sent = request if math.isinf(left) else replace(request, budget_s=left)
            answered = False
            try:
                async with asking(self._http, "/infill", sent) as response:
                    # 503: it is about to end, and has not begun.
                    answered = response.status_code != 503
                    async for event in events_of(response):
                        yield event
                        if isinstance(event, Infill):
                            return
                raise self._died("its answer had no end")
            except httpx.TransportError as error:
                self._known_good = False
                if answered or last_try:
                    raise self._died(type(error).__name__) from error
            except EngineUnavailable:
                self._known_good = False
                if answered or last_try:
                    raise
            last_try = True

    async def _start_before(self, deadline: float) -> None:
        if not self._known_good:
            left = deadline - time.monotonic()
            try:
                await asyncio.wait_for(
                    self.ensure_started(), None if math.isinf(left) else max(left, 0.0)
                )
            except TimeoutError as error:
                raise _too_late() from error
        if time.monotonic() >= deadline:
            raise _too_late()

    async def _ask(self, path: str, start: bool, wait_s: float = ANSWER_WAIT_S) -> bool:
        """POSTs to the service; False if it isn't there."""
        if start:
            await self.ensure_started()
        elif not self._may_exist():
            return False
        try:
            await self._http.post(path, timeout=wait_s)
        except httpx.TimeoutException as error:
            raise self._silent() from error
        except httpx.TransportError as error:
            if start:
                raise self._died(type(error).__name__) from error
            return False
        return True

    def _may_exist(self) -> bool:
        """Whether there is a socket. Raises EngineUnavailable if it is not in a private place."""
        found = self.paths.socket.exists()
        if found:
            make_private(self.paths.socket.parent)
        return found

    # ---- starting ----

    async def _start(self) -> None:
        make_private(self.paths.socket.parent)
        give_up = time.monotonic() + START_WAIT_S
        child: EngineProcess | None = None
        while time.monotonic() < give_up:
            status = await self._status_or_silence()
            if status is not None:
                if status.get("protocol") != PROTOCOL:
                    theirs = f"{status.get('protocol')}/{status.get('version')}"
                    raise EngineUnavailable(replaced(theirs))
                if status["state"] != "stopping":
                    self._known_good = True
                    return
            elif child is not None and child.failed:
                raise EngineUnavailable(f"the engine can't be started: {child.last_words()}")
            elif (child is None or child.over) and not lock_is_held(self.paths.lock):
                # None yet, or ours lost against one that has ended since.
                child = EngineProcess(self._spawn(self.options, self.paths), self.paths.log)
            await asyncio.sleep(0.02)
        raise self._silent()

    async def _status_or_silence(self) -> dict[str, Any] | None:
        try:
            return await self.status()
        except EngineUnavailable:
            return None

    # ---- what to say ----

    def _died(self, how: str) -> EngineUnavailable:
        return EngineUnavailable(
            f"the engine went away while it worked ({how}): ask again; its log is {self.paths.log}"
        )

    def _silent(self) -> EngineUnavailable:
        holder = self.paths.holder
        remedy = f"kill process {holder}" if holder else "try again"
        return EngineUnavailable(
            f"the engine does not answer: {remedy}; its log is {self.paths.log}"
        )


def asking(
    http: httpx.AsyncClient, path: str, request: InfillRequest
) -> contextlib.AbstractAsyncContextManager[httpx.Response]:
    """The answer to an infill, as it comes. It is waited for until GRACE_S after the deadline."""
    read = None if request.budget_s is None else request.budget_s + GRACE_S
    timeout = httpx.Timeout(ANSWER_WAIT_S, read=read)
    return http.stream("POST", path, content=json.dumps(request_to_json(request)), timeout=timeout)


async def events_of(response: httpx.Response) -> AsyncGenerator[Frame | Infill]:
    """What the lines of an answer say. Raises the EngineError that one of them tells of."""
    events = EventReader()
    async for line in response.aiter_lines():
        yield events.read(json.loads(line))


def _note_outcome(task: asyncio.Task[None]) -> None:
    # All who waited may have gone; asyncio would complain about an error that nobody looked at.
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, EngineError):
        logger.error("internal error: %s", describe(error))


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded("the time was up before the engine was ready: ask again in a moment")
