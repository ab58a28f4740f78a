"""Whether a filling breaks the syntax of the text that it goes into.

Of Python, Python itself is asked, as far as there is a piece of the text around the hole that is
sound. Else a part of the text is parsed: some hundred lines, cut where a statement of the outermost
block begins. What is wrong with it is counted with the filling and without, so that a text which is
broken anyway is no reason to refuse one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal

from diffgemma_lsp.syntax.brackets import BracketState
from diffgemma_lsp.syntax.faults import count_faults
from diffgemma_lsp.syntax.indentation import deepest, indentation
from diffgemma_lsp.syntax.languages import (
    Grammar,
    Language,
    load,
    parse,
    without_magics,
)
from diffgemma_lsp.syntax.python_check import LONGEST, Piece, pieces
from diffgemma_lsp.text.text import Point, Text, with_line_ends

# What is looked at around a hole. On either side, since a bracket may be closed far below.
LINES_BEFORE, LINES_AFTER = 150, 80
CHARS = 16_384
# The same around a selection that somebody waits for.
LINES_SELECTION = 2_000

# A line that may begin a piece to parse: no second clause of a statement, nor a row of a table.
_STATEMENT = re.compile(r"([ \t]*)(?!(?:else|elif|except|finally|case)\b)[\w@](?!.*,\s*\Z)")
_DEFINITION = re.compile(r"\s*(?:@|(?:async|class|def|export|fn|func|function|impl|pub|public)\b)")
CLOSING = re.compile(r"""[\s)\]}>"'`:,;]*""")
"""What may stand behind a hole at whose end a line may go on: the rest of an editor's pairs, and
punctuation."""


class Site:
    """A hole between two texts, and the fillings that its syntax allows."""

    def __init__(self, before: str, after: str, language: Language) -> None:
        self.language = language
        before, after = with_line_ends(before), with_line_ends(after)
        if language.compiled:  # as one, since a line may begin before the hole and end behind it
            whole = without_magics(before + after)
            before, after = whole[: len(before)], whole[len(before) :]
        self._around = _ends_at_lines(before, after)
        self.before, self.after = _window(before, after)
        self._whole = len(self.before) >= len(before)
        self.line = self.before.rpartition("\n")[2]
        self._rest = self.after.partition("\n")[0]
        self._below = self.after[len(self._rest) :]
        self._read: BracketState | None = None
        self._floor: int | None = None
        self._piece: Piece | Literal[False] | None = False

    def broken_by(self, middle: str) -> bool | None:
        """Whether `middle` brings errors that this place needn't have; None if nobody can say."""
        grammar = self.language.grammar
        if grammar is None or load(grammar.package) is None:
            return None
        middle = with_line_ends(middle)
        if not middle.strip():
            return False
        if (piece := self._sound_piece(grammar)) is not None:
            return not piece.takes(middle, self._ways_on(piece, middle, grammar))
        if not self._whole and not _STATEMENT.match(self.before.partition("\n")[0]):
            return None  # within a table that is longer than what is looked at
        counts = self._counts(middle, grammar)
        if not (faults := next(counts)):
            return False
        floor = self._least(grammar)
        return faults > floor and all(more > floor for more in counts)

    def lets_go_on(self, middle: str) -> bool:
        """Whether a line that was cut off behind `middle` can become sound; False if none knows."""
        grammar, line = self.language.grammar, self.line + middle
        if grammar is None or (piece := self._sound_piece(grammar)) is None:
            return False
        texts = (middle + lacks for begun, lacks in grammar.cut_off if re.match(begun, line))
        return any(piece.takes(text, self._ways_on(piece, text, grammar)) for text in texts)

    def worsened_by(self, new: str, old: str | None) -> bool:
        """Whether there are more errors with `new` than with `old`, or than there need be if there
        was nothing; False if nobody can say. Nothing comes behind `new`."""
        grammar = self.language.grammar
        if grammar is None or load(grammar.package) is None:
            return False
        new = with_line_ends(new)
        was = [*self._stand_ins(grammar)] if old is None else [with_line_ends(old)]
        for piece in self._pieces():
            if any(map(piece.takes, was)):
                return not piece.takes(new)
        least = min(next(self._counts(text, grammar)) for text in was)
        return next(self._counts(new, grammar)) > least

    def _stand_ins(self, grammar: Grammar) -> Iterator[str]:
        """What could be in the hole: one of the grammar's, the end of a field of a string, or what
        begins its line deeper."""
        yield from (text for line, text in grammar.stand_ins if re.match(line, self.line))
        if self.state().inside in self.language.strings and "{" in self.line:
            yield from ("_}", "}")
        if grammar.blocks and not self.line.strip():
            yield deepest(self.before, self.language)[len(self.line) :] + "_"

    def _pieces(self) -> Iterator[Piece]:
        """What can be asked about by itself: what begins in no string."""
        if self.language.compiled:
            inside = self.state().inside
            for piece in pieces(*self._around):
                if BracketState().over(piece.before, self.language).inside == inside:
                    yield piece

    def _sound_piece(self, grammar: Grammar) -> Piece | None:
        """A piece that Python takes with something in the hole."""
        if self._piece is False:
            self._piece = None
            for piece in self._pieces():
                for stand_in in self._stand_ins(grammar):
                    if piece.takes(stand_in, self._ways_on(piece, stand_in, grammar)):
                        self._piece = piece
                        return piece
                    if piece.is_broken_above(stand_in):
                        break
        return self._piece

    def _ways_on(self, piece: Piece, middle: str, grammar: Grammar) -> Iterator[str]:
        state = BracketState().over(piece.before, self.language)
        rest = piece.after.partition("\n")[0]
        return self._endings(piece.before, middle, rest, state, grammar)

    def state(self) -> BracketState:
        """The text before the hole, read; a copy, to go on with."""
        if self._read is None:
            self._read = BracketState().over(self.before, self.language)
        return self._read.copy()

    @property
    def at_a_whole_line(self) -> bool:
        """Whether nothing is missing in the line before the hole: its last bracket or string is
        closed, or its only word takes no more. False where nobody can say."""
        grammar = self.language.grammar
        if grammar is None or not grammar.whole_line or not re.match(grammar.whole_line, self.line):
            return False
        state = self.state()
        return not state.open and not state.inside

    def _least(self, grammar: Grammar) -> int:
        """How many faults there are at least, whatever is filled in."""
        if self._floor is None:
            self._floor = 1 << 30
            for stand_in in self._stand_ins(grammar):
                for count in self._counts(stand_in, grammar):
                    self._floor = min(count, self._floor)
                    if not count:
                        return 0
        return self._floor

    def _counts(self, middle: str, grammar: Grammar) -> Iterator[int]:
        """How many faults there are with `middle`; then with its line gone on in some way."""
        endings = self._endings(self.before, middle, self._rest, self.state(), grammar)
        for ending in endings:
            text = self.before + middle + self._rest + ending + self._below
            tree = parse(text, self.language)
            yield count_faults(tree.root_node, grammar) if tree is not None else 0

    def _endings(
        self, before: str, middle: str, rest: str, state: BracketState, grammar: Grammar
    ) -> Iterator[str]:
        """What may yet come at the end of the hole's line: nothing or, if that is open, more."""
        yield ""
        if not CLOSING.fullmatch(rest):
            return
        so_far = middle + rest
        lines = (before.rpartition("\n")[2] + so_far).split("\n")
        # Of a string that stood open before the hole, and not of one that the filling begins.
        string = state.inside if state.copy().over(rest, self.language) == state else ""
        closers = self._closers(state.over(so_far, self.language), string)
        if string and string == state.inside and "{" in lines[-1]:
            field = BracketState().over(lines[-1].rpartition("{")[2], self.language)
            ends = self._closers(field, field.inside) + "}"
            yield from (ends + closers, ends + "}" + closers)
        if closers:
            yield closers
        for start, ending in grammar.endings:
            if re.match(start, lines[-1]):
                yield closers + ending.replace("\n", "\n" + indentation(lines[-1]))
        # A statement that began further up in the filling, and is to go on below.
        for start, ending in grammar.endings_below:
            above = [line for line in lines[:-1] if re.match(start, line)]
            if above:
                yield closers + ending.replace("\n", "\n" + indentation(above[-1]))

    def _closers(self, state: BracketState, string: str) -> str:
        """What closes all that stands open, a string only if it ends like that."""
        ends = string if string == state.inside and string in self.language.strings else ""
        return ends + "".join(reversed(state.open))


# ---- what is looked at ----


def _ends_at_lines(before: str, after: str) -> tuple[str, str]:
    """As much of the texts around a hole as Python is asked about, in whole lines."""
    if len(before) > LONGEST:
        before = before[-LONGEST:].partition("\n")[2]
    if len(after) > LONGEST:
        after = after[:LONGEST].rpartition("\n")[0]
    return before, after


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
