"""A document as tokens and lines, to look for places in."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property

from diffgemma_lsp.next_edit.tokens import DEFINES, SELVES, is_name, tokens_of
from diffgemma_lsp.syntax.indentation import indentation
from diffgemma_lsp.syntax.languages import Language
from diffgemma_lsp.syntax.scopes import Name, Scopes, scopes_of

_BIND = frozenset(("as", "for", "let", "const", "var", "import"))
"""What may stand in front of a name that is given something."""

_OPEN, _CLOSE = ("(", "[", "{"), (")", "]", "}")


class Source:
    """The text of a document, whose lines end in "\\n"."""

    def __init__(self, text: str, language: Language) -> None:
        self.text, self.language = text, language
        self.lines = text.split("\n")
        self.tokens = tokens_of(text, language)
        self._line_starts = [0]
        for line in self.lines[:-1]:
            self._line_starts.append(self._line_starts[-1] + len(line) + 1)
        self._starts = [token.start for token in self.tokens]

    @cached_property
    def by_text(self) -> dict[str, list[int]]:
        """The tokens of each text, by their indexes."""
        found: dict[str, list[int]] = {}
        for index, token in enumerate(self.tokens):
            found.setdefault(token.text, []).append(index)
        return found

    @cached_property
    def scopes(self) -> Scopes | None:
        """What its names mean, if a grammar says it; else that is guessed from lines and words."""
        return scopes_of(self.text, self.language)

    def name(self, index: int) -> Name | None:
        """What a grammar says of a token."""
        found = None if self.scopes is None else self.scopes.at(self.tokens[index].start)
        return found if found is not None and found.text == self.tokens[index].text else None

    def line_of(self, offset: int) -> int:
        """The line that an offset lies in."""
        return bisect_right(self._line_starts, offset) - 1

    def start_of(self, line: int) -> int:
        """The offset of a line's first character."""
        return self._line_starts[line]

    def within(self, first: int, last: int) -> range:
        """The tokens that begin in these lines, by their indexes."""
        end = self._line_starts[last + 1] if last + 1 < len(self.lines) else len(self.text) + 1
        return range(
            bisect_left(self._starts, self._line_starts[first]), bisect_left(self._starts, end)
        )

    def in_one_token(self, offset: int) -> bool:
        """Whether a string or a comment that began in a line above goes on there."""
        index = bisect_left(self._starts, offset) - 1
        while index >= 0 and self.tokens[index].kind == "name":
            index -= 1  # perhaps one of a string that has fields
        return index >= 0 and self.tokens[index].end > offset

    def before(self, index: int) -> str:
        """The token in front of one; empty if there is none."""
        return self.tokens[index - 1].text if index > 0 else ""

    def behind(self, index: int) -> str:
        """The token behind one."""
        return self.tokens[index + 1].text if index + 1 < len(self.tokens) else ""

    # ---- roles of names ----

    def is_attribute(self, index: int) -> bool:
        """Whether a name stands behind a dot."""
        if (name := self.name(index)) is not None:
            return name.dotted
        return self.before(index) in (".", "->") and self.before(index - 1) != "."

    def owner(self, index: int) -> str:
        """What an attribute is one of, if that is a name."""
        at = index - (3 if self.before(index) == ":" else 2)
        return self.tokens[at].text if at >= 0 and self.is_attribute(index) else ""

    def is_definition(self, index: int) -> bool:
        """Whether a name is defined here as a function or a class."""
        if (name := self.name(index)) is not None:
            return name.head
        return self.before(index) in DEFINES

    def is_keyword(self, index: int) -> bool:
        """Whether a name is that of an argument in a call."""
        if (name := self.name(index)) is not None and name.label:
            return True
        if self.behind(index) != "=" or self.before(index) not in ("(", ","):
            return False
        opened = self.opened(index)
        return opened is not None and not (opened > 1 and self.is_definition(opened - 1))

    def binds(self, index: int) -> bool:
        """Whether a name gets what it stands for here: as a parameter, by an assignment or a loop,
        or under another name."""
        if (name := self.name(index)) is not None:
            return name.head or name.declared_in is not None
        if self.is_definition(index) or self.before(index) in _BIND:
            return True
        opened = self.opened(index)
        if opened is not None and self.is_definition(opened - 1):
            return self.before(index) in ("(", ",", "*", "**")
        line = self.line_of(self.tokens[index].start)
        row = [self.tokens[at].text for at in self.within(line, line)]
        at = index - self.within(line, line).start
        if "for" in row[:at] and "in" in row[at:]:
            return all(_is_target(text) for text in row[row.index("for") + 1 : at])
        ends = [n for n, text in enumerate(row) if text in ("=", ":", ":=") and n > at]
        return bool(ends) and all(_is_target(text) for text in row[: ends[0]])

    def is_own(self, name: str) -> bool:
        """Whether an attribute of this name is given in this document."""
        return any(
            self.is_definition(index)
            or (self.owner(index) in SELVES and self.behind(index) in ("=", ":"))
            for index in self.by_text.get(name, ())
        )

    # ---- brackets and blocks ----

    def opened(self, index: int) -> int | None:
        """The bracket that a token stands in."""
        return self._outer(range(index - 1, max(-1, index - 400), -1), _OPEN, _CLOSE)

    def closed(self, opened: int) -> int | None:
        """The bracket that closes one."""
        return self._outer(range(opened + 1, min(len(self.tokens), opened + 400)), _CLOSE, _OPEN)

    def _outer(self, way: range, ends: Sequence[str], inner: Sequence[str]) -> int | None:
        """The first on the way that ends what it is in; pairs that `inner` begins are passed by."""
        depth = 0
        for at in way:
            text = self.tokens[at].text
            if text in inner:
                depth += 1
            elif text in ends:
                if not depth:
                    return at
                depth -= 1
        return None

    def scope(self, line: int) -> tuple[int, int]:
        """The first and the last line of the function around a line, its head included; all if
        there is none."""
        deep = len(indentation(self.lines[line])) + 1
        for number in range(line, -1, -1):
            content = self.lines[number]
            depth = len(indentation(content))
            if not content.strip() or depth >= deep or content.lstrip()[:1] in _CLOSE:
                continue
            deep = depth
            if self.defines(number):
                return number, self._end(number, depth)
        return 0, len(self.lines) - 1

    def defines(self, line: int, what: frozenset[str] = DEFINES - {"class"}) -> bool:
        """Whether a function is defined in a line."""
        words = self.lines[line].split("(")[0].split()
        return any(word in what for word in words[:3])

    def in_a_class(self, line: int) -> bool:
        """Whether what stands around a line at once is a class."""
        deep = len(indentation(self.lines[line]))
        for number in range(line - 1, -1, -1):
            content = self.lines[number]
            if content.strip() and len(indentation(content)) < deep:
                return self.defines(number, frozenset(("class", "interface", "impl", "struct")))
        return False

    def _end(self, head: int, depth: int) -> int:
        for number in range(head + 1, len(self.lines)):
            content = self.lines[number]
            closes = content.lstrip()[:1] in _CLOSE
            if content.strip() and not closes and len(indentation(content)) <= depth:
                return number - 1
        return len(self.lines) - 1

    def names(self, text: str, first: int, last: int) -> Iterator[int]:
        """The names of this text in these lines."""
        lines = self.within(first, last)
        for index in self.by_text.get(text, ()):
            if index in lines and self.tokens[index].kind == "name":
                yield index


def _is_target(text: str) -> bool:
    """Whether it may be a part of what something is assigned to."""
    return text in (",", "(", ")", "[", "]", "*", ".") or is_name(text) or text in SELVES
