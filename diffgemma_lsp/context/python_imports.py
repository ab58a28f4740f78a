"""Which files of the workspace a Python document imports, found without running anything.

The document is being typed, so it need not parse: the grammar makes the best of what it can't read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from diffgemma_lsp.syntax.languages import language_of, load, parse

if TYPE_CHECKING:
    from tree_sitter import Node, Query

HEAD_CHARS = 16_384
"""Imports stand at the top: what comes later is not looked through."""

MOST_FILES = 16
"""The most files that one document leads to."""

_HALF = re.compile(r"(?<=\w)\.(?=[ \t]*$)", re.MULTILINE)
"""A name that is being typed, which would take the next line for its rest."""

_DOTTED = re.compile(r"\w+(?:\.\w+)*")

_QUERY = """
[(import_statement) (import_from_statement) (future_import_statement) (ERROR)] @found
"""


class Import(NamedTuple):
    """One module, with its leading dots if it is relative, and the names that are taken from it."""

    module: str
    names: tuple[str, ...] = ()


def imports_of(text: str) -> tuple[Import, ...]:
    """The imports in the head of a text, each once, in their order; none without a grammar."""
    head = text[:HEAD_CHARS]
    if "import" not in head and "from" not in head:
        return ()
    query, tree = _query(), parse(_HALF.sub(" ", head), language_of("python"))
    if query is None or tree is None:
        return ()
    from tree_sitter import QueryCursor

    nodes = QueryCursor(query).captures(tree.root_node).get("found", [])
    # Captures come by pattern; an ERROR can hold sound statements, which are captured as well.
    nodes.sort(key=lambda node: (node.start_byte, -node.end_byte))
    return tuple(dict.fromkeys(found for node in nodes for found in _imports(node, head)))


@cache
def _query() -> Query | None:
    grammar = language_of("python").grammar
    loaded = None if grammar is None else load(grammar.package)
    if loaded is None:
        return None
    from tree_sitter import Query

    return Query(loaded, _QUERY)


def _imports(node: Node, text: str) -> Iterator[Import]:
    """What a statement imports, or the words of an ERROR that has begun to be one."""
    base: str | None = None
    names: list[str] = []
    listed = False
    for child in node.children:
        match child.type:
            case "from":
                base, names, listed = "", [], False
            case "import":
                listed = True
            case "relative_import" | "dotted_name" | "aliased_import" | "__future__":
                named = child.child_by_field_name("name") or child
                name = "".join(text[named.start_byte : named.end_byte].replace("\\", " ").split())
                if listed:
                    names.append(name)
                elif base == "":
                    base = name
            case _:
                continue
    if not listed:
        return
    if base is None:
        yield from (Import(name) for name in names if _DOTTED.fullmatch(name))
    elif base:
        yield Import(base, tuple(name for name in names if name.isidentifier()))


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
