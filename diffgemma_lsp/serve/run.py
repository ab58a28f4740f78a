"""The server's life: its address, its rules, its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from diffgemma_lsp.serve.app import App
from diffgemma_lsp.serve.filler import Filler
from diffgemma_lsp.serve.guard import Guard, Tokens, is_loopback
from diffgemma_lsp.serve.lending import Lending
from diffgemma_lsp.serve.metrics import Metrics
from diffgemma_lsp.serve.replicas import Served
from engine.errors import EngineError

log = logging.getLogger(__name__)

MOST_CONNECTIONS = 512


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """Where to listen and how much to allow.

    token_file: None is for loopback addresses alone. budget_ms: the time of a request that names
    none. per_minute: requests of one client; burst: of those, at once. most_runs: at the same time.
    name: the model's, until the engine says it.
    """

    host: str = "127.0.0.1"
    port: int = 8012
    token_file: Path | None = None
    budget_ms: int = 600
    per_minute: int = 1200
    burst: int = 120
    most_runs: int = 32
    name: str = ""


def tokens_for(options: ServeOptions) -> Tokens:
    """Those that are accepted. Raises OSError, and ValueError with what is wrong."""
    if options.token_file is not None:
        return Tokens.read(options.token_file)
    if not is_loopback(options.host):
        raise ValueError(f"{options.host} can be reached by others: say --token-file FILE")
    return Tokens()


def listen(options: ServeOptions) -> socket.socket:
    """The listening socket. Raises OSError."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    return socket.create_server((options.host, options.port), family=family, backlog=512)


async def serve(
    options: ServeOptions, engine: Served, tokens: Tokens, listening: socket.socket
) -> None:
    """Serves until it is told to end by a signal. The engine goes on."""
    metrics = Metrics()
    filler = Filler(engine, options.name, options.budget_ms, options.most_runs, metrics)
    lending = Lending(engine, options.most_runs)
    app = App(filler, lending, Guard(tokens, options.per_minute, options.burst), metrics)
    server = uvicorn.Server(
        uvicorn.Config(
            app.asgi(),
            log_config=None,
            access_log=False,
            lifespan="off",
            http="h11",
            ws="none",
            server_header=False,
            proxy_headers=False,
            limit_concurrency=MOST_CONNECTIONS,
            timeout_graceful_shutdown=1,
        )
    )
    warming = asyncio.create_task(_warm_up(engine))
    try:
        await server.serve(sockets=[listening])
    finally:
        warming.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await warming
        await engine.aclose()


async def _warm_up(engine: Served) -> None:
    try:
        await engine.warm_up()
    except EngineError as error:
        log.warning("%s", error)
