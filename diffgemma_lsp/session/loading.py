"""The loading of a model, as seen from outside: its end is waited for, and found out afterwards."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any

HELD_S = 300.0
"""For so long who asked is waited for: by then they have left the place."""

FIRST_S = 5.0
"""So much time a request that was held has at least, once the model is there: its first passes are
slow, and who still waits is not typing."""

LOOK_S = 0.2
"""How often the engine is asked while it loads."""

PATIENCE = 50
"""After so many looks in a row without an answer the engine is gone. Importing torch can keep it
from answering for seconds."""

LOADED = ("ready", "busy")
"""The states of an engine that has its model."""

Ask = Callable[[], Awaitable[dict[str, Any] | None]]
"""Gives what the engine says of itself, None if it does not answer."""


async def until_loaded(ask: Ask) -> dict[str, Any] | None:
    """What the engine says of itself when it loads no more, be it that it failed. Waits for that;
    None if it is gone."""
    silent = 0
    while silent < PATIENCE:
        status = await ask()
        if status and status["state"] != "loading":
            return status
        silent = 0 if status else silent + 1
        await asyncio.sleep(LOOK_S)
    return None


def was_without_model(status: dict[str, Any] | None, since_s: float) -> bool:
    """Whether an engine that says this had no model at some time within the last `since_s`."""
    if not status or status["state"] not in LOADED:
        return True
    return status.get("loaded_s", math.inf) < since_s
