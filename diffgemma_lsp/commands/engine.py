"""`diffgemma-lsp engine status|stop|unload`: the resident engines, seen and ended.

They are found by the locks that they hold, so a model need not be there any more.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from diffgemma_lsp.commands import UsageError
from diffgemma_lsp.engine_client import EngineClient
from diffgemma_lsp.engine_process import EngineOptions
from engine.errors import EngineUnavailable
from engine.models import SHIPPED, WEIGHTS, local_model
from engine.paths import EnginePaths, engine_paths, running_engines

if TYPE_CHECKING:
    from diffgemma_lsp.commands import Subparsers

_T = TypeVar("_T")

NOT_RUNNING = 1
"""What `engine status` exits with when there is no engine. `stop` and `unload` are done then."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A service that lives. status: what it says of itself."""

    paths: EnginePaths
    status: dict[str, Any]

    @property
    def model(self) -> str:
        """Its model, as --model takes it."""
        if "version" not in self.status:
            return "?"
        model: str = self.status["model"] or SHIPPED[0]
        path = Path(model)
        return path.name if path.parent == WEIGHTS else model

    @property
    def device(self) -> str:
        """Where its model is, or will be."""
        info: dict[str, Any] = self.status.get("info") or {}
        return info.get("device") or self.status.get("device") or "-"

    def is_of(self, model: str | None, device: str | None) -> bool:
        """Whether it was started for these; None means any. The model may be gone by now."""
        if model is None and device is None:
            return True
        if "version" not in self.status:
            return self.paths == engine_paths(local_model(model, Path.cwd()), device)
        own = self.status["model"]
        same = model is None or own in (
            local_model(model, Path.cwd()),
            str(Path(os.path.expanduser(model)).resolve()),  # which may be gone
        )
        return same and device in (None, self.device, self.status["device"])


def add_parser(subparsers: Subparsers) -> None:
    """Adds `engine` and its actions to the command line."""
    parser = subparsers.add_parser("engine", help="list, stop or unload the resident engines")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True, dest="action")
    status = actions.add_parser(
        "status",
        help="what they are doing",
        description="Lists your engines, a line each. Exits with 1 when none is running.",
    )
    status.add_argument("--json", action="store_true", help="all there is to know, as a JSON list")
    stop = actions.add_parser("stop", help="end the process")
    unload = actions.add_parser("unload", help="free the model's memory, keep the process")
    for action, run in ((status, run_status), (stop, run_stop), (unload, run_unload)):
        action.add_argument("--model", metavar="PATH", help="only those of this model")
        action.add_argument("--device", help="only those on this device")
        action.set_defaults(run=run)
    for action in (stop, unload):
        action.add_argument("--all", action="store_true", help="if there are several")


def run_status(arguments: argparse.Namespace) -> int:
    """Lists the engines; exits with 1 if there is none."""
    found = asyncio.run(_found(arguments))
    if arguments.json:
        print(json.dumps([engine.status for engine in found]))
    else:
        print(listed(found) if found else "not running")
    return 0 if found else NOT_RUNNING


def run_stop(arguments: argparse.Namespace) -> int:
    """Ends the engine, if there is one."""
    return asyncio.run(_each(arguments, EngineClient.stop, "stopped"))


def run_unload(arguments: argparse.Namespace) -> int:
    """Frees the model's memory, if an engine holds one."""
    return asyncio.run(_each(arguments, EngineClient.unload, "unloaded"))


def listed(engines: Sequence[Engine]) -> str:
    """A line for each engine, below one that names its columns."""
    rows = [("model", "pid", "device", "memory", "idle", "state"), *map(_row, engines)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _row(engine: Engine) -> tuple[str, ...]:
    status = engine.status
    state = str(status["state"])
    if status.get("loading"):
        state += f", {status['loading']}: {status['fraction']:.0%}"
    if status.get("last_error"):
        state += f", {status['last_error']}"
    memory, idle = megabytes(status.get("memory_bytes")), duration(status.get("idle_s"))
    return (
        engine.model,
        str(status["pid"]),
        engine.device,
        memory or "-",
        idle or "-",
        state,
    )


def megabytes(count: int | None) -> str | None:
    """A number of bytes for people."""
    return None if count is None else f"{count / 2**20:,.0f} MiB"


def duration(seconds: float | None) -> str | None:
    """A time span for people."""
    if seconds is None:
        return None
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


async def _found(arguments: argparse.Namespace) -> list[Engine]:
    """The engines that the flags name."""
    engines = [Engine(paths, await _status(paths)) for paths in running_engines()]
    return [one for one in engines if one.is_of(arguments.model, arguments.device)]


async def _status(paths: EnginePaths) -> dict[str, Any]:
    try:
        status = await _ask(paths, EngineClient.status)
    except EngineUnavailable:
        status = None
    return status or {"state": "does not answer", "pid": int(paths.holder or 0)}


async def _each(
    arguments: argparse.Namespace, ask: Callable[[EngineClient], Awaitable[bool]], done: str
) -> int:
    """Asks the one engine that the flags name, or all of them. Raises UsageError."""
    engines = await _found(arguments)
    if not engines:
        print("not running")
    if len(engines) > 1 and not arguments.all:
        models = ", ".join(f"{engine.model} ({engine.device})" for engine in engines)
        raise UsageError(f"there are several: {models}; choose by --model and --device, or --all")
    failure: EngineUnavailable | None = None
    for engine in engines:
        try:
            await _ask(engine.paths, ask)
            print(f"{done} {engine.model}, pid {engine.status['pid']}")
        except EngineUnavailable as error:
            failure = error
    if failure is not None:
        raise failure
    return 0


async def _ask(paths: EnginePaths, ask: Callable[[EngineClient], Awaitable[_T]]) -> _T:
    client = EngineClient(EngineOptions(), paths=paths)
    try:
        return await ask(client)
    finally:
        await client.aclose()
