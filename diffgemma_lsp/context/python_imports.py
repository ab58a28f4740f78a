"""Which files of the workspace a Python document imports, found without running anything.

The document is being typed, so it need not parse: what is looked for is the statements' shape.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

HEAD_CHARS = 16_384
"""Imports stand at the top: what comes later is not looked through."""

MOST_FILES = 16
"""The most files that one document leads to."""

_STATEMENT = re.compile(
    r"^[ \t]*(?:"
    r"from[ \t]++(?P<base>\.*+(?:[ \t]*+(?!import\b)[\w.]++)?+)[ \t]++import[ \t]*"
    r"(?:\((?P<many>[^)]*)\)?|(?P<names>[^\n#;]*))"
    r"|import[ \t]+(?P<modules>[^\n#;]*))",
    re.MULTILINE,
)
_NAME = re.compile(r"(?P<name>[\w.]+)(?:\s+as\s+\w+)?")
_COMMENT = re.compile(r"#[^\n]*")


class Import(NamedTuple):
    """One module, with its leading dots if it is relative, and the names that are taken from it."""

    module: str
    names: tuple[str, ...] = ()


def imports_of(text: str) -> tuple[Import, ...]:
    """The imports in the head of a text, each once, in their order."""
    return tuple(dict.fromkeys(_imports(text[:HEAD_CHARS])))


def _imports(text: str) -> Iterator[Import]:
    for found in _STATEMENT.finditer(text):
        if (modules := found["modules"]) is not None:
            yield from (Import(name) for name in _names(modules))
        else:
            names = _names(found["names"] if found["many"] is None else found["many"])
            names = tuple(name for name in names if name.isidentifier())
            yield Import("".join(found["base"].split()), names)


def _names(listed: str) -> tuple[str, ...]:
    """The names in a list with commas, without what they are renamed to."""
    plain = _COMMENT.sub("", listed).replace("\\", " ")
    found = (_NAME.fullmatch(part.strip()) for part in plain.split(","))
    return tuple(match["name"] for match in found if match)


def resolve(
    imports: Sequence[Import], document: Path, folders: Sequence[Path]
) -> dict[Path, frozenset[str]]:
    """The files that a document's imports lead to, each with the names that are taken from it.

    An absolute import is looked for in every folder on the way from the document up to its
    workspace folder, then in the other workspace folders and in a folder `src` of each. Touches the
    disk: for threads.
    """
    roots = _roots(document, folders)
    found: dict[Path, frozenset[str]] = {}
    for module, names in imports:
        dots = len(module) - len(module.lstrip("."))
        bases = list(document.parents)[dots - 1 : dots] if dots else roots
        parts = [part for part in module[dots:].split(".") if part]
        for file, taken in _files(bases, parts, names):
            if file != document and (file in found or len(found) < MOST_FILES):
                found[file] = found.get(file, frozenset()) | taken
    return found


def _roots(document: Path, folders: Sequence[Path]) -> list[Path]:
    own = [
        parent
        for parent in document.parents
        if any(parent.is_relative_to(folder) for folder in folders)
    ]
    return list(dict.fromkeys([*own, *(f for each in folders for f in (each, each / "src"))]))


def _files(
    bases: Sequence[Path], parts: list[str], names: tuple[str, ...]
) -> Iterator[tuple[Path, frozenset[str]]]:
    """Where a module lies, and those of its submodules that are imported by name."""
    for base in bases:
        place = base.joinpath(*parts)
        module = _module(place) if parts else _first(place / "__init__.py")
        submodules = {name: file for name in names if (file := _module(place / name)) is not None}
        yield from ((file, frozenset[str]()) for file in submodules.values())
        taken = frozenset(names) - submodules.keys()
        if module is not None and (taken or not names):
            yield module, taken
        if module is not None or submodules:
            return


def _module(place: Path) -> Path | None:
    return _first(place.with_name(f"{place.name}.py"), place / "__init__.py")


def _first(*files: Path) -> Path | None:
    return next((file for file in files if os.path.isfile(file)), None)
