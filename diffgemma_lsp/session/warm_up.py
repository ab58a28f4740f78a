"""Starts the engine and loads its model before anyone asks for anything.

Nobody waits for the end of that, and it may have failed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from diffgemma_lsp.session.requests import unexpected
from diffgemma_lsp.session.session import Session
from engine.errors import EngineError, ModelError

LOOK_S = 0.5
"""How often the engine is asked while it loads."""

PATIENCE = 20
"""After so many looks in a row without an answer the engine is gone. Importing torch can keep it
from answering for seconds."""


async def warm_up(session: Session) -> None:
    """Has the engine started and its model loaded; tells the user if that fails."""
    engine = session.engine
    engine.starting = True
    session.requests.at_change()
    try:
        await (await engine.client()).warm_up()
    except EngineError as error:
        engine.report(error)
        return
    except Exception as error:
        engine.report(unexpected(error))
        return
    finally:
        engine.starting = False
        session.requests.at_change()
    failure = await _failure(engine.status)
    if failure is not None and engine.last_error is None:
        engine.report(ModelError(failure))


async def _failure(ask: Callable[[], Awaitable[dict[str, Any] | None]]) -> str | None:
    """Waits for the end of the loading. Why it failed, or None. ask: gives the engine's status."""
    silent = 0
    while silent < PATIENCE:
        status = await ask()
        if status and status["state"] != "loading":
            return status.get("last_error") if status["state"] == "unloaded" else None
        silent = 0 if status else silent + 1
        await asyncio.sleep(LOOK_S)
    return None
