"""Other uses of a name that was replaced, as far as the names mean the same.

Where a grammar knows the language it says what a name means; else lines and words do. What is
reached through an object is known by its name alone, and by the class that it stands in.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from diffgemma_lsp.next_edit.parts import Change, Region
from diffgemma_lsp.next_edit.source import Source
from diffgemma_lsp.next_edit.tokens import SELVES
from diffgemma_lsp.syntax.scopes import Scope, are_kin

_OWN = SELVES | {"super", "base", "Self"}
"""What a class calls its own object, or what it is made of."""


class _Use(NamedTuple):
    """Where a name begins. binds: it gets there what it stands for. shorthand: it is a key and its
    value in one."""

    start: int
    binds: bool
    shorthand: bool = False


def renamed(source: Source, old: str, at: int, regions: list[Region]) -> list[Change]:
    """What follows where the token `at` is in the place of the name `old`. regions: all edits of
    the document, which say what is new in it."""
    new = source.tokens[at].text
    uses = list(_uses(source, old, new, at))
    # A name that was there before is another thing, which was meant here.
    if any(not _inside(source, use.start, regions) for use in _uses(source, new, old, at)):
        return []
    # Nor is it renamed where it is only used otherwise, and goes on to be what it was.
    if not source.binds(at) and any(use.binds for use in uses):
        return []
    return [
        Change(use.start, use.start + len(old), f"{old}: {new}" if use.shorthand else new)
        for use in uses
    ]


def _uses(source: Source, text: str, other: str, at: int) -> Iterator[_Use]:
    """The uses of the name `text` that mean what the token `at` means, which was called `text` or
    `other` before."""
    name = source.name(at)
    defined = source.is_definition(at)
    line = source.line_of(source.tokens[at].start)
    is_member = name.member if name is not None else defined and source.in_a_class(line)
    if source.is_attribute(at) or is_member:
        yield from _members(source, text, other, at, is_member)
    if name is not None and source.scopes is not None:
        if not name.dotted and (not name.member or name.declared_in is not None):
            for one in source.scopes.uses(name, text, other):
                yield _Use(one.start, one.declared_in is not None or one.head, one.shorthand)
    elif not source.is_attribute(at) and not is_member:
        first, last = (0, len(source.lines) - 1) if defined else source.scope(line)
        for index in source.names(text, first, last):
            if index != at and not source.is_attribute(index) and not source.is_keyword(index):
                yield _Use(source.tokens[index].start, source.binds(index))


def _members(source: Source, text: str, other: str, at: int, defined: bool) -> Iterator[_Use]:
    """The same of what is reached through an object. defined: the token is where it is declared."""
    owner = source.owner(at)
    known = defined or owner in _OWN or source.is_own(text) or source.is_own(other)
    if not known:
        return
    own = _class_of(source, at)
    found = [i for i in source.names(text, 0, len(source.lines) - 1) if i != at]
    kin = {index for index in found if are_kin(own, _class_of(source, index))}
    # Where another class has a member of this name, nobody can say whose it is elsewhere.
    alone = all(index in kin for index in found if source.is_definition(index))
    for index in found:
        if source.is_attribute(index):
            through = source.owner(index)
            if index in kin if through in _OWN else (defined and alone) or through == owner:
                yield _Use(source.tokens[index].start, False)
        elif index in kin and source.is_definition(index):
            yield _Use(source.tokens[index].start, True)
            name = source.name(index)
            if source.scopes is not None and name is not None and name.declared_in is not None:
                for one in source.scopes.uses(name, text, other):
                    yield _Use(one.start, one.head)


def _class_of(source: Source, index: int) -> Scope | None:
    return None if source.scopes is None else source.scopes.class_around(source.tokens[index].start)


def _inside(source: Source, start: int, regions: list[Region]) -> bool:
    line = source.line_of(start)
    return any(region.first <= line <= region.last for region in regions)
