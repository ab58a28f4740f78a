"""One client's session: all its state, each part by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from diffgemma_lsp.context.neighbours import Neighbours
from diffgemma_lsp.lsp.client import Client
from diffgemma_lsp.lsp.positions import Encoding
from diffgemma_lsp.session.engine import EngineSession, MakeEngine
from diffgemma_lsp.session.engines import Engines
from diffgemma_lsp.session.outcomes import Outcomes
from diffgemma_lsp.session.requests import Requests
from diffgemma_lsp.session.suggestion_cache import SuggestionCache
from diffgemma_lsp.session.warm_up import WarmUp
from diffgemma_lsp.settings.effective import EffectiveSettings
from diffgemma_lsp.stats.acceptances import Acceptances
from diffgemma_lsp.stats.counts import Kind, Stats
from diffgemma_lsp.text.documents import Documents
from diffgemma_lsp.text.history import History
from engine.errors import EngineError

CLOSE_S = 0.5
"""For so long the end of a session may wait for others."""


WRITE_S = 60.0
"""So long after the first of them numbers are written to their file."""


class Session:
    """The state behind one client. Lives on one event loop."""

    def __init__(self, make_engine: MakeEngine, client: Client) -> None:
        self.client = client
        self.encoding: Encoding = "utf-16"
        self.documents = Documents()
        self.history = History()
        self.settings = EffectiveSettings(self.documents.home)
        self.requests = Requests()
        self.neighbours = Neighbours(self.requests.spawn, self.settings)
        self.engines = Engines(make_engine, self.settings, self.requests, self.neighbours, client)
        self.warm_up = WarmUp(self.engines, self.settings, self.requests, self.documents)
        self.outcomes = Outcomes(client, self._report)
        self.suggestions = SuggestionCache()
        self.stats = Stats()
        self.acceptances = Acceptances(self.documents, self._count, _later)
        self._writing: asyncio.TimerHandle | None = None

    def engine_of(self, uri: str) -> EngineSession:
        """The engine of a document, or that for all if it is not open."""
        document = self.documents.get(uri)
        return self.engines.of(uri, document.language_id) if document else self.engines.default

    def _report(self, uri: str, error: EngineError, invoked: bool) -> None:
        self.engine_of(uri).trouble.report(error, invoked)

    def end_unwanted(self) -> None:
        """Ends the requests of documents for which suggestions are turned off."""
        for uri in self.requests.documents:
            document = self.documents.get(uri)
            if document and (reason := self.settings.off(uri, document.language_id)):
                self.requests.end(reason, uri)

    def _count(self, kind: Kind, language: str, confidence: float | None, number: int) -> None:
        if self.settings.everywhere.stats:
            self.stats.add(kind, language, confidence, number)
            self._writing = self._writing or _later(WRITE_S, self._write)

    def _write(self) -> None:
        self._writing = None
        self.requests.spawn(asyncio.to_thread(self.stats.write))

    async def close(self) -> None:
        """Ends what is under way and lets go of the engine. Takes CLOSE_S at most."""
        self.requests.stop()
        self.acceptances.stop()
        if self._writing is not None:
            self._writing.cancel()
            self._write()
        self.engines.close()
        await self.requests.wait(CLOSE_S)


def _later(seconds: float, call: Callable[[], None]) -> asyncio.TimerHandle:
    return asyncio.get_running_loop().call_later(seconds, call)
