"""Whether Python takes a text, asked of Python itself: its compiler refuses what a parser takes.

Not the whole document is asked about but a piece of it around the place, such as the statement of
the outermost block that it belongs to: what is broken elsewhere says nothing about it, and a
compiler at work keeps everything else waiting. Only where such a piece is sound can it be broken,
so that nothing is refused in a document that is written for another Python.
"""

from __future__ import annotations

import ast
import re
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from diffgemma_lsp.syntax.indentation import indentation

LONGEST = 16_384
"""Characters that are compiled at a time: some milliseconds."""

_DEFINITION = re.compile(r"[ \t]*(?:async[ \t]+def|def|class)\b")
# What goes on with a statement that began above.
_GOES_ON = re.compile(r"[ \t]*(?:[)\]}#]|(?:else|elif|except|finally|case)\b|\"\"\"|''')")
_INDENTED = re.compile(r"(?:[ \t]*\n)*+[ \t]")
# What a piece may stand in: a definition or a loop has room for statements that nothing else has.
_HEADS = ("def _():\n", "async def _():\n", "while 1:\n")

_warnings = threading.Lock()  # what is said of warnings holds for all threads


def compiles(text: str) -> bool:
    """Whether Python compiles `text`, which may wait for something as a cell of a notebook does."""
    return _complaint(text) is None


@lru_cache(maxsize=64)
def _complaint(text: str) -> int | None:
    """The line, from 1, of which Python complains, 0 if that is none; None if it does not."""
    line = _compiled(text, 0)
    if line is not None and ("await" in text or "async" in text):
        return _compiled(text, ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    return line


def _compiled(text: str, flags: int) -> int | None:
    try:
        with _warnings, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(text.removeprefix("\ufeff"), "", "exec", flags, dont_inherit=True)
    except SyntaxError as error:
        return error.lineno or 0
    except (ValueError, RecursionError, MemoryError, OverflowError):
        return 0
    return None


class Piece(NamedTuple):
    """A piece of a Python text with a place in it: what stands before and behind the place.

    head: what it stands in, to be compiled.
    """

    before: str
    after: str
    head: str = ""

    def takes(self, middle: str, endings: Iterable[str] = ("",)) -> bool:
        """Whether it compiles with `middle` at the place, and its line gone on in one of the ways
        in `endings`."""
        rest, line_end, below = self.after.partition("\n")
        start = self.head + self.before + middle + rest
        return any(compiles(start + ending + line_end + below) for ending in endings)

    def is_broken_above(self, middle: str) -> bool:
        """Whether Python complains of something above the line of the place."""
        line = _complaint(self.head + self.before + middle + self.after)
        return line is not None and 0 < line <= (self.head + self.before).count("\n")


def pieces(before: str, after: str) -> Iterator[Piece]:
    """Pieces of a text that may be sound by themselves, those first of which most can be told.

    A piece can turn out to be cut in the middle of something; then it just is not sound. Lines end
    in "\\n".
    """
    lines = _Lines(before, after)
    found = [Piece(before, after)]
    if (top := lines.statement()) is not None:
        found.insert(0, top)
    starts = [*lines.definitions(), *([lines.own] if lines[lines.own].strip() else [])]
    found += [lines.piece(number, indentation(lines[number])) for number in starts]
    for piece in dict.fromkeys(found):
        if len(piece.before) + len(piece.after) > LONGEST:
            continue
        if _INDENTED.match(piece.before):
            yield from (piece._replace(head=head) for head in _HEADS)
        else:
            yield piece


class _Lines:
    """The lines of a text with a place in it; `own` is the number of the one that has the place."""

    def __init__(self, before: str, after: str) -> None:
        self._before, self._after = before.split("\n"), after.split("\n")
        self.own = len(self._before) - 1
        self._line = self._before[-1] + self._after[0]

    def __getitem__(self, number: int) -> str:
        return self._line if number == self.own else self._before[number]

    def statement(self) -> Piece | None:
        """The statement of the outermost block that the place is in, or right behind."""
        begins = (number for number in range(self.own, -1, -1) if _begins(self[number]))
        start = next(begins, None)
        return None if start is None else self.piece(start, "")

    def definitions(self) -> Sequence[int]:
        """The definitions around the place, the outermost one first."""
        deep, found = 1 << 30, list[int]()
        if self._line.strip():
            deep = len(indentation(self._line)) + (_DEFINITION.match(self._line) is not None)
        for number in range(self.own, -1, -1):
            line = self[number]
            if _DEFINITION.match(line) and len(indentation(line)) < deep:
                deep = len(indentation(line))
                found.insert(0, number)
        return found

    def piece(self, start: int, blanks: str) -> Piece:
        """From a line that is indented by `blanks` to the next one that is no deeper."""
        end = 1
        while end < len(self._after) and not _begins(self._after[end], len(blanks)):
            end += 1
        behind = "\n".join(self._after[:end])
        return Piece("\n".join(self._before[start:]), behind + "\n" * (end < len(self._after)))


def _begins(line: str, depth: int = 0) -> bool:
    """Whether a statement begins here that is indented by `depth` or less."""
    blanks = len(indentation(line))
    return bool(line.strip()) and blanks <= depth and _GOES_ON.match(line) is None
