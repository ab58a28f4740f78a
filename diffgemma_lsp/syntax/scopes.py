"""What the names of a text mean: where each is declared, and how far that holds, by its grammar.

A text that is being written has errors; a tree is made of it all the same, and only what stands in
a broken piece may mean something else.
"""

from __future__ import annotations

from collections.abc import Iterator

from diffgemma_lsp.syntax.declarations import Name, Reader, Scope, function_around
from diffgemma_lsp.syntax.languages import Language, parse_names


class Scopes:
    """All names of a text, as `reader` has found them. bare: members are known within their class
    by their names alone."""

    def __init__(self, reader: Reader, bare: bool) -> None:
        self._bare, self._at = bare, reader.names
        self._named: dict[str, list[Name]] = {}
        for name in self._at.values():
            self._named.setdefault(name.text, []).append(name)

    def at(self, start: int) -> Name | None:
        """The name that begins there."""
        return self._at.get(start)

    def class_around(self, start: int) -> Scope | None:
        """The class that the name which begins there stands in."""
        name = self._at.get(start)
        scope = None if name is None else name.scope
        while scope is not None and scope.kind != "class":
            scope = scope.parent
        return scope

    def uses(self, name: Name, text: str, other: str) -> Iterator[Name]:
        """The names `text` that mean what `name` means. What is said of them holds for `other` as
        well: one of the two is what the name was called before."""
        meant = self._meant(name, text, other)
        for one in self._named.get(text, ()):
            if one is name or one.label or one.dotted:
                continue
            if one.declared_in is not None:
                if one.declared_in is meant:
                    yield one
            elif (not one.member or self._bare) and self._holds(one, meant, text, other):
                yield one

    def _meant(self, name: Name, *texts: str) -> Scope:
        """Where the declaration of a name holds; if there is none, the function around."""
        if name.declared_in is not None:
            return name.declared_in
        for scope in self._seen_from(name):
            if not scope.declared.isdisjoint(texts):
                return scope
        return function_around(name.scope)

    def _holds(self, name: Name, meant: Scope, *texts: str) -> bool:
        """Whether a name means what is declared in `meant`, and nothing nearer."""
        for scope in self._seen_from(name):
            if scope is meant:
                return True
            if not scope.declared.isdisjoint(texts):
                return False
        return False

    def _seen_from(self, name: Name) -> Iterator[Scope]:
        """The scopes around a name in which it can be declared, the nearest first."""
        scope: Scope | None = name.scope
        while scope is not None:
            if scope.kind != "class" or self._bare or scope is name.scope:
                yield scope
            scope = scope.parent


def scopes_of(text: str, language: Language) -> Scopes | None:
    """What the names of a text mean, whose lines end in "\\n"; None if no grammar says it."""
    naming, tree = language.naming, parse_names(text, language)
    if naming is None or tree is None:
        return None
    return Scopes(Reader(text, tree.root_node, naming), naming.bare)


def are_kin(one: Scope | None, other: Scope | None) -> bool:
    """Whether two classes may have members in common: they are the same, or one is named where the
    other begins."""
    if one is None or other is None or one is other:
        return True
    return one.title in other.head or other.title in one.head
