"""The places in a selection that a user left to be filled in.

These are a bare `...`, a name of three or more underscores, a comment TODO that has its line for
itself, and what the user calls a marker.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffgemma_lsp.syntax.check import excerpt
from diffgemma_lsp.syntax.languages import language_of, parse
from diffgemma_lsp.text.text import Point, Text

if TYPE_CHECKING:
    from tree_sitter import Node

# Where "..." has a meaning of its own: in types, in slices, and as the default that a stub has.
_MEANINGFUL = frozenset(
    {
        "type",
        "generic_type",
        "type_parameter",
        "subscript",
        "default_parameter",
        "typed_default_parameter",
    }
)
_BLANK_NAME = re.compile(r"_{3,}")
_TODO = re.compile(r"\W*TODO\b")
_MAY_BE = re.compile(r"(?=(\.{3}|(?<!_)_{3,}|#[^\w\r\n]*TODO\b))")
# The same without a grammar. A "..." before a name spreads that in many languages.
_ANYWHERE = re.compile(
    r"(?<![\w.\])])\.\.\.(?![\w.(\[{])"
    r"|(?<!\w)_{3,}(?!\w)"
    r"|(?<![^\r\n])[ \t]*(?P<todo>(?://|#|--|/\*|<!--|;|%)[^\w\r\n]*TODO\b[^\r\n]*)"
)


@dataclass(frozen=True, slots=True)
class Gap:
    """A place to fill: what goes there replaces `start` to `end`, between `before` and `after`.

    Line ends in `before` and `after` are "\\n".
    """

    start: Point
    end: Point
    before: str = ""
    after: str = ""


def holes_in(
    text: Text,
    start: Point,
    end: Point,
    language_id: str,
    markers: Sequence[str] = (),
    stub: bool = False,
) -> list[Gap]:
    """The holes from `start` to `end`, in order. None overlaps another one.

    stub: the text says only what things are, so that its `...` are meant.
    """
    piece, offset = excerpt(text, start, end)
    first, last = text.offset(start) - offset, text.offset(end) - offset
    tree = parse(piece, language_of(language_id))
    if tree is None:
        found = list(_by_pattern(piece))
    else:
        found = list(_by_tree(piece, tree.root_node, stub, first, last))
    for marker in filter(None, markers):
        found += [found.span() for found in re.finditer(re.escape(marker), piece)]
    holes: list[Gap] = []
    free = first
    for low, high in sorted(found, key=lambda span: (span[0], -span[1])):
        if free <= low and high <= last:
            holes.append(Gap(text.point(offset + low), text.point(offset + high)))
            free = high
    return holes


def _by_pattern(piece: str) -> Iterator[tuple[int, int]]:
    for found in _ANYWHERE.finditer(piece):
        yield found.span("todo" if found["todo"] else 0)


def _by_tree(
    piece: str, root: Node, stub: bool, first: int, last: int
) -> Iterator[tuple[int, int]]:
    """Looks at the tree only where the text could be one: a walk over all of it takes as long as
    parsing."""
    for found in _MAY_BE.finditer(piece, first, last):
        node = root.descendant_for_byte_range(*found.span(1))
        if node is None or any(around.type in _MEANINGFUL for around in _around(node)):
            continue
        span = node.start_byte, node.end_byte
        match node.type:
            case "ellipsis":
                if not stub and not _is_meant(node, piece):
                    yield span
            case "identifier" if _BLANK_NAME.fullmatch(piece, *span):
                yield span
            case "comment" if _TODO.match(piece, *span) and _alone(piece, span[0]):
                yield span
            case _:
                pass


def _around(node: Node) -> Iterator[Node]:
    """The node and those that it stands in, but for the root."""
    while (parent := node.parent) is not None:
        yield node
        node = parent


def _alone(piece: str, start: int) -> bool:
    """Whether nothing but blanks stands before `start` in its line."""
    before = piece[:start].rstrip(" \t")
    return not before or before[-1] in "\r\n"


# ---- what is meant to be empty ----

_BODILESS = re.compile(r"@[\w.]*\b(abstract\w*|overload)\b")
# Pydantic's and FastAPI's.
_FIELD = re.compile(r"\b(?:Field|Query|Body|Header|Cookie|Form|File)\Z")
_PROTOCOL = re.compile(r"\bProtocol\b")
_NEVER_RUN = re.compile(r"(?:\w+\.)?TYPE_CHECKING")


def _is_meant(ellipsis: Node, piece: str) -> bool:
    """Whether it is all that a function says whose body is meant to be empty, or says of a field
    that a value must be given."""
    if (call := _call_of(ellipsis)) is not None:
        return bool(_FIELD.search(piece, call.start_byte, call.end_byte))
    block = ellipsis.parent.parent if ellipsis.parent is not None else None
    function = block.parent if block is not None and block.type == "block" else None
    if function is None or function.type != "function_definition":
        return False
    return is_bodiless(function, piece)


def _call_of(argument: Node) -> Node | None:
    """What is called with it."""
    arguments = argument.parent
    if arguments is None or arguments.type != "argument_list" or arguments.parent is None:
        return None
    return arguments.parent.child_by_field_name("function")


def is_bodiless(function: Node, piece: str) -> bool:
    """Whether the function's body is meant to be empty: it is abstract, one of many heads, or there
    only for who reads types."""
    if _BODILESS.search(decorators(function, piece)) or _never_run(function, piece):
        return True
    owner = class_around(function)
    bases = owner.child_by_field_name("superclasses") if owner is not None else None
    return bases is not None and bool(_PROTOCOL.search(piece, bases.start_byte, bases.end_byte))


def _never_run(function: Node, piece: str) -> bool:
    around = function.parent
    while around is not None:
        condition = around.child_by_field_name("condition")
        if condition is not None and _NEVER_RUN.fullmatch(
            piece, condition.start_byte, condition.end_byte
        ):
            return True
        around = around.parent
    return False


def decorators(function: Node, piece: str) -> str:
    """What stands above the function."""
    around = function.parent
    if around is None or around.type != "decorated_definition":
        return ""
    return piece[around.start_byte : function.start_byte]


def class_around(function: Node) -> Node | None:
    """The class whose method `function` is."""
    around = function.parent
    while around is not None and around.type in ("decorated_definition", "block"):
        around = around.parent
    return around if around is not None and around.type == "class_definition" else None
