"""The engines of a session: one for all documents, and one for each other model that the user has
named for a language or a path (setting models), made when the first such document needs it."""

from __future__ import annotations

import asyncio
from typing import Any

from diffgemma_lsp.context.neighbours import Neighbours
from diffgemma_lsp.lsp.client import Client
from diffgemma_lsp.session.engine import EngineSession, MakeEngine
from diffgemma_lsp.session.requests import Requests
from diffgemma_lsp.settings.effective import EffectiveSettings


class Engines:
    """default: that of all documents for which no other model is named."""

    def __init__(
        self,
        make: MakeEngine,
        settings: EffectiveSettings,
        requests: Requests,
        neighbours: Neighbours,
        client: Client,
    ) -> None:
        self._parts = make, settings, requests, neighbours, client
        self._settings = settings
        self.default = EngineSession(*self._parts)
        self._named: dict[str, EngineSession] = {}

    @property
    def all(self) -> list[EngineSession]:
        """All, the default one first, without those in whose place that answers."""
        return [self.default, *(one for one in self._named.values() if not one.gave_way)]

    def of(self, uri: str, language_id: str) -> EngineSession:
        """The engine of a document."""
        name = self._settings.model_for(uri, language_id)
        if name is None:
            return self.default
        if name not in self._named:
            self._named[name] = EngineSession(*self._parts, name, self.default)
        named = self._named[name]
        return self.default if named.gave_way else named

    async def status(self) -> dict[EngineSession, dict[str, Any] | None]:
        """What each says of itself, if it is there and says it soon. Starts nothing."""
        engines = self.all
        said = await asyncio.gather(*(engine.status() for engine in engines))
        return dict(zip(engines, said, strict=True))

    async def unload(self) -> bool:
        """Has all free their models' memory. False if none is running. Raises EngineError."""
        others = [engine for engine in self.all[1:] if engine.begun]
        return any([await engine.unload() for engine in (self.default, *others)])

    def close(self) -> None:
        """Lets go of all, in the background."""
        for engine in (self.default, *self._named.values()):
            engine.close()
