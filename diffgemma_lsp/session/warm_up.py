"""Starts the engine and loads its model before anyone asks for anything: as soon as a document is
open that it serves. A window without one costs no memory.

Nobody waits for the end of that, and it may have failed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from diffgemma_lsp.session.engine import EngineSession
from diffgemma_lsp.session.loading import until_loaded
from diffgemma_lsp.session.requests import Requests
from diffgemma_lsp.session.trouble import unexpected
from diffgemma_lsp.settings.effective import EffectiveSettings
from diffgemma_lsp.text.documents import Document, Documents
from engine.errors import EngineError, ModelError
from engine.models import languages_of


class WarmUp:
    """Happens once in a session, when all is there that it takes.

    allowed: it is known what the client has to say, which may be that none is wanted. begun: it has
    happened, or is under way.
    """

    def __init__(
        self,
        engine: EngineSession,
        settings: EffectiveSettings,
        requests: Requests,
        documents: Documents,
    ) -> None:
        self.allowed = self.begun = False
        self._languages: tuple[str, ...] | None = None
        self._engine, self._settings = engine, settings
        self._requests, self._documents = requests, documents

    async def allow(self) -> None:
        """From here on it may begin."""
        settings = self._settings.everywhere
        if settings.engine_url is None:
            self._languages = await asyncio.to_thread(languages_of, settings.model)
        self.allowed = True
        self.consider(self._documents.all)

    def consider(self, documents: Iterable[Document]) -> None:
        """Begins if one of these, which were opened or of which the settings have changed, is
        served."""
        wanted = self.allowed and not self.begun and self._settings.everywhere.warm_up
        if wanted and any(map(self._serves, documents)):
            self.begun = True
            self._requests.spawn(self._warm_up())

    def _serves(self, document: Document) -> bool:
        known = self._languages is None or document.language_id in self._languages
        return known and self._settings.off(document.uri, document.language_id) is None

    async def _warm_up(self) -> None:
        """Has the engine started and its model loaded; tells the user if that fails."""
        engine = self._engine
        engine.starting = True
        self._requests.at_change()
        try:
            await (await engine.client()).warm_up()
        except EngineError as error:
            engine.trouble.report(error)
            return
        except Exception as error:
            engine.trouble.report(unexpected(error))
            return
        finally:
            engine.starting = False
            self._requests.at_change()
        status = await until_loaded(engine.status)
        failed = status and status["state"] == "unloaded" and status.get("last_error")
        if failed and engine.trouble.last_error is None:
            engine.trouble.report(ModelError(failed))
