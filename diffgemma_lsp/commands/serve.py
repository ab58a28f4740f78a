"""`diffgemma-lsp serve`: the engine behind a TCP port, for clients of other APIs than LSP."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from diffgemma_lsp.commands import UsageError
from diffgemma_lsp.commands.streaming import add_engine_flags, engine_options
from diffgemma_lsp.engine_client import EngineClient
from diffgemma_lsp.remote_engine import RemoteEngine, read_token
from diffgemma_lsp.settings.schema import is_engine_url
from engine.models import default_model

if TYPE_CHECKING:
    from diffgemma_lsp.commands import Subparsers
    from diffgemma_lsp.serve.replicas import Served

MOST_REPLICAS = 64

LEAST_BURST = 8
"""Some clients ask for several answers to one keystroke by as many requests, beside warm-ups."""


def add_parser(subparsers: Subparsers) -> None:
    """Adds `serve` to the command line."""
    parser = subparsers.add_parser(
        "serve",
        help="serve llama.vim, minuet, Continue and others over HTTP",
        description="Answers the completion APIs of llama.cpp, OpenAI, Mistral, DeepSeek, Ollama "
        "and Tabby with the engine that editors use, too. Ctrl-C ends it; the engine goes on.",
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="the address to listen at (default: 127.0.0.1)")
    add("--port", type=int, default=8012, help="0 takes any that is free (default: 8012)")
    add("--token-file", type=Path, metavar="FILE", help="tokens, one a line; chmod 600 it")
    add("--budget-ms", type=int, default=600, metavar="MS", help="for an answer (default: 600)")
    add(
        "--rate",
        type=int,
        default=1200,
        metavar="N",
        help="requests a minute of one client (default: 1200)",
    )
    add(
        "--burst",
        type=int,
        metavar="N",
        help=f"how many of them at once (default: a tenth, at least {LEAST_BURST})",
    )
    add("--queue", type=int, default=32, metavar="N", help="the most requests at the same time")
    add(
        "--replicas",
        type=int,
        metavar="N",
        help="engines that share the work, each a process with the model in its own memory "
        "(default: one for each device)",
    )
    add(
        "--engine-url",
        action="append",
        default=[],
        metavar="URL",
        help="an engine that `serve` lends out elsewhere, instead of one here; several share the "
        "work of a team",
    )
    add("--engine-token-file", metavar="FILE", help="with the token that they take")
    add_engine_flags(parser, several=True)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serves until a signal ends it. Raises UsageError."""
    from diffgemma_lsp.serve.run import ServeOptions, listen, tokens_for

    burst = arguments.burst
    if burst is None:
        burst = max(LEAST_BURST, arguments.rate // 10)
    if min(arguments.budget_ms, arguments.rate, burst, arguments.queue) < 1:
        raise UsageError("--budget-ms, --rate, --burst and --queue must be at least 1")
    engines = lent_by(arguments) or replicas_of(arguments)
    if not 0 <= arguments.port < 2**16:
        raise UsageError(f"--port must lie between 0 and 65535, not {arguments.port}")
    options = ServeOptions(
        arguments.host,
        arguments.port,
        arguments.token_file,
        arguments.budget_ms,
        arguments.rate,
        burst,
        arguments.queue,
        Path(arguments.model or default_model()).name,
    )
    try:
        tokens = tokens_for(options)
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from error
    try:
        listening = listen(options)
    except OSError as error:
        where = f"{options.host}:{options.port}"
        why = os.strerror(error.errno) if error.errno else error
        raise UsageError(f"can't listen at {where}: {why}; --port takes another") from error
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    what = " and ".join(arguments.engine_url) or options.name
    print(f"serving {what} on http://{shown}:{port}", file=sys.stderr, flush=True)

    async def serving() -> None:
        from diffgemma_lsp.serve.replicas import Replicas
        from diffgemma_lsp.serve.run import serve

        clients = [made() for made in engines]
        await serve(options, Replicas(clients) if clients[1:] else clients[0], tokens, listening)

    asyncio.run(serving())
    return 0


def lent_by(arguments: argparse.Namespace) -> list[Callable[[], Served]]:
    """What makes the clients of the engines that serve elsewhere; empty if none is named. Raises
    UsageError, and EngineUnavailable if the token can't be read."""
    urls, token = arguments.engine_url, arguments.engine_token_file
    if not urls:
        if token is not None:
            raise UsageError("--engine-token-file is for --engine-url")
        return []
    if arguments.replicas is not None or arguments.model or arguments.device:
        raise UsageError("--engine-url has its own: leave out --model, --device and --replicas")
    if unknown := [url for url in urls if not is_engine_url(url)]:
        raise UsageError(f"--engine-url must be https, or http to this machine, not {unknown[0]}")
    if token is not None:
        read_token(token)
    return [partial(RemoteEngine, url, token) for url in urls]


def replicas_of(arguments: argparse.Namespace) -> list[Callable[[], Served]]:
    """What makes the clients of the engines that are to serve: one for each device that is named,
    or so many that take turns at them. Raises UsageError."""
    base = engine_options(arguments)
    devices = [name.strip() or None for name in (base.device or "").split(",")]
    count = len(devices) if arguments.replicas is None else arguments.replicas
    if not 1 <= count <= MOST_REPLICAS:
        raise UsageError(f"--replicas must lie between 1 and {MOST_REPLICAS}, not {count}")
    each = (
        replace(base, device=devices[number % len(devices)], replica=number // len(devices))
        for number in range(count)
    )
    return [partial(EngineClient, options) for options in each]
