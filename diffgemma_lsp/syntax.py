"""Whether a filling breaks the syntax of the text that it goes into.

Only a part of the text is parsed: some hundred lines, cut where a statement of the outermost block
begins. What is wrong with it is counted with the filling and without, so that a text which is
broken anyway is no reason to refuse one.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING

from diffgemma_lsp.documents import Point, Text, with_line_ends
from diffgemma_lsp.languages import Grammar, Language, language_of, load, parse
from diffgemma_lsp.lexing import Reading

if TYPE_CHECKING:
    from tree_sitter import Node, Query

# What is looked at around a hole. On either side, since a bracket may be closed far below.
LINES_BEFORE, LINES_AFTER = 150, 80
CHARS = 16_384
# The same around a selection that somebody waits for.
LINES_SELECTION = 2_000

# A line that may begin a piece to parse: no second clause of a statement, nor a row of a table.
_STATEMENT = re.compile(r"([ \t]*)(?!(?:else|elif|except|finally|case)\b)[\w@](?!.*,\s*\Z)")
_DEFINITION = re.compile(r"\s*(?:@|(?:async|class|def|export|fn|func|function|impl|pub|public)\b)")
# What may stand behind a hole at whose end a line may go on.
_CLOSING = re.compile(r"""[\s)\]}>"'`:,;]*""")


def breaks(before: str, middle: str, after: str, language_id: str) -> bool | None:
    """Whether `middle` brings errors that this place needn't have; None if nobody can say."""
    return Place(before, after, language_of(language_id)).broken_by(middle)


def is_python(text: str) -> bool:
    """Whether Python itself can parse `text`; it is stricter than the grammar."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


class Place:
    """A hole between two texts, and the fillings that its syntax allows."""

    def __init__(self, before: str, after: str, language: Language) -> None:
        self.language = language
        before = with_line_ends(before)
        self.before, self.after = _window(before, with_line_ends(after))
        self._whole = len(self.before) >= len(before)
        self.line = self.before.rpartition("\n")[2]
        self._rest = self.after.partition("\n")[0]
        self._below = self.after[len(self._rest) :]
        self._read: Reading | None = None
        self._floor: int | None = None

    def broken_by(self, middle: str) -> bool | None:
        """See `breaks`."""
        grammar = self.language.grammar
        if grammar is None or load(grammar) is None:
            return None
        middle = with_line_ends(middle)
        if not middle.strip() or self._hides(middle):
            return False
        if not self._whole and not _STATEMENT.match(self.before.partition("\n")[0]):
            return None  # within a table that is longer than what is looked at
        counts = self._counts(middle, grammar)
        if not (faults := next(counts)):
            return False
        floor = self._least(grammar)
        return faults > floor and all(more > floor for more in counts)

    def worsened_by(self, new: str, old: str) -> bool:
        """Whether there are more errors with `new` than with `old`; False if nobody can say."""
        grammar = self.language.grammar
        if grammar is None or load(grammar) is None:
            return False
        now, then = (next(self._counts(with_line_ends(text), grammar)) for text in (new, old))
        return now > then

    def _hides(self, middle: str) -> bool:
        """Whether the hole is in a string or a comment, and `middle` stays in it."""
        reading = self.reading()
        inside = reading.inside
        steps = reading.steps(middle, self.language)
        return bool(inside) and all(reading.inside == inside for _ in steps)

    def reading(self) -> Reading:
        """The text before the hole, read; a copy, to go on with."""
        if self._read is None:
            self._read = Reading().over(self.before, self.language)
        return self._read.copy()

    def _least(self, grammar: Grammar) -> int:
        """How many faults there are at least, whatever is filled in."""
        if self._floor is None:
            self._floor = 1 << 30
            for stand_in in grammar.stand_ins:
                for count in self._counts(stand_in, grammar):
                    self._floor = min(count, self._floor)
                    if not count:
                        return 0
        return self._floor

    def _counts(self, middle: str, grammar: Grammar) -> Iterator[int]:
        """How many faults there are with `middle`; then with its line gone on in some way."""
        for ending in self._endings(middle, grammar):
            text = self.before + middle + self._rest + ending + self._below
            tree = parse(text, self.language)
            yield _count_faults(tree.root_node, grammar) if tree is not None else 0

    def _endings(self, middle: str, grammar: Grammar) -> Iterator[str]:
        """What may yet come at the end of the hole's line: nothing or, if that is open, more."""
        yield ""
        if not _CLOSING.fullmatch(self._rest):
            return
        so_far = middle + self._rest
        if closers := "".join(reversed(self.reading().over(so_far, self.language).open)):
            yield closers
        line = (self.before + so_far).rpartition("\n")[2]
        indentation = line[: len(line) - len(line.lstrip())]
        for start, ending in grammar.endings:
            if re.match(start, line):
                yield closers + ending.replace("\n", "\n" + indentation)


def _count_faults(root: Node, grammar: Grammar) -> int:
    """How many errors there are, empty blocks, and statements that don't stand in their block."""
    from tree_sitter import QueryCursor

    found = QueryCursor(_query(grammar)).captures(root)
    blocks = [_statements_of(block) for block in found.get("block", ())]
    empty = sum(not block for block in blocks)
    misplaced = sum(map(_misplaced, [_statements_of(root), *blocks] if grammar.blocks else []))
    return len(found.get("error", ())) + empty + misplaced


@cache
def _query(grammar: Grammar) -> Query:
    from tree_sitter import Query

    loaded = load(grammar)
    assert loaded is not None, "asked only where there is a tree"
    blocks = "".join(f"({block}) @block " for block in grammar.blocks)
    return Query(loaded, f"(ERROR) @error (MISSING) @error {blocks}")


def _statements_of(block: Node) -> list[Node]:
    return [child for child in block.named_children if not child.is_extra and not child.is_error]


def _misplaced(statements: Sequence[Node]) -> int:
    """How many statements of a block begin in another column than its first one."""
    column, row, count = None, -1, 0
    for statement in statements:
        start = statement.start_point
        if column is None:
            column = start.column
        elif start.row != row:  # else behind a semicolon
            count += start.column != column
        row = statement.end_point.row
    return count


# ---- what is looked at ----


def _window(before: str, after: str) -> tuple[str, str]:
    """The part of the texts around a hole that is parsed."""
    lines = before[-CHARS:].split("\n")
    if len(lines) > LINES_BEFORE or len(before) > CHARS:
        lines = lines[-LINES_BEFORE:]
        lines = lines[_first_of_outermost(lines) :]
    more = after[:CHARS].split("\n")
    if len(more) > LINES_AFTER or len(after) > CHARS:
        more = more[:LINES_AFTER]
        more = more[: _last_of_outermost(more[1:]) + 1]
    return "\n".join(lines), "\n".join(more)


def excerpt(text: Text, start: Point, end: Point) -> tuple[str, int]:
    """The part of `text` that is parsed for a selection, and the offset at which it begins."""
    first = max(0, start.line - LINES_SELECTION)
    if first:
        first += _first_of_outermost([text.line(n) for n in range(first, start.line + 1)])
    stop = min(text.line_count, end.line + 1 + LINES_SELECTION)
    if stop < text.line_count:
        below = [text.line(n) for n in range(end.line + 1, stop)]
        stop = end.line + 1 + _last_of_outermost(below)
    last = Point(stop, 0) if stop < text.line_count else text.end
    return text.between(Point(first, 0), last), text.offset(Point(first, 0))


def _first_of_outermost(lines: Sequence[str]) -> int:
    """The first of the statements that are indented least; a definition if there is one."""
    return min(_statements(lines), default=(0, True, 0))[-1]


def _last_of_outermost(lines: Sequence[str]) -> int:
    """The last of them."""
    statements = ((depth, other, -number) for depth, other, number in _statements(lines))
    return -min(statements, default=(0, True, -len(lines)))[-1]


def _statements(lines: Sequence[str]) -> Iterator[tuple[int, bool, int]]:
    """How deep each line is indented that looks like a statement, if it looks like less than a
    definition, and which line it is. The lines of a long string look like statements too."""
    for number, line in enumerate(lines):
        if found := _STATEMENT.match(line):
            yield found.end(1), not _DEFINITION.match(line), number
