"""How the server is doing, in a word and a line, and news of it for a client that wants them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any, Literal

from diffgemma_lsp.session.engine import EngineSession
from diffgemma_lsp.session.loading import LOADED, PATIENCE
from diffgemma_lsp.session.session import Session

State = Literal["off", "loading", "error", "slow", "filling", "ready", "idle"]

ORDER: tuple[State, ...] = ("off", "loading", "error", "slow", "filling", "ready", "idle")
"""Of what holds for several engines, the first of these is told."""

SLOW = 3
"""So many deadlines missed in a row mean that the engine is too slow here."""

DELAY_S = 0.1
"""What changes is told after this time, if it is still so: a flicker is no news."""

POLL_S = 0.5
"""How often the engine is asked while there is something to wait for."""

UNLOAD_S = 2.0
"""So long after it is due an idle engine has freed the memory."""


@dataclass(frozen=True, slots=True)
class Status:
    """message: a line for a person, with the way out if there is something wrong.

    percent: how much of the loading is done, if that is known.
    """

    state: State
    message: str
    percent: int | None = None


def status_of(
    session: Session,
    engine: EngineSession,
    says: dict[str, Any],
    language_id: str | None = None,
) -> Status:
    """How the server is doing with one of its engines. says: what that says of itself, empty if it
    is not there. language_id: of the document that it is asked about.
    """
    if session.settings.off_everywhere:
        return Status("off", "suggestions are turned off (setting enable)")
    if engine.starting:
        return Status("loading", "starting the engine")
    doing = says.get("state")
    if doing == "loading":
        return _loading(says.get("fraction"))
    if engine.trouble.last_error is not None:
        return Status("error", str(engine.trouble.last_error))
    if doing == "unloaded" and says.get("last_error"):
        return Status("error", str(says["last_error"]))
    if engine.trouble.missed >= SLOW:
        return Status(
            "slow",
            "the engine has nothing in time: give it more of it (settings automatic_budget_ms and "
            "invoked_budget_ms), a faster device or a smaller model",
        )
    if session.requests.in_flight:
        return Status("filling", "working")
    if doing in LOADED:
        limits = None if language_id is None else engine.model.silent(language_id)
        return Status("ready", "ready" if limits is None else f"ready; {limits}")
    return Status("idle", "the model is not loaded; the next request loads it")


def overall(session: Session, says: dict[EngineSession, dict[str, Any]]) -> Status:
    """How the server is doing with all of its engines: what there is to wait for, or to be mended,
    and with which, if there are several."""
    each = [(status_of(session, engine, said), engine) for engine, said in says.items()]
    status, engine = min(each, key=lambda one: ORDER.index(one[0].state))
    if len(each) > 1 and status.state in ("loading", "error", "slow"):
        return replace(status, message=f"{engine.name}: {status.message}")
    return status


def _loading(fraction: float | None) -> Status:
    if fraction is None:
        return Status("loading", "loading the model")
    percent = round(100 * fraction)
    return Status("loading", f"loading the model: {percent}%", percent)


class News:
    """Tells the client how the server is doing, at each change and not more often.

    What the engine does can only be asked. It is asked when something has changed, and again and
    again only while it loads or works: a server with nothing to do asks once more, when an engine
    that nobody uses has freed the memory.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._says: dict[EngineSession, dict[str, Any]] = {session.engines.default: {}}
        self._unheard: dict[EngineSession, int] = {}
        self._changed = False
        self._told: Status | None = None
        self._telling: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._later: asyncio.TimerHandle | None = None

    def changed(self) -> None:
        """Something is not as it was; the client may want to know."""
        self._changed = True
        self._tell()
        if self._looking is None or self._looking.done():
            self._looking = self._session.requests.spawn(self._look())

    def _tell(self) -> None:
        if self._telling is None or self._telling.done():
            self._telling = self._session.requests.spawn(self._tell_soon())

    async def _tell_soon(self) -> None:
        await asyncio.sleep(DELAY_S)
        now = overall(self._session, self._says)
        if now != self._told:
            self._told = now
            self._session.client.status(as_json(now))

    async def _look(self) -> None:
        while self._changed or self._waiting:
            self._changed = False
            said = await self._session.engines.status()
            self._says = {engine: self._heard(engine, found) for engine, found in said.items()}
            self._tell()
            await asyncio.sleep(POLL_S)
        self._look_later()

    def _heard(self, engine: EngineSession, found: dict[str, Any] | None) -> dict[str, Any]:
        """What an engine says, or what it said last if it has been silent for a moment only."""
        self._unheard[engine] = 0 if found else self._unheard.get(engine, 0) + 1
        kept = {} if self._unheard[engine] > PATIENCE else self._says.get(engine, {})
        return found or kept

    def _look_later(self) -> None:
        if self._later is not None:
            self._later.cancel()
        left = [
            max(0.0, said["idle_unload_s"] - said["idle_s"])
            for said in self._says.values()
            if said.get("state") in LOADED and said.get("idle_unload_s") is not None
        ]
        if left:
            loop = asyncio.get_running_loop()
            self._later = loop.call_later(min(left) + UNLOAD_S, self._unloaded)

    def _unloaded(self) -> None:
        self._session.requests.at_change()  # which is nothing any more once the session is closed

    @property
    def _waiting(self) -> bool:
        session = self._session
        return bool(
            session.requests.in_flight
            or any(engine.starting for engine in session.engines.all)
            or any(said.get("state") == "loading" for said in self._says.values())
        )


def as_json(status: Status) -> dict[str, Any]:
    """The status as it is sent."""
    return {"state": status.state, "message": status.message, "percent": status.percent}
