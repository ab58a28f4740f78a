"""Files and positions as the command line names them.

Lines and columns count from 1, columns in characters; a line ends at \\n, \\r\\n or \\r and at
nothing else, as in LSP.
"""

from __future__ import annotations

import argparse
import codecs
import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from diffgemma_lsp.commands import UsageError

_LINE_END = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True, order=True)
class Position:
    """A place between two characters."""

    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.line}:{self.column}"


def position(text: str) -> Position:
    """LINE:COL of a flag."""
    match = re.fullmatch(r"([1-9][0-9]{0,17}):([1-9][0-9]{0,17})", text)
    if not match:
        raise argparse.ArgumentTypeError(f"expected LINE:COL, both from 1, not {text!r}")
    return Position(int(match[1]), int(match[2]))


_PLACE = re.compile(r"(.+?):([1-9][0-9]{0,17})(?::([1-9][0-9]{0,17}))?:?", re.DOTALL)


def split_place(name: str) -> tuple[str, int | None, int | None]:
    """FILE[:LINE[:COL]] as compilers print it. A file that is called so is just that file."""
    found = None if Path(name).exists() else _PLACE.fullmatch(name)
    if found is None:
        return name, None, None
    return found[1], int(found[2]), int(found[3]) if found[3] else None


def read_source(name: str) -> str:
    """The text of a file, or of standard input for "-", with its line ends as they are."""
    if name == "-":
        data = sys.stdin.buffer.read()
        name = "standard input"
    else:
        try:
            data = Path(name).read_bytes()
        except OSError as error:
            raise UsageError(f"can't read {name}: {error.strerror or error}") from error
        except ValueError as error:
            raise UsageError(f"can't read {name!r}: {error}") from error
    if b"\0" in data:
        raise UsageError(f"{name} is a binary file")
    try:
        # A byte order mark is no character that an editor would count.
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{name} is not UTF-8 (byte {error.start + 1})") from error


def write_source(name: str, old: str, new: str) -> None:
    """Puts `new` in the place of `old`, which was read from the file: all of it or nothing.

    Raises UsageError, also where somebody else has changed the file since.
    """
    path = Path(name).resolve()
    if read_source(name) != old:
        raise UsageError(f"{name} was changed meanwhile: nothing was written")
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        mark = codecs.BOM_UTF8 if path.read_bytes().startswith(codecs.BOM_UTF8) else b""
        beside.write_bytes(mark + new.encode("utf-8"))
        shutil.copymode(path, beside)
        beside.replace(path)
    except OSError as error:
        raise UsageError(f"can't write {name}: {error.strerror or error}") from error
    finally:
        beside.unlink(missing_ok=True)


def newline_of(text: str) -> str:
    """How its first line ends; "\\n" if it is the only one."""
    found = _LINE_END.search(text)
    return found[0] if found else "\n"


def offset_of(text: str, at: Position) -> int:
    """The offset of a position in the text."""
    starts = [0, *(match.end() for match in _LINE_END.finditer(text))]
    if at.line > len(starts):
        last = Position(len(starts), len(text) - starts[-1] + 1)
        raise UsageError(f"{at} is past the end; the last position is {last}")
    start = starts[at.line - 1]
    line_end = _LINE_END.search(text, start)
    length = (line_end.start() if line_end else len(text)) - start
    if at.column > length + 1:
        last = Position(at.line, length + 1)
        raise UsageError(f"{at} is past the end of its line; the last position there is {last}")
    return start + at.column - 1


def end_of_line(text: str, number: int) -> Position:
    """The end of a line; of one that is not there the beginning."""
    starts = [0, *(match.end() for match in _LINE_END.finditer(text))]
    if number > len(starts):
        return Position(number, 1)
    line_end = _LINE_END.search(text, starts[number - 1])
    return Position(number, (line_end.start() if line_end else len(text)) - starts[number - 1] + 1)


def position_of(text: str, offset: int) -> Position:
    """The inverse of `offset_of`."""
    starts = [0, *(match.end() for match in _LINE_END.finditer(text) if match.end() <= offset)]
    return Position(len(starts), offset - starts[-1] + 1)
