"""Texts: immutable, cheap to edit, cheap to keep.

`Text` is a tuple of chunks of lines. An edit makes a new `Text` that shares all chunks but the ones
that it touches, so it costs what it changes, and a snapshot is nothing but a reference. A line ends
at "\\n", "\\r\\n" or "\\r" and nowhere else: form feed, NEL, U+2028 and the other characters at
which `str.splitlines` splits are ordinary characters to an editor.

Knows nothing of LSP; a `Point` counts characters (code points). `lsp/positions.py` converts.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, chain
from typing import NamedTuple

LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
"""A line with its end, or what stands behind the last line end."""

_LINE_END = re.compile(r"\r\n|\r|\n")

# Lines in a chunk. Small enough that rebuilding one is a matter of microseconds, large enough that
# a document of 100,000 lines has only some hundred chunks to look through.
_CHUNK = 256


class Point(NamedTuple):
    """A place between two characters: a line and a column, both from 0, in characters."""

    line: int
    column: int


_Chunk = tuple[str, ...]


class Text:
    """An immutable text. Every line but the last one carries its line end."""

    __slots__ = ("_chars", "_chunks", "_first_chars", "_first_lines", "_string")

    def __init__(
        self,
        chunks: tuple[_Chunk, ...],
        chars: tuple[int, ...],
        first_lines: list[int] | None = None,
    ) -> None:
        self._chunks = chunks
        self._chars = chars
        # How many lines (characters) come before each chunk; the last entry is all of them.
        self._first_lines = first_lines or list(accumulate(map(len, chunks), initial=0))
        self._first_chars: list[int] | None = None
        self._string: str | None = None

    @classmethod
    def of(cls, string: str) -> Text:
        """The text that reads `string`."""
        chunks = _chunked(_split(string))
        text = cls(chunks, _sizes(chunks))
        text._string = string
        return text

    def __str__(self) -> str:
        if self._string is None:
            self._string = "".join(map("".join, self._chunks))
        return self._string

    def __len__(self) -> int:
        return self._char_starts()[-1]

    def _char_starts(self) -> list[int]:
        # When first asked for: most versions of a document that is being typed in never are.
        if self._first_chars is None:
            self._first_chars = list(accumulate(self._chars, initial=0))
        return self._first_chars

    @property
    def line_count(self) -> int:
        """At least 1: an empty text is one empty line."""
        return self._first_lines[-1]

    @property
    def end(self) -> Point:
        """The place after the last character."""
        last = self.line_count - 1
        return Point(last, len(self.line(last)))

    def line(self, number: int) -> str:
        """Line `number`, from 0, with its line end."""
        index = bisect_right(self._first_lines, number) - 1
        return self._chunks[index][number - self._first_lines[index]]

    def content(self, number: int) -> str:
        """Line `number`, from 0, without its line end."""
        return self.line(number).rstrip("\r\n")

    def offset(self, point: Point) -> int:
        """How many characters come before `point`."""
        index = bisect_right(self._first_lines, point.line) - 1
        before = self._chunks[index][: point.line - self._first_lines[index]]
        return self._char_starts()[index] + sum(map(len, before)) + point.column

    def point(self, offset: int) -> Point:
        """The inverse of `offset`, for 0 <= offset <= len(text)."""
        starts = self._char_starts()
        index = min(bisect_right(starts, offset), len(self._chunks)) - 1
        begins = list(accumulate(map(len, self._chunks[index][:-1]), initial=starts[index]))
        line = bisect_right(begins, offset) - 1
        return Point(self._first_lines[index] + line, offset - begins[line])

    def between(self, start: Point, end: Point) -> str:
        """The characters from `start` to `end`."""
        lines = self._lines(start.line, end.line + 1)
        lines[-1] = lines[-1][: end.column]
        lines[0] = lines[0][start.column :]
        return "".join(lines)

    def _lines(self, first: int, stop: int) -> list[str]:
        i = bisect_right(self._first_lines, first) - 1
        j = bisect_right(self._first_lines, stop - 1)
        before = self._first_lines[i]
        lines = list(chain.from_iterable(self._chunks[i:j]))
        return lines[first - before : stop - before]

    def edit(self, start: Point, end: Point, new: str) -> Text:
        """The text with `new` in place of what stands from `start` to `end`.

        Both must lie in the text and not behind their line's content.
        """
        first, last = start.line, end.line
        new = self.line(first)[: start.column] + new + self.line(last)[end.column :]
        if first and new.startswith("\n") and self.line(first - 1).endswith("\r"):
            # The two now stand side by side and are one line end.
            first -= 1
            new = self.line(first) + new
        lines = _split(new)
        if last < self.line_count - 1:
            lines.pop()  # `new` ends with a line end, behind which the next line begins
        return self._with(first, last + 1, lines)

    def _with(self, first: int, stop: int, lines: list[str]) -> Text:
        """The text with `lines` in place of the lines from `first` up to `stop`."""
        i = bisect_right(self._first_lines, first) - 1
        j = bisect_right(self._first_lines, stop - 1)
        before = self._chunks[i][: first - self._first_lines[i]]
        after = self._chunks[j - 1][stop - self._first_lines[j - 1] :]
        if len(before) + len(lines) + len(after) < _CHUNK // 4 and j < len(self._chunks):
            # Joined with its neighbour, so that many deletions don't leave many tiny chunks.
            after += self._chunks[j]
            j += 1
        new = _chunked((*before, *lines, *after))
        # Most keys are typed within a line, and move no other one.
        same_lines = list(map(len, new)) == list(map(len, self._chunks[i:j]))
        return Text(
            self._chunks[:i] + new + self._chunks[j:],
            self._chars[:i] + _sizes(new) + self._chars[j:],
            self._first_lines if same_lines else None,
        )


def with_line_ends(string: str, newline: str = "\n") -> str:
    """`string` with all its lines ending in `newline`."""
    return _LINE_END.sub(newline, string)


def _split(string: str) -> list[str]:
    """The lines of `string` with their ends; the last one has none, and may be empty."""
    lines = LINE.findall(string)
    if not lines or lines[-1][-1] in "\r\n":
        lines.append("")
    return lines


def _chunked(lines: Sequence[str]) -> tuple[_Chunk, ...]:
    if len(lines) <= 2 * _CHUNK:
        return (tuple(lines),)
    return tuple(tuple(lines[at : at + _CHUNK]) for at in range(0, len(lines), _CHUNK))


def _sizes(chunks: tuple[_Chunk, ...]) -> tuple[int, ...]:
    return tuple(sum(map(len, chunk)) for chunk in chunks)
