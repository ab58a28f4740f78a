"""Holes in Python files that the model has never seen, drawn by seed.

Kinds of holes:
    line     a line of code, from behind its indentation to its end
    any      any line that is not blank: code, comment or docstring
    rest     a line of code from somewhere between two words to its end
    bracket  what stands between two brackets of a line
    span     any run of up to 60 characters that begins in a line of code and may go beyond it
    block    the two to six lines that belong to an `if`, a loop, a function and the like
"""

from __future__ import annotations

import ast
import io
import random
import re
import tokenize
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from typing import Literal, get_args

Kind = Literal["line", "any", "rest", "bracket", "span", "block"]
KINDS: tuple[Kind, ...] = get_args(Kind)

PER_FILE = 50
"""The most holes that may come from one file: long tables shall not be the whole test."""

_MANIFEST = Path(__file__).resolve().parent.parent / "training" / "manifest.toml"
LONGEST_SPAN = 60
"""Characters; the spans of HumanEval-Infilling are mostly shorter."""

BLOCK = (2, 6)
"""The fewest and the most lines of a block."""

_COMPOUND = (
    *(ast.FunctionDef, ast.AsyncFunctionDef, ast.If, ast.For, ast.AsyncFor, ast.While),
    *(ast.With, ast.AsyncWith, ast.Try, ast.ExceptHandler),
)
_BRACKETS = re.compile(r"[(\[{]([^()\[\]{}\n]+)[)\]}]")
_LAYOUT = (tokenize.COMMENT, tokenize.NL, tokenize.INDENT, tokenize.DEDENT)
_BETWEEN_WORDS = re.compile(r"\b|(?<=\W)(?=\W)")


@dataclass(frozen=True, slots=True)
class Source:
    """One Python file. name: folder and path in it, for people and for the log."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Cut:
    """A hole in a file: the characters from `start` to `end`."""

    kind: Kind
    source: Source
    start: int
    end: int

    @property
    def prefix(self) -> str:
        """What stands in front of the hole."""
        return self.source.text[: self.start]

    @property
    def reference(self) -> str:
        """What was in the hole."""
        return self.source.text[self.start : self.end]

    @property
    def suffix(self) -> str:
        """What stands behind the hole: a line's end, except for "bracket" and "span"."""
        return self.source.text[self.end :]

    @property
    def key(self) -> str:
        """Names this hole in a log."""
        return f"{self.kind} {self.source.name} {self.start}-{self.end}"


def held_out_folders() -> list[Path]:
    """The folders of the packages that nano is never trained on, as far as they are installed."""
    manifest = tomllib.loads(_MANIFEST.read_text(encoding="utf-8"))
    specs = [find_spec(name) for name in manifest["held_out_modules"]]
    return [
        Path(folder)
        for spec in specs
        if spec is not None
        for folder in spec.submodule_search_locations or ()
    ]


def read_sources(folders: Iterable[Path]) -> list[Source]:
    """All Python files below the folders, in a fixed order, each text once.

    Left out is what can't be read as UTF-8 and what has other line ends than \\n.
    Raises FileNotFoundError if a folder does not exist.
    """
    found: dict[str, Source] = {}
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is not a folder")
        for path in sorted(folder.rglob("*.py")):
            text = path.read_bytes().decode("utf-8", errors="replace")
            if "\r" not in text and "\N{REPLACEMENT CHARACTER}" not in text:
                name = f"{folder.name}/{path.relative_to(folder).as_posix()}"
                found.setdefault(text, Source(name, text))
    return list(found.values())


def population(sources: Iterable[Source], kind: Kind, seed: int) -> list[Cut]:
    """All holes of a kind that may be drawn, in an order that the seed alone decides."""
    cuts: list[Cut] = []
    for source in sources:
        rng = random.Random(f"{seed} {kind} {source.name}")
        own = list(_cuts(source, kind, rng))
        cuts += rng.sample(own, min(PER_FILE, len(own)))
    random.Random(f"{seed} {kind}").shuffle(cuts)
    return cuts


def drawn(sources: Iterable[Source], kind: Kind, seed: int, count: int) -> list[Cut]:
    """The first `count` holes of a kind. Raises ValueError if the sources have none."""
    holes = population(sources, kind, seed)
    if not holes:
        raise ValueError(f"there are no holes of kind {kind} in these files: name other folders")
    return holes[:count]


def most_frequent(cuts: Sequence[Cut]) -> str:
    """The reference that most of the holes have; the first of them where several do.

    Taken from the very holes that are tested, it is the best that any constant answer can do.
    Raises ValueError if there are no holes.
    """
    if not cuts:
        raise ValueError("there are no holes to count")
    return Counter(cut.reference.rstrip() for cut in cuts).most_common(1)[0][0]


def code_lines(text: str) -> set[int]:
    """The lines, from 1, that a token of code begins: no comment, docstring or text in a string.

    Raises SyntaxError or tokenize.TokenError if this is not Python.
    """
    lines: set[int] = set()
    fresh = True  # at the start of a statement, where a string is a docstring
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in _LAYOUT:
            continue
        docstring = fresh and token.type == tokenize.STRING
        fresh = token.type == tokenize.NEWLINE
        row, column = token.start
        first = not token.line[:column].strip() and token.string.strip()
        if first and not docstring:
            lines.add(row)
    return lines


def _cuts(source: Source, kind: Kind, rng: random.Random) -> Iterator[Cut]:
    try:
        code = code_lines(source.text)
    except (SyntaxError, tokenize.TokenError):
        return
    if kind == "block":
        yield from _blocks(source)
        return
    end = -1
    for row, line in enumerate(source.text.split("\n"), start=1):
        start = end + 1
        end = start + len(line)
        if not line.strip() or (kind != "any" and row not in code):
            continue
        start += len(line) - len(line.lstrip())
        if kind in ("line", "any"):
            yield Cut(kind, source, start, end)
            continue
        choose = {"rest": _rests, "bracket": _brackets, "span": partial(_spans, rng)}[kind]
        places = choose(source.text, start, end)
        if places:
            yield Cut(kind, source, *rng.choice(places))


def _rests(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """From any place between two words of a line to its end."""
    places = [start + m.start() for m in _BETWEEN_WORDS.finditer(text[start:end])]
    return [(place, end) for place in places if place > start and text[place:end].strip()]


def _brackets(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """The insides of a line's innermost brackets."""
    matches = _BRACKETS.finditer(text, start, end)
    return [m.span(1) for m in matches if m[1].strip()]


def _spans(rng: random.Random, text: str, start: int, end: int) -> list[tuple[int, int]]:
    """One run of characters that begins in a line."""
    first = rng.randrange(start, end)
    last = min(len(text), first + rng.randint(1, LONGEST_SPAN))
    return [(first, last)] if text[first:last].strip() else []


def _blocks(source: Source) -> Iterator[Cut]:
    """The suites of compound statements, without the docstring that a suite may begin with."""
    try:
        nodes = list(ast.walk(ast.parse(source.text)))
    except (SyntaxError, ValueError, RecursionError):
        return
    lines = source.text.split("\n")
    starts = [0, *accumulate(len(line) + 1 for line in lines)]
    for node in nodes:
        for name in ("body", "orelse", "finalbody"):
            suite = getattr(node, name, None)
            if not isinstance(node, _COMPOUND) or not suite:
                continue
            first = suite[1] if len(suite) > 1 and _is_text(suite[0]) else suite[0]
            # Decorators stand above the line that a definition is said to begin at.
            tops = [d.lineno for d in getattr(first, "decorator_list", ())]
            top, bottom = min([first.lineno, *tops]), suite[-1].end_lineno
            line = lines[top - 1]
            indentation = len(line) - len(line.lstrip())
            # Not what stands behind a colon in the same line, and not an `elif`, which is a suite
            # of its own kind.
            own = line[indentation] == "@" or first.col_offset == indentation
            own = own and not line[indentation:].startswith("elif")
            if own and top > node.lineno and BLOCK[0] <= bottom - top + 1 <= BLOCK[1]:
                end = starts[bottom - 1] + len(lines[bottom - 1])
                yield Cut("block", source, starts[top - 1] + indentation, end)


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
