"""The routes. Stopping, loading and unloading the engine is not among them."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar, cast

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from diffgemma_lsp.remote_engine import BUSY, PATH
from diffgemma_lsp.serve.ask import Reply
from diffgemma_lsp.serve.dialects import Dialect, Json, compact, ollama
from diffgemma_lsp.serve.dialects.llama_cpp import COMPLETION, LLAMA_CPP
from diffgemma_lsp.serve.dialects.mistral import MISTRAL
from diffgemma_lsp.serve.dialects.openai import OPENAI
from diffgemma_lsp.serve.dialects.tabby import TABBY
from diffgemma_lsp.serve.filler import Busy, Filler
from diffgemma_lsp.serve.guard import Guard, Refused
from diffgemma_lsp.serve.lending import Lending, until_gone
from diffgemma_lsp.serve.metrics import Metrics
from diffgemma_lsp.serve.rewriting import rewritten
from engine.errors import BadRequest, DeadlineExceeded, EngineError, EngineUnavailable, describe
from engine.paths import VERSION_HEADER

log = logging.getLogger(__name__)

T = TypeVar("T")
_Handler = Callable[[Request], Awaitable[ASGIApp]]

MOST_BYTES = 4 << 20
"""Of a body. What is read of it are 40,000 characters around the hole."""

BODY_S = 10.0
"""So long a client may take to send it."""

GONE = 499
"""What is counted for a client that went away."""

REASON = "x-diffgemma-reason"
"""The header that says why an answer is empty."""

FILLS: dict[str, tuple[Dialect, ...]] = {
    "/infill": (LLAMA_CPP,),
    "/completion": (COMPLETION,),
    "/v1/completions": (TABBY, OPENAI),
    "/completions": (OPENAI,),
    "/beta/completions": (OPENAI,),
    "/v1/beta/completions": (OPENAI,),
    "/v1/fim/completions": (MISTRAL,),
    "/api/generate": (ollama.OLLAMA,),
}


class App:
    """The routes and what they share."""

    def __init__(self, filler: Filler, lending: Lending, guard: Guard, metrics: Metrics) -> None:
        self._filler, self._lending = filler, lending
        self._guard, self._metrics = guard, metrics

    def asgi(self) -> Starlette:
        """The ASGI application."""
        fills = [
            Route(path, self._guarded(self._fill_in(dialects)), methods=["POST"])
            for path, dialects in FILLS.items()
        ]
        asked: dict[str, Callable[[], Json]] = {
            "/props": self._props,
            "/v1/models": self._models,
            "/models": self._models,
            "/api/tags": lambda: ollama.tags(self._filler.name),
            "/api/version": lambda: {"version": ollama.VERSION},
            "/v1beta/server_setting": lambda: {"disable_client_side_telemetry": True},
            "/v1/health": lambda: {"model": self._filler.name, "device": "", "version": {}},
        }
        told = [
            Route(path, self._guarded(self._telling(tell)), methods=["GET"])
            for path, tell in asked.items()
        ]
        return Starlette(
            routes=[
                *fills,
                *told,
                Route(f"{PATH}/infill", self._guarded(self._lent), methods=["POST"]),
                Route(f"{PATH}/status", self._guarded(self._status), methods=["GET"]),
                Route("/api/show", self._guarded(self._show), methods=["POST"]),
                Route("/v1/events", self._guarded(self._no_events), methods=["POST"]),
                Route("/metrics", self._guarded(self._measured), methods=["GET"]),
                Route("/health", self._guarded(self._health, everybody=True), methods=["GET"]),
            ]
        )

    def _guarded(
        self, handle: _Handler, everybody: bool = False
    ) -> Callable[[Request], Coroutine[Any, Any, ASGIApp]]:
        """`handle` behind the guard, with every error made a reply. everybody: may ask."""

        async def guarded(request: Request) -> ASGIApp:
            try:
                if not everybody:
                    self._admit(request)
                return await handle(request)
            except Exception as error:
                return _refusal(request.url.path, error)

        return guarded

    def _admit(self, request: Request) -> None:
        try:
            self._guard.admit(request.headers, request.client.host if request.client else "")
        except Refused as refused:
            self._metrics.refused.labels(str(refused.status)).inc()
            raise

    # ---- filling ----

    def _fill_in(self, dialects: tuple[Dialect, ...]) -> _Handler:
        async def fill(request: Request) -> Response:
            began, status = time.monotonic(), 500
            body = await _body(request)
            dialect = next(one for one in dialects if one.speaks(body))
            try:
                response = await self._filled(request, dialect, body)
                status = response.status_code
                return response
            except Exception as error:
                status = _refusal("", error).status_code
                raise
            finally:
                self._metrics.running.set(self._filler.running)
                self._metrics.requests.labels(dialect.name, str(status)).inc()
                self._metrics.seconds.labels(dialect.name).observe(time.monotonic() - began)

        return fill

    async def _filled(self, request: Request, dialect: Dialect, body: Json) -> Response:
        ask = dialect.read(body)
        filler = self._filler
        work = filler.fill(ask) if ask.rewrite is None else rewritten(filler, ask, ask.rewrite)
        reply = await _unless_gone(request, work)
        if reply is None:
            self._metrics.cancelled.inc()
            return Response(status_code=GONE)  # which nobody reads
        self._count(reply)
        headers = {} if reply.reason is None else {REASON: reply.reason}
        if ask.stream:
            lines = "".join(dialect.lines(ask, reply))
            return Response(lines, media_type=dialect.media, headers=headers)
        return _json(dialect.write(ask, reply), headers=headers)

    def _count(self, reply: Reply) -> None:
        if reply.passes:
            self._metrics.passes.observe(reply.passes)
        if not any(reply.texts):
            self._metrics.empty.inc()

    # ---- for language servers on other machines ----

    async def _lent(self, request: Request) -> ASGIApp:
        body, status = await _body(request), 200
        try:
            return self._lending.infill(body, request.headers.get(VERSION_HEADER, ""))
        except Exception as error:
            status = _refusal("", error).status_code
            raise
        finally:
            self._metrics.requests.labels("engine", str(status)).inc()

    async def _status(self, request: Request) -> Response:
        return _json(await self._lending.status())

    # ---- telling ----

    def _telling(self, tell: Callable[[], Json]) -> _Handler:
        async def told(request: Request) -> Response:
            await self._filler.status()
            return _json(tell())

        return told

    def _props(self) -> Json:
        settings = {"n_ctx": self._filler.context_tokens}
        return {"default_generation_settings": settings, "model_path": self._filler.name}

    def _models(self) -> Json:
        model = {"id": self._filler.name, "object": "model", "created": 0}
        return {"object": "list", "data": [{**model, "owned_by": "diffgemma-lsp"}]}

    async def _show(self, request: Request) -> Response:
        await self._filler.status()
        return _json(ollama.show(self._filler.name, self._filler.context_tokens))

    async def _no_events(self, request: Request) -> Response:
        """What Tabby's clients tell of their users is not even read."""
        return Response(status_code=200)

    async def _measured(self, request: Request) -> Response:
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4")

    async def _health(self, request: Request) -> Response:
        """Open to all: it says no more than whether there is a model."""
        if (await self._filler.status()).get("state") == "loading":
            raise EngineUnavailable("Loading model")
        return _json({"status": "ok"})


async def _body(request: Request) -> Json:
    """The JSON object that was sent. Raises Refused, BadRequest, ClientDisconnect."""
    told = request.headers.get("content-length", "")
    if told.isdecimal() and int(told[:20]) > MOST_BYTES:
        raise Refused(413, f"a body may have {MOST_BYTES} bytes")
    read = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for part in request.stream():
                read += part
                if len(read) > MOST_BYTES:
                    raise Refused(413, f"a body may have {MOST_BYTES} bytes")
    except TimeoutError:
        raise Refused(408, "the body did not come in time") from None
    try:
        body = json.loads(bytes(read))
    except (ValueError, RecursionError):
        raise BadRequest("the body is not JSON") from None  # whose own text may quote it
    if not isinstance(body, dict):
        raise BadRequest("the body must be a JSON object")
    return cast("Json", body)


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T | None:
    """What the work gives; None, and the work cancelled, if the client goes away before."""
    working = asyncio.create_task(work)
    gone = asyncio.create_task(until_gone(request.receive))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        working.cancel()
        gone.cancel()


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(compact(value).encode("utf-8", "replace"), status, headers, "application/json")


def _refusal(path: str, error: Exception) -> Response:
    """An error as a reply: one line that says what to do, never a text of the request's."""
    wait_s: int | None = None
    kind, message = "server_error", str(error)
    if isinstance(error, Refused):
        status, wait_s, kind = error.status, error.wait_s, "invalid_request_error"
        if status == 401:
            kind = "authentication_error"
    elif isinstance(error, BadRequest):
        status, kind = 400, "invalid_request_error"
    elif isinstance(error, Busy):
        status, wait_s, message = 503, 1, BUSY
    elif isinstance(error, EngineUnavailable | DeadlineExceeded):
        status, wait_s, kind = 503, 1, "unavailable_error"
    elif isinstance(error, EngineError):
        status = 500
    elif isinstance(error, ClientDisconnect):
        status, message = GONE, ""
    else:
        status, message = 500, f"internal error ({describe(error)}): please report it"
        log.error("%s", message)
    body: Json = {"error": {"message": message, "type": kind, "code": status}}
    if path.startswith("/api/"):
        body = {"error": message}
    headers = {} if wait_s is None else {"retry-after": str(wait_s)}
    return _json(body, status, headers)
