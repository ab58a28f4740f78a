"""The engine's own wire format over TCP: for language servers on other machines (remote_engine.py).

Only what fills and what tells: loading, unloading and stopping are not among it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import replace
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from diffgemma_lsp.serve.filler import Busy, Engine
from engine.errors import BadRequest, EngineError, EngineUnavailable
from engine.paths import identity, replaced, speaks_ours
from engine.types import Infill, InfillRequest
from engine.wire import FrameWriter, error_to_json, infill_to_json, request_from_json

LONGEST_S = 600.0
"""So long a run may take, whatever its client says."""

TOLD = ("state", "fraction", "loaded_s", "info", "last_error")
"""What clients are told of the engine; where it runs and what else it does is nobody's business."""


class Lending:
    """Runs for others, so many at the same time."""

    def __init__(self, engine: Engine, most_runs: int) -> None:
        self._engine, self._most_runs = engine, most_runs
        self.running = 0

    def infill(self, body: dict[str, Any], theirs: str) -> ASGIApp:
        """The answer to a request, line by line. theirs: the version that the client has.

        Raises BadRequest, Busy, and EngineUnavailable for a client of another version.
        """
        if not speaks_ours(theirs):
            raise EngineUnavailable(replaced(identity()))
        try:
            request = request_from_json(body)
        except (ValueError, TypeError):
            # The exception's own text may quote the document.
            raise BadRequest("the request is not the JSON of an InfillRequest") from None
        if self.running >= self._most_runs:
            raise Busy
        budget_s = LONGEST_S if request.budget_s is None else min(LONGEST_S, request.budget_s)
        return self._answer(replace(request, budget_s=budget_s))

    async def status(self) -> dict[str, Any]:
        """What the engine says of itself, as far as it is told; empty if there is none."""
        said = await self._engine.status() or {}
        return {name: said[name] for name in TOLD if name in said}

    def _answer(self, request: InfillRequest) -> ASGIApp:
        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            self.running += 1
            running = asyncio.create_task(self._run(request, send))
            gone = asyncio.create_task(until_gone(receive))
            try:
                await asyncio.wait({running, gone}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self.running -= 1
                for task in (running, gone):
                    task.cancel()
                await asyncio.gather(running, gone, return_exceptions=True)

        return answer

    async def _run(self, request: InfillRequest, send: Send) -> None:
        # The head at once: from here on the client knows that its request has arrived.
        head = [(b"content-type", b"application/x-ndjson")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        frames = FrameWriter()

        async def line(fields: dict[str, Any], more: bool) -> None:
            body = json.dumps(fields).encode() + b"\n"
            await send({"type": "http.response.body", "body": body, "more_body": more})

        try:
            async with contextlib.aclosing(self._engine.stream(request)) as events:
                async for event in events:
                    if isinstance(event, Infill):
                        return await line(infill_to_json(event), more=False)
                    await line(frames.to_json(event), more=True)
            raise EngineError("the engine's answer had no end: ask again")
        except EngineError as error:
            await line(error_to_json(error), more=False)


async def until_gone(receive: Receive) -> None:
    """Returns when the client has hung up. Nothing of its body may be left to read."""
    while (await receive())["type"] != "http.disconnect":
        continue
