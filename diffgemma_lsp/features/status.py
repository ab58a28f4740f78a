"""diffgemma/status: how the server is doing, and why it last showed nothing.

A request without parameters. The result is {state, message, model, lastReason}:

state: "off", "error", "loading", "idle" (the model is not loaded), "filling" or "ready".
message: one line for a person.
model: what the engine runs, or null.
lastReason: why the last request was answered with nothing, or null if it was not.
"""

from __future__ import annotations

import asyncio
from typing import Any

from diffgemma_lsp.session import Session

METHOD = "diffgemma/status"


def status(session: Session, params: object) -> asyncio.Task[dict[str, Any]]:
    """Asks the engine too, if there is one; never starts one."""
    return session.spawn(_status(session))


async def _status(session: Session) -> dict[str, Any]:
    engine = await session.engine_status() or {}
    state, message = _state(session, engine)
    info: dict[str, Any] = engine.get("info") or {}
    return {
        "state": state,
        "message": message,
        "model": info.get("model") or engine.get("model") or session.settings.model,
        "lastReason": session.last_reason,
    }


def _state(session: Session, engine: dict[str, Any]) -> tuple[str, str]:
    if session.scopes.off_everywhere:
        return "off", "suggestions are turned off (setting enable)"
    if session.last_error is not None:
        return "error", str(session.last_error)
    if engine.get("state") == "loading":
        done = engine.get("fraction")
        return "loading", "loading the model" + (f": {done:.0%}" if done is not None else "")
    if session.in_flight:
        return "filling", f"{session.in_flight} in flight"
    if engine.get("state") in ("ready", "busy"):
        return "ready", "ready"
    return "idle", "the model is not loaded; the next request loads it"
