"""`diffgemma-lsp engine status|stop|unload`: the resident engine, seen and ended."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from diffgemma_lsp.commands.streaming import add_engine_flags, connected

if TYPE_CHECKING:
    from diffgemma_lsp.commands import Subparsers

Status = dict[str, Any]

NOT_RUNNING = 1
"""What `engine status` exits with when there is no engine. `stop` and `unload` are done then."""


def add_parser(subparsers: Subparsers) -> None:
    """Adds `engine` and its actions to the command line."""
    parser = subparsers.add_parser("engine", help="status, stop or unload the resident engine")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True, dest="action")
    status = actions.add_parser(
        "status",
        help="what it is doing",
        description="Says what the engine is doing. Exits with 1 when none is running.",
    )
    status.add_argument("--json", action="store_true", help="as one JSON object (null: no engine)")
    stop = actions.add_parser("stop", help="end the process")
    unload = actions.add_parser("unload", help="free the model's memory, keep the process")
    for action, run in ((status, run_status), (stop, run_stop), (unload, run_unload)):
        add_engine_flags(action)
        action.set_defaults(run=run)


def run_status(arguments: argparse.Namespace) -> int:
    """Prints the status; exits with 1 if no engine is running."""
    status = asyncio.run(_status(arguments))
    if arguments.json:
        print(json.dumps(status))
    elif status is None:
        print("not running")
    else:
        Console(highlight=False).print(table(status))
    return NOT_RUNNING if status is None else 0


def run_stop(arguments: argparse.Namespace) -> int:
    """Ends the engine, if there is one."""
    return asyncio.run(_end(arguments, unload=False))


def run_unload(arguments: argparse.Namespace) -> int:
    """Frees the model's memory, if an engine holds one."""
    return asyncio.run(_end(arguments, unload=True))


def table(status: Status) -> Table:
    """The status for people."""
    info: Status = status.get("info") or {}
    loading = status.get("loading")
    state = str(status["state"])
    if loading:
        state += f": {loading}, {status.get('fraction') or 0.0:.0%}"
    rows = {
        "state": state,
        "model": info.get("model") or status.get("model") or "nano",
        "parameters": f"{info['parameters'] / 1e6:,.1f} million" if info else None,
        "device": f"{info['device']}, {info['dtype']}" if info else status.get("device"),
        "canvas": f"{info['canvas_length']} tokens" if info else None,
        "context": f"{info['context_tokens']:,} tokens" if info else None,
        "memory": megabytes(status.get("memory_bytes")),
        "requests": status.get("jobs"),
        "idle": duration(status.get("idle_s")),
        "up": duration(time.time() - status["started"]) if "started" in status else None,
        "process": status.get("pid"),
        "version": status.get("version"),
        "last error": status.get("last_error"),
    }
    grid = Table.grid(padding=(0, 3))
    for name, value in rows.items():
        if value is not None:
            grid.add_row(f"[bold]{name}[/]", str(value))
    return grid


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


async def _status(arguments: argparse.Namespace) -> Status | None:
    async with connected(arguments) as client:
        return await client.status()


async def _end(arguments: argparse.Namespace, *, unload: bool) -> int:
    async with connected(arguments) as client:
        if await client.status() is None:
            print("not running")
        elif unload:
            await client.unload()
            print("unloaded")
        else:
            await client.stop()
            print("stopped")
    return 0
