"""The end of a loading that was begun ahead: nobody waits for it, and it may have failed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

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
