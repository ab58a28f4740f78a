"""LSP positions, edits and URIs to points, texts and paths, and back. Nothing else converts.

A position counts code units of the negotiated encoding: bytes in utf-8, 16-bit units in utf-16,
code points in utf-32. What lies beyond a line's end or the document's is clamped; what points into
the middle of a character is rounded down to its start.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from lsprotocol import types
from pygls import uris

from diffgemma_lsp.text import diff
from diffgemma_lsp.text.documents import Change
from diffgemma_lsp.text.text import Point, Text

Encoding = Literal["utf-8", "utf-16", "utf-32"]


def to_path(uri: str) -> Path | None:
    """The file that `uri` names; None if it names none."""
    path = uris.to_fs_path(uri)
    return Path(path) if path and "\0" not in path else None


def column_of(content: str, units: int, encoding: Encoding) -> int:
    """How many whole characters of `content` lie within its first `units` code units."""
    reach = content[:units]  # a character has at least one unit
    if encoding == "utf-32" or reach.isascii():
        return len(reach)
    if encoding == "utf-16" and max(reach) <= "\uffff":
        return len(reach)
    for column, char in enumerate(reach):
        units -= _width(char, encoding)
        if units < 0:
            return column
    return len(reach)


def units_of(content: str, column: int, encoding: Encoding) -> int:
    """How many code units the first `column` characters of `content` have."""
    reach = content[:column]
    if encoding == "utf-32" or reach.isascii():
        return len(reach)
    return sum(_width(char, encoding) for char in reach)


def _width(char: str, encoding: Encoding) -> int:
    """The code units of one character. Counted, not encoded: a lone surrogate has a width too."""
    code = ord(char)
    if encoding == "utf-16":
        return 1 if code < 0x10000 else 2
    return 1 if code < 0x80 else 2 if code < 0x800 else 3 if code < 0x10000 else 4


def to_point(text: Text, position: types.Position, encoding: Encoding) -> Point:
    """The place in `text` that `position` names."""
    if position.line >= text.line_count:
        return text.end
    content = text.content(position.line)
    return Point(position.line, column_of(content, position.character, encoding))


def to_position(text: Text, point: Point, encoding: Encoding) -> types.Position:
    """The inverse of `to_point`."""
    return types.Position(point.line, units_of(text.line(point.line), point.column, encoding))


def to_points(text: Text, range: types.Range, encoding: Encoding) -> tuple[Point, Point]:
    """The two ends of `range` in their order in the text."""
    start = to_point(text, range.start, encoding)
    end = to_point(text, range.end, encoding)
    return min(start, end), max(start, end)


def to_range(text: Text, start: Point, end: Point, encoding: Encoding) -> types.Range:
    """The range from `start` to `end`."""
    return types.Range(to_position(text, start, encoding), to_position(text, end, encoding))


def apply_change(
    text: Text, change: types.TextDocumentContentChangeEvent, encoding: Encoding
) -> tuple[Text, Change]:
    """The text after one content change of a didChange notification, and what that changed."""
    if isinstance(change, types.TextDocumentContentChangeWholeDocument):
        new = Text.of(change.text)
        return new, diff.difference(str(text), change.text)
    start, end = to_points(text, change.range, encoding)
    done = Change(text.offset(start), text.offset(end), text.between(start, end), change.text)
    return text.edit(start, end, change.text), done
