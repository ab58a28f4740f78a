"""Files of the workspace as chunks. Everything here touches the disk and runs in threads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from diffgemma_lsp.context.chunks import Chunk, chunked
from diffgemma_lsp.context.python_imports import Import, imports_of, resolve
from diffgemma_lsp.context.visibility import Files, Stamp, real_path, stamp_of
from diffgemma_lsp.context.window import plain

_DEFINED = re.compile(
    r"^[ \t]*(?:(?:async[ \t]+)?def|class)[ \t]+(\w+)|^(\w+)[ \t]*(?::[^=\n]+)?=(?!=)", re.MULTILINE
)


MOST_READ = 24
"""No further import is followed when so many files were read."""


class Identity(NamedTuple):
    """An open document as others see it.

    source: the real path, the same whatever links lead to it; else the URI. name: for people.
    shown: whether its text may be shown.
    """

    source: str
    name: str
    shown: bool


class Read(NamedTuple):
    """A file that was read, what shows whether it has changed since, and its most useful chunks."""

    path: Path
    stamp: Stamp
    chunks: list[Chunk]


class Reader:
    """Reads what lies in the workspace folders."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._files = Files(folders)

    def identify(self, path: Path) -> Identity:
        """What a document at `path` is to others."""
        real = real_path(path) or path
        return Identity(str(real), self._files.shown_name(real), self._files.may_show(path))

    def follow(
        self, document: Path, imports: Sequence[Import], words: frozenset[str]
    ) -> list[Read]:
        """The files that a document imports, by the chunks that say most about what it takes.

        A package that only passes names on leads to where it has them from.
        """
        read: dict[Path, Read] = {}
        document = real_path(document) or document
        for path, names in resolve(imports, document, self._files.folders).items():
            if len(read) >= MOST_READ:
                break
            text = self._take(path, names, words, read)
            if path.name == "__init__.py" and text is not None:
                passed_on = _passing_on(text, names)
                onward = resolve(passed_on, path, self._files.folders)
                for other, taken in onward.items():
                    self._take(other, taken, words, read)
        return [each for each in read.values() if each.path != document]

    def read(self, path: Path) -> Read | None:
        """One file; None if it may not be read."""
        read: dict[Path, Read] = {}
        self._take(path, frozenset(), frozenset(), read)
        return next(iter(read.values()), None)

    def changed(self, known: Mapping[Path, Stamp | None]) -> dict[Path, Read | None]:
        """What has changed on disk, read again; None where nothing may be read any more.

        known: what was read, with its stamp; None has it read in any case.
        """
        return {
            path: self.read(path)
            for path, stamp in known.items()
            if stamp is None or stamp_of(path) != stamp or not self._files.may_read(path)
        }

    def watched(self, paths: Iterable[Path]) -> frozenset[Path]:
        """The folders in which a change matters to `paths`: theirs, and those with rules."""
        found: set[Path] = set()
        for path in paths:
            top = self._files.folder_of(path)
            found |= {p for p in path.parents if top is not None and p.is_relative_to(top)}
        return frozenset(found)

    def _take(
        self, path: Path, names: frozenset[str], words: frozenset[str], read: dict[Path, Read]
    ) -> str | None:
        """Adds a file to `read`; its text, or None if it may not be read."""
        if (found := self._files.read(path)) is None:
            return None
        text, stamp = found
        real = real_path(path) or path
        lines = plain(text).splitlines(keepends=True)
        chunks = chunked(str(real), self._files.shown_name(real), lines)
        # A stable sort: the others come as they stand in the file.
        chunks.sort(key=lambda c: (-len(names & _defined(c.text)), -len(words & c.words)))
        read.setdefault(real, Read(real, stamp, chunks))
        return text


def _passing_on(text: str, names: frozenset[str]) -> tuple[Import, ...]:
    """The imports of a package's own file through which it has some of `names`."""
    wanted = names - _defined(text)
    taken = ((module, wanted & set(own)) for module, own in imports_of(text))
    return tuple(Import(module, tuple(sorted(own))) for module, own in taken if own)


def _defined(text: str) -> frozenset[str]:
    return frozenset(a or b for a, b in _DEFINED.findall(text))
