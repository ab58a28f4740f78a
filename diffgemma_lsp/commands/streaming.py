"""One request to the engine service, with the loading of the model shown if it takes long."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from diffgemma_lsp.commands import UsageError
from diffgemma_lsp.engine_client import EngineClient
from diffgemma_lsp.engine_process import EngineOptions
from engine.errors import EngineError, EngineUnavailable
from engine.known import NAMES
from engine.models import SHIPPED, local_model
from engine.types import Frame, Infill, InfillRequest

PATIENCE_S = 0.5
"""How long nothing may happen before the loading is shown."""

POLL_S = 0.2


def add_engine_flags(parser: argparse.ArgumentParser, several: bool = False) -> None:
    """The flags that say which model, and where it runs: on one device, or on several."""
    parser.add_argument(
        "--model",
        metavar="PATH",
        help="a name that `models` lists, a folder, or owner/name of the hub (default: mini where "
        "its base is, else nano)",
    )
    more = "; several are parted by commas" if several else ""
    parser.add_argument(
        "--device", help=f"cpu, cuda, cuda:1 or mps (default: the best there is){more}"
    )


@asynccontextmanager
async def connected(arguments: argparse.Namespace) -> AsyncGenerator[EngineClient]:
    """A client of the engine service that the flags describe."""
    client = EngineClient(engine_options(arguments))
    try:
        yield client
    finally:
        await client.aclose()


def engine_options(arguments: argparse.Namespace) -> EngineOptions:
    """What the flags say. Raises UsageError."""
    model: str | None = arguments.model
    if model is not None and not is_model(model):
        names = ", ".join((*SHIPPED, *NAMES))
        raise UsageError(f"no model at {model}; name {names}, a folder, or one such as owner/name")
    if model is not None and model not in SHIPPED:
        model = local_model(model, Path.cwd())
    return EngineOptions(model=model, device=arguments.device)


def is_model(model: str) -> bool:
    """Whether it is a model with a name here, a path that exists, or may be a name on the hub."""
    hub = re.fullmatch(r"(?!\.)[\w.-]+/[\w.-]+(@[\w./-]+)?", model) is not None
    named = model in SHIPPED or model in NAMES
    return named or hub or os.path.exists(os.path.expanduser(model))


async def follow(
    client: EngineClient, request: InfillRequest, on_frame: Callable[[Frame], None] | None = None
) -> Infill:
    """Sends the request, hands on its frames and returns its result."""
    loading = asyncio.create_task(_show_loading(client, Console(stderr=True)))
    try:
        async with aclosing(client.stream(request)) as events:
            async for event in events:
                await _end(loading)
                if isinstance(event, Infill):
                    return event
                if on_frame:
                    on_frame(event)
    finally:
        await _end(loading)
    raise EngineUnavailable("the engine ended the stream without a result; please try again")


async def _end(task: asyncio.Task[None]) -> None:
    if not task.done():
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _show_loading(client: EngineClient, console: Console) -> None:
    """Draws how far the loading is until it is cancelled. Only a terminal sees it."""
    if not console.is_terminal:
        return
    await asyncio.sleep(PATIENCE_S)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting the engine", total=None)
        while True:
            with suppress(EngineError):
                text, share = _loading_state(await client.status())
                progress.update(task, description=text, total=1.0 if share else None)
                progress.update(task, completed=share or 0.0)
            await asyncio.sleep(POLL_S)


def _loading_state(status: dict[str, Any] | None) -> tuple[str, float | None]:
    """What the service is at, and how much of it is done where that is known."""
    if status is None:
        return "starting the engine", None
    if status["state"] == "loading":
        return status["loading"] or "loading the model", status["fraction"]
    return "waiting for the engine" if status["jobs"] > 1 else "working", None
