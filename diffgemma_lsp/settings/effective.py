"""Which settings hold for a document, of all that was said in all ways.

What a client pushes or answers goes before its initializationOptions, and a workspace folder's
answer before the one for all folders. What is said for a language goes before what is said for all
documents, wherever each was said, and what is said for a glob before both.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

from diffgemma_lsp.settings.schema import Settings, fits, path_of
from diffgemma_lsp.settings.sources import Layer, Values, read_own, read_shared, section


class Scopes:
    """The settings of one session, as said so far. Each source says all that it has, each time."""

    def __init__(self) -> None:
        self._own = self._pushed = self._pulled = Layer()
        self._folders: dict[str, Layer] = {}
        self.settings = Settings()
        """What holds where nothing is said of the language, the path or the folder."""

    def initialize(self, raw: object) -> None:
        """Takes the initializationOptions."""
        self._own = read_own(raw)
        self.settings = _over(self._own)

    def push(self, raw: object) -> None:
        """Takes settings that the client sent: its whole configuration, or this server's part."""
        self._pushed = read_shared(section(raw), _over(self._own))
        self.settings = _over(self._own, self._pushed, self._pulled)

    def pull(self, raw: object, folders: Mapping[str, object]) -> None:
        """Takes what the client answered: for all, and for each workspace folder by its URI."""
        self._pulled = read_shared(raw, _over(self._own, self._pushed))
        self.settings = _over(self._own, self._pushed, self._pulled)
        self._folders = {
            path_of(uri): read_shared(part, self.settings) for uri, part in folders.items()
        }

    @property
    def complaints(self) -> list[str]:
        """A line about everything that is wrong in what was said last."""
        return list(dict.fromkeys(chain.from_iterable(layer.complaints for layer in self._layers)))

    @property
    def off_everywhere(self) -> bool:
        """Whether no document at all gets suggestions."""
        scoped = [folder.values for folder in self._folders.values()]
        for layer in self._layers:
            scoped += [*layer.languages.values(), *layer.globs.values()]
        return not self.settings.enable and not any(values.get("enable") for values in scoped)

    def settings_for(self, uri: str, language_id: str) -> Settings:
        """What holds for one document."""
        layers = [self._own, self._pushed, self._pulled]
        if (folder := self._folder_of(uri)) is not None:
            layers.append(folder)
        values: Values = {}
        for layer in layers:
            values |= layer.values
        for layer in layers:
            values |= layer.languages.get(language_id, {})
        for layer in layers:
            for glob, override in layer.globs.items():
                if fits(uri, glob):
                    values |= override
        return Settings(**values)

    @property
    def _layers(self) -> list[Layer]:
        return [self._own, self._pushed, self._pulled, *self._folders.values()]

    def _folder_of(self, uri: str) -> Layer | None:
        """What was said for the innermost workspace folder around a document."""
        path = path_of(uri)
        around = [folder for folder in self._folders if path.startswith(f"{folder.rstrip('/')}/")]
        return self._folders[max(around, key=len)] if around else None


def _over(*layers: Layer) -> Settings:
    """What holds for all documents, each layer over those before it."""
    return Settings(**dict(chain.from_iterable(layer.values.items() for layer in layers)))
