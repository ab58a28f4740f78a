"""Loading that was begun ahead: nobody waits for its end, and it may have failed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from engine.errors import EngineError, EngineUnavailable, ModelError, OutOfMemory

LOOK_S = 0.5
"""How often the engine is asked while it loads."""

PATIENCE = 20
"""After so many looks in a row without an answer the engine is gone. Importing torch can keep it
from answering for seconds."""


async def failure(ask: Callable[[], Awaitable[dict[str, Any] | None]]) -> str | None:
    """Waits for the end of the loading. Why it failed, or None. ask: gives the engine's status."""
    silent = 0
    while silent < PATIENCE:
        status = await ask()
        if status and status["state"] != "loading":
            return status.get("last_error") if status["state"] == "unloaded" else None
        silent = 0 if status else silent + 1
        await asyncio.sleep(LOOK_S)
    return None


def still(error: EngineError | None) -> EngineError | None:
    """What is left of an error once there is an engine with its model: nothing, if it said that
    there is none. A request may still be too large for it."""
    gone = isinstance(error, ModelError | EngineUnavailable) and not isinstance(error, OutOfMemory)
    return None if gone else error
