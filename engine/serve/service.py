"""The resident engine: an ASGI app on a private Unix socket, one process per model and user.

    POST /infill[?frames=0]   a request as JSON -> lines of JSON: frames, then infill or error
    GET  /status              what it is and what it does
    POST /load                loads the model now; answers at once
    POST /unload              frees the model's memory; answers when it is done
    POST /stop                ends what is running and the process

`python -m engine.serve.service --socket PATH` runs it. A client that goes away cancels its request.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import math
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from engine.errors import BadRequest, EngineError, EngineUnavailable
from engine.identity import code_on_disk
from engine.models import weights_of
from engine.paths import (
    PROTOCOL,
    VERSION_HEADER,
    EnginePaths,
    identity,
    package_version,
    replaced,
    speaks_ours,
)
from engine.serve.failures import of_a_watch, of_the_loop
from engine.serve.lifecycle import (
    Listener,
    memory_bytes,
    shorten_log,
    take_lock,
    watch_idleness,
    watch_replacement,
)
from engine.serve.resident import Engine, Load, Progress
from engine.serve.scheduler import Scheduler
from engine.serve.turns import Event, Job
from engine.types import Frame, Infill
from engine.wire import (
    FrameWriter,
    Json,
    error_to_json,
    infill_to_json,
    info_to_json,
    request_from_json,
)

log = logging.getLogger(__name__)

_LINES = "application/x-ndjson"
_UNLOAD_WAIT_S = 30.0

LOST_DEVICE_EXIT = 70
"""The exit code of a service whose device is lost (EX_SOFTWARE: it could not go on)."""


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """How to run the service.

    model, device: None means the embedded model and the best device there is.
    idle_unload_s, idle_exit_s: seconds without work; infinity means never.
    load_at_start: whether to load the model before the first request.
    retry_load_s: seconds for which a failed load answers further requests.
    """

    socket: Path
    model: str | None = None
    device: str | None = None
    idle_unload_s: float = 900.0
    idle_exit_s: float = 3600.0
    load_at_start: bool = True
    retry_load_s: float = 5.0


def serve(options: ServiceOptions, load_engine: Load | None = None) -> None:
    """Runs until it is stopped, idle for long, or another service has the lock (then at once).

    load_engine: makes the engine; None loads the real one, importing torch on the worker thread.
    Raises EngineUnavailable if the socket's directory is not private.
    """
    lock = take_lock(EnginePaths(options.socket).lock)
    if lock is None:
        return
    shorten_log()
    listener = Listener.open(options.socket)
    lost = Future[None]()  # done once the device is lost
    load = load_engine or _real_engine(options)
    scheduler = Scheduler(load, options.retry_load_s, lambda: lost.set_result(None))
    try:
        asyncio.run(_serve(options, listener, scheduler, lost))
    finally:
        listener.remove()
        if not scheduler.close() or lost.done():
            # The worker is deep in a load or a pass that nothing can interrupt, or the device is
            # lost: tearing down what it held would wait for it.
            logging.shutdown()
            os._exit(LOST_DEVICE_EXIT if lost.done() else 0)


async def _serve(
    options: ServiceOptions, listener: Listener, scheduler: Scheduler, lost: Future[None]
) -> None:
    def stop() -> None:
        listener.remove()
        scheduler.close(wait_s=0)
        server.should_exit = True

    service = Service(options, scheduler, stop)
    server = _Server(
        uvicorn.Config(
            service.app(),
            log_config=None,
            access_log=False,
            lifespan="off",
            http="h11",
            ws="none",
            timeout_graceful_shutdown=1,
        )
    )
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(of_the_loop)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    watches = [
        asyncio.create_task(
            watch_idleness(scheduler, listener, options.idle_unload_s, options.idle_exit_s, stop)
        ),
        asyncio.create_task(
            watch_replacement(scheduler, lambda: code_on_disk() + weights_of(options.model), stop)
        ),
    ]
    for watch in watches:
        watch.add_done_callback(of_a_watch)
    asyncio.wrap_future(lost).add_done_callback(lambda _: stop())
    if options.load_at_start:
        scheduler.load()
    log.info("listening, pid %d, version %s", os.getpid(), identity())
    await server.serve(sockets=[listener.socket])
    for watch in watches:
        watch.cancel()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        # uvicorn would raise the signal again at its end, before the socket's file is removed.
        yield


class Service:
    """The routes. Nothing here waits for the engine's thread on the event loop."""

    def __init__(
        self, options: ServiceOptions, scheduler: Scheduler, stop: Callable[[], None]
    ) -> None:
        self._options = options
        self._scheduler = scheduler
        self._stop = stop
        self._started = time.time()

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/infill", self._infill, methods=["POST"]),
                Route("/status", self._status, methods=["GET"]),
                Route("/load", self._load, methods=["POST"]),
                Route("/unload", self._unload, methods=["POST"]),
                Route("/stop", self._end, methods=["POST"]),
            ]
        )

    async def _infill(self, request: Request) -> ASGIApp:
        received = time.monotonic()
        theirs = request.headers.get(VERSION_HEADER, identity())
        if not speaks_ours(theirs):
            return _refusal(409, EngineUnavailable(replaced(identity())))
        reply = _Reply(self._scheduler, frames=request.query_params.get("frames") != "0")
        try:
            infill = request_from_json(json.loads(await request.body()))
            reply.job = self._scheduler.submit(infill, reply.put, received)
        except BadRequest as error:
            return _refusal(400, error)
        except EngineUnavailable as error:
            return _refusal(503, error)
        except ClientDisconnect:
            return Response(status_code=400)  # which nobody reads
        except (ValueError, TypeError):
            # The exception's own text may quote the document.
            return _refusal(400, BadRequest("the request is not the JSON of an InfillRequest"))
        return reply

    async def _status(self, request: Request) -> Response:
        now = self._scheduler.snapshot()
        what, fraction = now.loading or (None, None)
        unload_s = self._options.idle_unload_s
        return JSONResponse(
            {
                "protocol": PROTOCOL,
                "version": package_version(),
                "pid": os.getpid(),
                "started": self._started,
                "model": self._options.model,
                "device": self._options.device,
                "state": now.state,
                "loading": what,
                "fraction": fraction,
                "jobs": now.jobs,
                "info": info_to_json(now.info) if now.info else None,
                "idle_s": round(now.idle_s, 3),
                "loaded_s": now.loaded_s,
                "idle_unload_s": None if math.isinf(unload_s) else unload_s,
                "memory_bytes": memory_bytes(),
                "last_error": now.last_error,
            }
        )

    async def _load(self, request: Request) -> Response:
        self._scheduler.load()
        return await self._status(request)

    async def _unload(self, request: Request) -> Response:
        done = asyncio.wrap_future(self._scheduler.unload())
        await asyncio.wait([done], timeout=_UNLOAD_WAIT_S)
        return await self._status(request)

    async def _end(self, request: Request) -> Response:
        # After the answer is out.
        asyncio.get_running_loop().call_later(0.01, self._stop)
        return await self._status(request)


class _Reply:
    """The answer to one /infill: an ASGI response fed from the engine's thread.

    Keeps the newest frame that has not been sent and the last line, so that a slow reader misses
    frames but never the end.
    """

    job: Job

    def __init__(self, scheduler: Scheduler, frames: bool) -> None:
        self._scheduler = scheduler
        self._frames = frames
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._frame: Frame | None = None
        self._last: Infill | EngineError | None = None

    def put(self, event: Event) -> None:
        """Takes an event from any thread."""
        self._loop.call_soon_threadsafe(self._note, event)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        late = asyncio.create_task(self._expire())
        gone = asyncio.create_task(_until_gone(receive))
        gone.add_done_callback(lambda _: self._scheduler.cancel(self.job))
        try:
            # The head at once: from here on the client knows that its request has arrived.
            head = [(b"content-type", _LINES.encode())]
            await send({"type": "http.response.start", "status": 200, "headers": head})
            frames = FrameWriter()
            async for event in self._events():
                more = isinstance(event, Frame)
                fields = frames.to_json(event) if more else _last(event)
                await send(_chunk(_line(fields), more))
        finally:
            late.cancel()
            gone.cancel()

    def _note(self, event: Event) -> None:
        if isinstance(event, Frame):
            self._frame = event if self._frames else None
        else:
            self._last = event
        self._news.set()

    async def _events(self) -> AsyncIterator[Event]:
        while True:
            await self._news.wait()
            self._news.clear()
            frame, self._frame = self._frame, None
            if frame is not None:
                yield frame
            if self._last is not None:
                yield self._last
                return

    async def _expire(self) -> None:
        """Ends a job that still waits at its deadline: loading may take longer than that."""
        left = self.job.deadline - time.monotonic()
        if left < float("inf"):
            await asyncio.sleep(left)
            self._scheduler.expire(self.job)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue


def _last(event: Infill | EngineError) -> Json:
    return infill_to_json(event) if isinstance(event, Infill) else error_to_json(event)


def _line(fields: Json) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def _chunk(body: bytes, more: bool) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


def _refusal(status: int, error: EngineError) -> Response:
    return Response(_line(error_to_json(error)), status, media_type=_LINES)


def _real_engine(options: ServiceOptions) -> Load:
    def load(progress: Progress) -> Engine:
        progress("importing torch", 0.0)
        from engine.engine import InfillEngine

        return InfillEngine.load(options.model, options.device, progress)

    return load


def main(arguments: Sequence[str] | None = None) -> int:
    """The process: 0 when stopped or not needed, 1 with a last line on stderr if it can't run."""
    parser = argparse.ArgumentParser(
        prog="python -m engine.serve.service", description=main.__doc__
    )
    parser.add_argument("--socket", type=Path, required=True, help="where to listen")
    parser.add_argument("--model", help="a folder or a name of the hub; default: the embedded one")
    parser.add_argument("--device", help="cuda, mps or cpu; default: the best there is")
    parser.add_argument("--idle-unload", type=float, default=900.0, metavar="SECONDS")
    parser.add_argument("--idle-exit", type=float, default=3600.0, metavar="SECONDS")
    parser.add_argument("--no-load", action="store_true", help="load at the first request only")
    chosen = parser.parse_args(arguments)
    log_to_stderr()
    try:
        serve(
            ServiceOptions(
                socket=chosen.socket.absolute(),
                model=chosen.model,
                device=chosen.device,
                idle_unload_s=chosen.idle_unload,
                idle_exit_s=chosen.idle_exit,
                load_at_start=not chosen.no_load,
            )
        )
    except EngineError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def log_to_stderr() -> None:
    """One line per event of the service's life; nothing about what is in a request."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


if __name__ == "__main__":
    raise SystemExit(main())
