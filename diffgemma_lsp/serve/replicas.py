"""Several engine services as one: a process for each GPU of a machine that serves a team.

A document stays with one replica, whose prefix cache knows it, as long as that one is not much
busier than another. What a replica has no answer to since it died is asked of the next one, which
gives the same: a request's draws are its seed's. Only a request that was in two which died is given
up, and its client is told, since it may be what they died of.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import math
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Any, Protocol

from diffgemma_lsp.remote_engine import EngineBusy
from diffgemma_lsp.serve.filler import Engine
from engine.errors import DeadlineExceeded, EngineError, EngineUnavailable
from engine.types import Fixed, Frame, Infill, InfillRequest

log = logging.getLogger(__name__)

SPILL = 4
"""With so many runs more than the idlest replica has, one gets none of its documents."""

MOST_LOST = 2
"""So many replicas may die while they work on a request."""

REST_S = 5.0
"""So long a replica that has died is asked last, in seconds: it is being started again."""

HEAD = 256
"""Characters of its beginning that a document is known by, beside its name."""

STATES = ("ready", "loading")
"""Of what replicas say of themselves, the first of these is told, whoever says it."""


class Served(Engine, Protocol):
    """What serves: one engine's client, or several."""

    async def warm_up(self) -> None: ...

    async def aclose(self) -> None: ...


class Replicas:
    """Engines that have the same model. At least one."""

    def __init__(self, engines: Sequence[Served]) -> None:
        self._engines = engines
        self._running = [0] * len(engines)
        self._died = [-math.inf] * len(engines)
        self._starting: set[asyncio.Task[None]] = set()

    async def stream(self, request: InfillRequest) -> AsyncGenerator[Frame | Infill]:
        """Frames and the result, as from one engine; the budget counts from this call. Where a
        replica dies the frames begin anew.

        Raises the EngineError of the replica that had the request, or of the last one asked.
        """
        budget_s, began, lost = request.budget_s, time.monotonic(), 0
        *others, last = self._order(request)
        for index in (*others, last):
            if budget_s is not None:
                left = budget_s - (time.monotonic() - began)
                if left <= 0:
                    raise DeadlineExceeded("the time was up before an engine had the request")
                request = replace(request, budget_s=left)
            seen = False
            self._running[index] += 1
            try:
                async with contextlib.aclosing(self._engines[index].stream(request)) as events:
                    async for event in events:
                        seen = True
                        yield event
                return
            except EngineBusy:
                if index == last:
                    raise
            except EngineUnavailable:
                self._start_again(index)
                lost += seen
                if index == last or lost == MOST_LOST:
                    raise
            finally:
                self._running[index] -= 1

    async def status(self) -> dict[str, Any] | None:
        """That of a replica that is ready, else of one that loads, else of any; None if none is
        there. Raises EngineUnavailable if all are there and none answers."""
        answers = await asyncio.gather(
            *(engine.status() for engine in self._engines), return_exceptions=True
        )
        said = [answer for answer in answers if isinstance(answer, dict)]
        if not said:
            for answer in answers:
                if isinstance(answer, BaseException):
                    raise answer
            return None
        rank = {state: number for number, state in enumerate(STATES)}
        return min(said, key=lambda one: rank.get(one["state"], len(STATES)))

    async def warm_up(self) -> None:
        """Has all of them load their model; does not wait for that to be done. Raises EngineError
        if one can't be started, once all were asked."""
        starts = (engine.warm_up() for engine in self._engines)
        for failed in await asyncio.gather(*starts, return_exceptions=True):
            if failed is not None:
                raise failed

    async def aclose(self) -> None:
        """Lets go of all of them; the services go on."""
        for task in self._starting:
            task.cancel()
        await asyncio.gather(*self._starting, return_exceptions=True)
        for engine in self._engines:
            await engine.aclose()

    def _order(self, request: InfillRequest) -> list[int]:
        """The replicas, the one that the request is for first. By rendezvous hashing: where one
        is away, only its own documents move."""
        document = document_of(request)
        now, idlest = time.monotonic(), min(self._running)

        def key(index: int) -> tuple[bool, int, bytes]:
            busy = self._running[index] - idlest
            weight = hashlib.sha256(f"{index}\0{document}".encode("utf-8", "replace")).digest()
            return now - self._died[index] < REST_S, busy if busy >= SPILL else 0, weight

        return sorted(range(len(self._engines)), key=key)

    def _start_again(self, index: int) -> None:
        if time.monotonic() - self._died[index] < REST_S:
            return
        self._died[index] = time.monotonic()
        task = asyncio.create_task(self._warm_up(index))
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def _warm_up(self, index: int) -> None:
        log.warning("replica %d is away: others have its documents", index + 1)
        try:
            await self._engines[index].warm_up()
        except EngineError as error:
            log.warning("replica %d: %s", index + 1, error)


def document_of(request: InfillRequest) -> str:
    """What tells a document from others, and stays while it is written."""
    first = next((part.text for part in request.template if isinstance(part, Fixed)), "")
    return f"{request.title}\0{first[:HEAD]}"
