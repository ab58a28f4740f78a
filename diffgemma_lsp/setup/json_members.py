"""Members of a JSON file, put in and taken out where they stand: all else stays to the last byte.

Editors read JSON with comments and commas behind the last member. Both are overwritten by blanks of
the same length first, so that what Python's parser says of places holds in the text itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from diffgemma_lsp.setup.edits import Refused

Path = tuple[str, ...]
"""Names of members, from the outermost object in."""

_STRING = r'"(?:\\.|[^"\\\n])*"'
_COMMENTS = re.compile(rf"{_STRING}|//[^\n]*|/\*.*?\*/", re.DOTALL)
_LAST_COMMAS = re.compile(rf"{_STRING}|,(?=\s*[}}\]])")
_DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class Members:
    """An edit of such a file.

    values: by path. What is taken out again is only what has this value, but for `ours`, which are
    ours whatever they say. without: what must not be there beside them.
    """

    values: Mapping[Path, Any]
    ours: tuple[Path, ...] = ()
    without: tuple[Path, ...] = ()

    @property
    def snippet(self) -> str:
        return self.put(None)

    def put(self, text: str | None) -> str:
        text = text if text and text.strip() else "{\n}\n"
        for path, value in reversed([*self.values.items()]):
            text = put(text, path, value)
        for path in self.without:
            text = take(text, path)
        return text

    def take(self, text: str) -> str | None:
        for path in self.ours:
            text = take(text, path)
        for path, value in self.values.items():
            if _same(get(text, path), value):
                text = take(text, path)
        return text if text.split() != ["{", "}"] and text.strip() != "{}" else None


class _Member(NamedTuple):
    """Where a member stands: its name from `start`, its value from `value` to `end`."""

    name: str
    start: int
    value: int
    end: int


def get(text: str, path: Path) -> Any:
    """The value at a path; None where there is none. Raises Refused."""
    value: Any = _parsed(text)
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None  # pyright: ignore
    return value  # pyright: ignore[reportUnknownVariableType]


def put(text: str, path: Path, value: Any) -> str:
    """The text with a value at a path, whose objects are made where there are none.

    Raises Refused if the text is not an object, or the path leads through what is none.
    """
    _parsed(text)
    plain, at = _plain(text), _start(text)
    for depth, name in enumerate(path):
        member = _named(_members(plain, at), name)
        if member is None:
            for inner in reversed(path[depth + 1 :]):
                value = {inner: value}
            return _inserted(text, plain, at, name, value, depth)
        if depth == len(path) - 1:
            if _same(json.loads(plain[member.value : member.end]), value):
                return text
            return text[: member.value] + _dumped(text, value, depth) + text[member.end :]
        if plain[member.value] != "{":
            raise Refused(f"{'.'.join(path[: depth + 1])} is not an object there")
        at = member.value
    return text


def take(text: str, path: Path) -> str:
    """The text without the member at a path, and without objects that are empty then."""
    _parsed(text)
    plain, at = _plain(text), _start(text)
    for depth, name in enumerate(path):
        members = _members(plain, at)
        member = _named(members, name)
        if member is None:
            return text
        if depth == len(path) - 1:
            rest = _cut(text, members, member)
            outer = path[:-1]
            return take(rest, outer) if outer and get(rest, outer) == {} else rest
        if plain[member.value] != "{":
            return text
        at = member.value
    return text


def _parsed(text: str) -> dict[str, Any]:
    try:
        value = json.loads(_plain(text))
    except (ValueError, RecursionError) as error:
        raise Refused(f"it is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise Refused("it is not a JSON object")
    return value  # pyright: ignore[reportUnknownVariableType]


def _plain(text: str) -> str:
    return _LAST_COMMAS.sub(_blank, _quiet(text))


def _quiet(text: str) -> str:
    """Without comments and without the mark that some files of UTF-8 begin with."""
    return _COMMENTS.sub(_blank, text.replace("\ufeff", " ", 1) if text[:1] == "\ufeff" else text)


def _blank(found: re.Match[str]) -> str:
    return found[0] if found[0][0] == '"' else re.sub(r"[^\n]", " ", found[0])


def _start(text: str) -> int:
    return _plain(text).index("{")


def _members(plain: str, at: int) -> list[_Member]:
    """The members of the object that begins at `at`."""
    found: list[_Member] = []
    at = _skip(plain, at + 1)
    while plain[at] != "}":
        name, end = _DECODER.raw_decode(plain, at)
        value = _skip(plain, _skip(plain, end) + 1)
        found.append(_Member(name, at, value, _DECODER.raw_decode(plain, value)[1]))
        at = _skip(plain, found[-1].end)
        at = _skip(plain, at + 1) if plain[at] == "," else at
    return found


def _skip(plain: str, at: int) -> int:
    while plain[at].isspace():
        at += 1
    return at


def _named(members: list[_Member], name: str) -> _Member | None:
    """The last one of that name, which is the one that counts."""
    return next((one for one in reversed(members) if one.name == name), None)


def _inserted(text: str, plain: str, at: int, name: str, value: Any, depth: int) -> str:
    """With a new first member of the object at `at`, so that no comment changes its neighbour."""
    member = f"{json.dumps(name, ensure_ascii=False)}: {_dumped(text, value, depth)}"
    head, rest = text[: at + 1], text[at + 1 :]
    lead = rest[: len(rest) - len(rest.lstrip())]
    if _members(plain, at):
        return f"{head}{lead}{member},{rest}"
    line, step = _line_end(text), _step(text)
    closing = "" if "\n" in plain[at : plain.index("}", at)] else line + step * depth
    return f"{head}{line}{step * (depth + 1)}{member}{closing}{rest}"


def _dumped(text: str, value: Any, depth: int) -> str:
    step = _step(text)
    lines = json.dumps(value, ensure_ascii=False, indent=step).split("\n")
    return (_line_end(text) + step * (depth + 1)).join(lines)


def _line_end(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _step(text: str) -> str:
    """How a level is indented, seen from the first member."""
    found = re.search(r'\n([ \t]+)"', _plain(text))
    return found[1] if found else "    "


def _cut(text: str, members: list[_Member], member: _Member) -> str:
    """Without a member, the comma that it needed, and the blanks in front of it; but for a line's
    end there if its own line has more."""
    quiet = _quiet(text)
    comma = _skip(quiet, member.end)
    head, rest = text[: member.start], text[member.end :]
    if quiet[comma] == ",":
        rest = text[member.end : comma] + text[comma + 1 :]
    elif before := [one.end for one in members if one.end <= member.start]:
        comma = quiet.index(",", before[-1])
        head = text[:comma] + text[comma + 1 : member.start]
    blanks = head[len(head.rstrip()) :]
    keeps_line = "\n" in blanks and re.match(r"[ \t\r]*(?:\n|\Z)", rest) is None
    return (head if keeps_line else head.rstrip()) + rest


def _same(one: Any, other: Any) -> bool:
    """As JSON has it, where true is not 1."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
