"""Where brackets and strings stand open, as far as that can be said without a grammar.

A text is read once, from bracket to bracket; what stands in strings and comments does not count.
Reading can stop anywhere and go on, which is what makes a text with a hole cheap to look at: what
comes before the hole, what fills it and what follows are read by themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

from diffgemma_lsp.syntax.languages import Language

_CLOSER = {"(": ")", "[": "]", "{": "}"}


@dataclass(slots=True)
class BracketState:
    """What has been read so far.

    inside: what ends the string or comment that was read last, "" in code.
    open: what closes the brackets that stand open, outermost first.
    closed: the closing brackets that closed nothing. torn: how many strings a line end broke off.
    """

    inside: str = ""
    open: list[str] = field(default_factory=list[str])
    closed: list[str] = field(default_factory=list[str])
    torn: int = 0

    def copy(self) -> BracketState:
        """A state that goes on by itself."""
        return BracketState(self.inside, list(self.open), list(self.closed), self.torn)

    def over(self, text: str, language: Language) -> BracketState:
        """The same state, after `text`."""
        for _ in self.steps(text, language):
            pass
        return self

    def steps(self, text: str, language: Language) -> Iterator[int]:
        """Reads `text`; yields where each thing that counts begins, before it is read."""
        at = 0
        while found := _next(language, self.inside).search(text, at):
            yield found.start()
            self._take(found[0], language)
            at = found.end()
        yield len(text)

    def _take(self, what: str, language: Language) -> None:
        if self.inside:
            if what == self.inside:
                self.inside = ""
            elif what == "\n":
                self.inside = ""
                self.torn += 1
        elif what in _CLOSER:
            self.open.append(_CLOSER[what])
        elif what in _CLOSER.values():
            if self.open and self.open[-1] == what:
                self.open.pop()
            else:
                self.closed.append(what)
        elif what in language.strings:
            self.inside = what
        else:  # a comment, or a character in quotes, which is over already
            self.inside = dict(language.comments).get(what, "")

    @property
    def in_string(self) -> bool:
        """Whether what comes next belongs to a string or a comment over several lines."""
        return self.inside not in ("", "\n")


@cache
def _next(language: Language, inside: str) -> re.Pattern[str]:
    """What counts next, in code or `inside` a string or comment."""
    if not inside:
        marks = [*language.strings, *(start for start, _ in language.comments)]
        marks.sort(key=len, reverse=True)
        character = [] if "'" in language.strings else [r"'(?:\\[^\n]+?|[^\\'\n])'"]
        return re.compile("|".join([*map(re.escape, marks), *character, r"[()\[\]{}]"]))
    if inside not in language.strings:
        return re.compile(re.escape(inside))
    line_end = [] if inside in language.lasting else ["\n"]
    return re.compile("|".join([r"\\[\s\S]", re.escape(inside), *line_end]))


class Imbalance(NamedTuple):
    """What is wrong: brackets and strings that stand open, and closing brackets too many."""

    open: int
    closed: int

    def within(self, allowed: Imbalance) -> bool:
        """Whether this is no worse than `allowed`."""
        return self.closed <= allowed.closed and sum(self) <= sum(allowed)


def imbalance(before: BracketState, after: BracketState) -> Imbalance:
    """What is wrong with a text that is read as `before` and goes on as `after`."""
    stack, lost = list(before.open), 0
    for closer in after.closed:
        if stack and stack[-1] == closer:
            stack.pop()
        else:
            lost += 1
    torn = before.torn + after.torn + after.in_string
    return Imbalance(len(stack) + len(after.open) + torn, len(before.closed) + lost)
