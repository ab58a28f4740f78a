"""Starts the engine and loads its model before anyone asks for anything: as soon as a document is
open that it serves. A window without one costs no memory.

Nobody waits for the end of that, and it may have failed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from diffgemma_lsp.session.engine import EngineSession
from diffgemma_lsp.session.engines import Engines
from diffgemma_lsp.session.loading import until_loaded
from diffgemma_lsp.session.requests import Requests
from diffgemma_lsp.session.trouble import unexpected
from diffgemma_lsp.settings.effective import EffectiveSettings
from diffgemma_lsp.settings.schema import Settings
from diffgemma_lsp.text.documents import Document, Documents
from engine.errors import EngineError, ModelError
from engine.models import languages_of


class WarmUp:
    """Happens once for each engine of a session, when all is there that it takes.

    allowed: it is known what the client has to say, which may be that none is wanted. begun: the
        engines for which it has happened, or is under way.
    """

    def __init__(
        self,
        engines: Engines,
        settings: EffectiveSettings,
        requests: Requests,
        documents: Documents,
    ) -> None:
        self.allowed = False
        self.begun: set[EngineSession] = set()
        self._languages: dict[str | None, tuple[str, ...] | None] = {}
        self._engines, self._settings = engines, settings
        self._requests, self._documents = requests, documents

    async def allow(self) -> None:
        """From here on it may begin."""
        settings = self._settings.everywhere
        if settings.engine_url is None:
            self._languages = await asyncio.to_thread(_languages_of, settings)
        self.allowed = True
        self.consider(self._documents.all)

    def consider(self, documents: Iterable[Document]) -> None:
        """Begins for the engines by which some of these are served, which were opened or of which
        the settings have changed."""
        if not self.allowed or not self._settings.everywhere.warm_up:
            return
        for document in documents:
            engine = self._engines.of(document.uri, document.language_id)
            if engine not in self.begun and self._serves(engine, document):
                self.begun.add(engine)
                self._requests.spawn(self._warm_up(engine))

    def _serves(self, engine: EngineSession, document: Document) -> bool:
        languages = self._languages.get(engine.named)
        known = languages is None or document.language_id in languages
        return known and self._settings.off(document.uri, document.language_id) is None

    async def _warm_up(self, engine: EngineSession) -> None:
        """Has the engine started and its model loaded; tells the user if that fails."""
        engine.starting = True
        self._requests.at_change()
        try:
            await (await engine.client()).warm_up()
        except EngineError as error:
            engine.failed(error)
            return
        except Exception as error:
            engine.failed(unexpected(error))
            return
        finally:
            engine.starting = False
            self._requests.at_change()
        status = await until_loaded(engine.status)
        failed = status and status["state"] == "unloaded" and status.get("last_error")
        if failed and engine.trouble.last_error is None:
            engine.failed(ModelError(failed))
            self.consider(self._documents.all)  # which another engine may have to serve now


def _languages_of(settings: Settings) -> dict[str | None, tuple[str, ...] | None]:
    """The languages of each model that is named; None is the one for all."""
    found = {name: languages_of(name) for _, name in settings.models}
    return {**found, None: languages_of(settings.model)}
