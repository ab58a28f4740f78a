"""A text as tokens, as far as that can be said without a grammar: names, strings, comments, signs.

Strings and comments are one token each; of one that interpolates, such as Python's f"{name}", the
names in its fields are tokens as well, behind it.
"""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Iterator
from functools import cache
from typing import Literal, NamedTuple

from diffgemma_lsp.syntax.languages import Language

Kind = Literal["name", "string", "comment", "sign"]

DEFINES = frozenset(("def", "class", "function", "func", "fn", "fun", "interface", "struct"))
"""What stands in front of a name that is defined."""

SELVES = frozenset(("self", "cls", "this"))

_CONSTANTS = frozenset(("True", "False", "None", "true", "false", "null", "nil", "undefined"))
"""Words that are values, as numbers are."""

_WORDS = """
var let const new null undefined true false void int float double bool char string long short byte
public private protected static final abstract async await switch case default do enum extends
implements import package throw throws try catch finally typeof instanceof export struct impl trait
mut use mod pub match where type unsigned signed sizeof auto template typename namespace using
virtual goto defer chan map range select nil
"""
_NO_NAMES = {*keyword.kwlist, *dir(builtins), *_WORDS.split(), *DEFINES, *SELVES}

_FIELD = re.compile(r"(?<!\{)\{(?:\{\{)*([^{}]+)")
_ANY_FIELD = re.compile(r"\{[^{}]*\}")
_NAME = re.compile(r"[^\W\d]\w*")
_BEHIND_NAMES = re.compile(r"[:!](?!=)")


class Token(NamedTuple):
    """A piece of a text from `start` to `end`, in characters."""

    kind: Kind
    text: str
    start: int
    end: int


def tokens_of(text: str, language: Language) -> list[Token]:
    """All tokens of a text, without white space."""
    found: list[Token] = []
    for match in _pattern(language).finditer(text):
        kind = match.lastgroup
        if kind is None:
            continue
        piece, start = match[0], match.start()
        if piece in _CONSTANTS and text[start - 1 : start] != ".":
            kind = "sign"
        known: Kind = kind if kind in ("name", "string", "comment") else "sign"  # type: ignore[assignment]
        found.append(Token(known, piece, start, match.end()))
        if known == "string" and _interpolates(piece):
            found += _names_in(piece, start)
    return found


def is_name(text: str) -> bool:
    """Whether it is hardly anything else than the name of something that somebody defined."""
    return _NAME.fullmatch(text) is not None and text not in _NO_NAMES


def may_name(text: str) -> bool:
    """Whether something can have this name."""
    return _NAME.fullmatch(text) is not None and text not in keyword.kwlist


def is_value(text: str) -> bool:
    """Whether it is a number or a constant: nobody can say where else it means the same."""
    return text[:1].isdigit() or text in _CONSTANTS


def outside_fields(string: str) -> str:
    """A string without what stands in its fields, if it interpolates."""
    return _ANY_FIELD.sub("{}", string) if _interpolates(string) else string


def _interpolates(string: str) -> bool:
    return "{" in string and ("f" in string[:2].lower() or string[0] == "`")


def _names_in(string: str, start: int) -> Iterator[Token]:
    for field in _FIELD.finditer(string):
        code = _BEHIND_NAMES.split(field[1])[0]
        for name in _NAME.finditer(code):
            at = start + field.start(1) + name.start()
            yield Token("name", name[0], at, at + len(name[0]))


@cache
def _pattern(language: Language) -> re.Pattern[str]:
    comments = [
        rf"{re.escape(start)}[^\n]*"
        if end == "\n"
        else rf"{re.escape(start)}[\s\S]*?(?:{re.escape(end)}|\Z)"
        for start, end in language.comments
    ]
    strings: list[str] = []
    for mark in sorted(language.strings, key=len, reverse=True):
        quote = re.escape(mark)
        if mark in language.lasting:
            strings.append(rf"{quote}(?:\\[\s\S]|(?!{quote})[^\\])*(?:{quote}|\Z)")
        else:
            strings.append(rf"{quote}(?:\\[^\n]|(?!{quote})[^\\\n])*(?:{quote}|(?=\n)|\Z)")
    prefix = r"(?:\b[rRbBuUfFtT]{1,2})?" if language.compiled else ""
    parts = [
        *([f"(?P<comment>{'|'.join(comments)})"] if comments else []),
        f"(?P<string>{prefix}(?:{'|'.join(strings)}))",
        r"(?P<name>[^\W\d]\w*)",
        r"(?P<sign>\d[\w.]*|[-+*/%<>=!&|^~:]=|->|=>|\*\*|//|[^\s\w])",
    ]
    return re.compile("|".join(parts))
