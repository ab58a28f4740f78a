"""Which settings hold for a document, of all that was said in all ways.

What a client pushes or answers goes before its initializationOptions, and a workspace folder's
answer before the one for all folders. What is said for a language goes before what is said for all
documents, wherever each was said, and what is said for a glob before both.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from itertools import chain

from diffgemma_lsp.settings.globs import fits_uri, path_of
from diffgemma_lsp.settings.schema import Settings
from diffgemma_lsp.settings.sources import Source, Values, read_own, read_shared, section

_PATH = re.compile(r"[/*?~.\[{]")
"""What tells a path from the id of a language."""


def _itself(uri: str) -> str:
    return uri


class EffectiveSettings:
    """The settings of one session, as said so far. Each source says all that it has, each time.

    home: gives the URI whose settings a document has: that of its notebook if it is a cell.
    everywhere: what holds where nothing is said of the language, the path or the folder.
    known: set as soon as it is known what the client has to say, if it can be asked.
    """

    def __init__(self, home: Callable[[str], str] = _itself) -> None:
        self._home = home
        self._own = self._pushed = self._pulled = Source()
        self._folders: dict[str, Source] = {}
        self.everywhere = Settings()
        self.known = asyncio.Event()

    def initialize(self, raw: object) -> None:
        """Takes the initializationOptions."""
        self._own = read_own(raw)
        self.everywhere = _over(self._own)

    def push(self, raw: object) -> None:
        """Takes settings that the client sent: its whole configuration, or this server's part."""
        self._pushed = read_shared(section(raw), _over(self._own))
        self.everywhere = _over(self._own, self._pushed, self._pulled)

    def pull(self, raw: object, folders: Mapping[str, object]) -> None:
        """Takes what the client answered: for all, and for each workspace folder by its URI."""
        self._pulled = read_shared(raw, _over(self._own, self._pushed))
        self.everywhere = _over(self._own, self._pushed, self._pulled)
        self._folders = {
            path_of(uri): read_shared(part, self.everywhere) for uri, part in folders.items()
        }

    @property
    def complaints(self) -> list[str]:
        """A line about everything that is wrong in what was said last."""
        complaints = (source.complaints for source in self._sources)
        return list(dict.fromkeys(chain.from_iterable(complaints)))

    @property
    def off_everywhere(self) -> bool:
        """Whether no document at all gets suggestions."""
        scoped = [folder.values for folder in self._folders.values()]
        for source in self._sources:
            scoped += [*source.languages.values(), *source.globs.values()]
        return not self.everywhere.enable and not any(values.get("enable") for values in scoped)

    def for_document(self, uri: str, language_id: str) -> Settings:
        """What holds for one document."""
        uri = self._home(uri)
        sources = [self._own, self._pushed, self._pulled]
        if (folder := self._folder_of(uri)) is not None:
            sources.append(folder)
        values: Values = {}
        for source in sources:
            values |= source.values
        for source in sources:
            values |= source.languages.get(language_id, {})
        for source in sources:
            for glob, override in source.globs.items():
                if fits_uri(uri, glob):
                    values |= override
        return Settings(**values)

    def model_for(self, uri: str, language_id: str) -> str | None:
        """The model that is named for a document: by the last path that fits, else by its language;
        None if none is, or it is the one for all."""
        settings = self.everywhere
        if settings.engine_url is not None:
            return None
        named = [model for key, model in settings.models if key == language_id]
        named += [
            model
            for key, model in settings.models
            if _PATH.search(key) and fits_uri(self._home(uri), key)
        ]
        return named[-1] if named and named[-1] != settings.model else None

    def off(self, uri: str, language_id: str) -> str | None:
        """Why there are no suggestions in this document, or None if there are."""
        settings = self.for_document(uri, language_id)
        if not settings.enable:
            whose = " of a folder, language or path" if self.everywhere.enable else ""
            return f"suggestions are turned off{' here' * bool(whose)} (setting enable{whose})"
        if language_id in settings.languages_off:
            return f"suggestions are turned off for {language_id} (setting languages_off)"
        for glob in settings.globs_off:
            if fits_uri(self._home(uri), glob):
                return f"suggestions are turned off for {glob} (setting globs_off)"
        return None

    @property
    def _sources(self) -> list[Source]:
        return [self._own, self._pushed, self._pulled, *self._folders.values()]

    def _folder_of(self, uri: str) -> Source | None:
        """What was said for the innermost workspace folder around a document."""
        if not self._folders:
            return None
        path = path_of(uri)
        around = [folder for folder in self._folders if path.startswith(f"{folder.rstrip('/')}/")]
        return self._folders[max(around, key=len)] if around else None


def _over(*sources: Source) -> Settings:
    """What holds for all documents, each source over those before it."""
    return Settings(**dict(chain.from_iterable(source.values.items() for source in sources)))
