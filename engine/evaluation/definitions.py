"""Which file of a package defines a name that another one imports from it. Reads, runs nothing."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import PurePosixPath

from engine.evaluation.holes import Source

_BUILT_IN = (str, bytes, int, list, dict, set, tuple, object, BaseException)
ORDINARY = frozenset(chain(dir(builtins), *map(dir, _BUILT_IN)))
"""Names that everything has, so that a definition of them tells nothing."""


@dataclass(slots=True)
class Outline:
    """One file. defines: names and their first lines, from 0; import_lines: from 0, too.

    imports: each import as the parts of the module's full name, and what is taken from it.
    """

    source: Source
    defines: dict[str, int] = field(default_factory=dict[str, int])
    import_lines: set[int] = field(default_factory=set[int])
    imports: list[tuple[list[str], list[str]]] = field(
        default_factory=list[tuple[list[str], list[str]]]
    )

    @classmethod
    def of(cls, source: Source) -> Outline:
        """The outline of a file; empty if it is not Python."""
        outline = cls(source)
        try:
            nodes = list(ast.walk(ast.parse(source.text)))
        except (SyntaxError, ValueError, RecursionError):
            return outline
        for node in nodes:
            outline._note(node)
        return outline

    def _note(self, node: ast.AST) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            self._define(node.name, node.lineno)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            self._define(node.id, node.lineno)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            self._define(node.attr, node.lineno)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            self.import_lines |= set(range(node.lineno - 1, node.end_lineno or node.lineno))
            self.imports += self._modules(node)

    def _define(self, name: str, line: int) -> None:
        if name not in ORDINARY and not name.startswith("__"):
            self.defines.setdefault(name, line - 1)

    def _modules(self, node: ast.Import | ast.ImportFrom) -> Iterator[tuple[list[str], list[str]]]:
        if isinstance(node, ast.Import):
            yield from ((alias.name.split("."), []) for alias in node.names)
            return
        parts = node.module.split(".") if node.module else []
        if node.level:
            folder = list(PurePosixPath(self.source.name).parts[:-1])
            parts = folder[: len(folder) - node.level + 1] + parts
        yield parts, [alias.name for alias in node.names]


class Atlas:
    """The outlines of all files; a package is what has the same first part of its name."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._outlines = {source.name: Outline.of(source) for source in sources}
        self._neighbours = {name: tuple(self._imported(name)) for name in self._outlines}

    def defined(self, word: str, source: Source) -> tuple[Source, int] | None:
        """The file that `source` imports and that defines `word`, and the line, from 0."""
        for name in self._neighbours[source.name]:
            line = self._outlines[name].defines.get(word)
            if line is not None:
                return self._outlines[name].source, line
        return None

    def is_import(self, source: Source, line: int) -> bool:
        """Whether a line, from 0, belongs to an import statement."""
        return line in self._outlines[source.name].import_lines

    def _imported(self, name: str) -> dict[str, None]:
        found: dict[str, None] = {}
        for parts, members in self._outlines[name].imports:
            if not parts or parts[0] != PurePosixPath(name).parts[0]:
                continue
            base = "/".join(parts)
            for module in (*(f"{base}/{member}" for member in members), base):
                for other in (f"{module}.py", f"{module}/__init__.py"):
                    if other in self._outlines and other != name:
                        found[other] = None
        return found
