"""Holes in text of any language, for a model that decides them from the left.

Each kind says where a cursor stands and where the hole ends. Where it begins follows as in serving:
what was typed of a word, and for some vocabularies the white space in front of the cursor, are
written anew with the hole (TextTokenizer.heal), so that a model learns the starts that it will meet
and no others.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from engine.text.tokenizer import TextTokenizer

CLOSING = {"(": ")", "[": "]", "{": "}"}
OPENS_A_BLOCK = (":", "{", "(", "[", "=>")

SHARES = {
    "empty": 0.04,
    "rest": 0.26,
    "lines": 0.26,
    "bracket": 0.10,
    "string": 0.04,
    "span": 0.10,
    "block": 0.20,
}
"""How often each kind of hole is tried."""

_CHECKED = 48
"""Characters before a hole whose tokens are compared with those that serving would read."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A hole in a text: characters from `start` to `end`, for a cursor at `cursor`. token: the
    number of the text's token that it begins with."""

    kind: str
    cursor: int
    start: int
    end: int
    token: int


class Document:
    """A text with its tokens: ids, and where each of them begins. blanks: see Profile."""

    def __init__(self, text: str, tokenizer: TextTokenizer, blanks: bool) -> None:
        self.text, self._tokenizer = text, tokenizer
        self._heal = tokenizer.heal_blank if blanks else tokenizer.heal
        self.ids, self.starts = tokenizer.encode_with_starts(text)

    def cut(self, kind: str, near: int, rng: np.random.Generator) -> Cut | None:
        """A hole of this kind near token `near`; None if there is none."""
        found = KINDS[kind](self, near, rng)
        if found is None:
            return None
        cursor, end = found
        start = len(self._heal(self.text[:cursor])[0])
        token = bisect_left(self.starts, start)
        known = 1 <= token < len(self.starts) and self.starts[token] == start
        if not known or end < cursor or not self._reads_alike(token):
            return None
        return Cut(kind, cursor, start, end, token)

    def edge(self, near: int) -> int | None:
        """Where the first token from `near` on begins that does not go on with a word."""
        for start in self.starts[near : near + 8]:
            if start and not (_in_word(self.text[start - 1]) and _in_word(self.text[start])):
                return start
        return None

    def line_end(self, place: int) -> int:
        """Where the line with this character ends."""
        end = self.text.find("\n", place)
        return len(self.text) if end < 0 else end

    def visible(self, place: int, end: int) -> int:
        """The first character from `place` on that is not white space, at most `end`."""
        while place < end and self.text[place].isspace():
            place += 1
        return place

    def near_line_end(self, place: int, first: int, rng: np.random.Generator) -> int:
        """Where a cursor stands in front of a whole line, whose first visible character is `first`:
        mostly there, else at the end of the line before, which is at `place`, or behind that."""
        x = rng.random()
        return first if x < 0.6 else place if x < 0.8 else place + 1

    def _reads_alike(self, token: int) -> bool:
        """Whether the text in front of a token, read alone, ends in the tokens that it has here."""
        start = self.starts[token]
        alone = self._tokenizer.encode(self.text[max(0, start - _CHECKED) : start])
        few = min(2, token, len(alone))
        return alone[-few:] == self.ids[token - few : token]


Place = tuple[int, int]
"""Where a cursor stands and where its hole ends."""


def _empty(document: Document, near: int, rng: np.random.Generator) -> Place | None:
    """Nothing belongs here: mostly behind a complete line."""
    if rng.random() >= 0.7:
        place = document.edge(near)
        return None if place is None else (place, place)
    place = document.line_end(document.starts[near])
    begin = document.text.rfind("\n", 0, place) + 1
    return (place, place) if document.text[begin:place].strip() else None


def _rest(document: Document, near: int, rng: np.random.Generator) -> Place | None:
    """The rest of a line."""
    place = document.edge(near)
    if place is None or document.text[place] == "\n":
        return None
    end = document.line_end(place)
    return (document.visible(place, end), end) if document.text[place:end].strip() else None


def _lines(document: Document, near: int, rng: np.random.Generator) -> Place | None:
    """Whole lines behind the one that `near` is in, mostly one."""
    text = document.text
    place = document.line_end(document.starts[near])
    first = document.visible(place, len(text))
    if first == len(text):
        return None
    end = document.line_end(first)
    for _ in range(0 if rng.random() < 0.7 else int(rng.integers(1, 5))):
        following = document.line_end(end + 1)
        if end >= len(text) or not text[end + 1 : following].strip():
            break
        end = following
    return document.near_line_end(place, first, rng), end


def _bracket(document: Document, near: int, rng: np.random.Generator) -> Place | None:
    """What is between brackets."""
    text = document.text
    place = _behind(document, near, "([{")
    if place is None:
        return None
    depth = 0
    for end in range(place, min(len(text), place + 400)):
        if text[end] in CLOSING:
            depth += 1
        elif text[end] in ")]}":
            if depth == 0:
                closes = text[end] == CLOSING[text[place - 1]]
                return (place, end) if closes and text[place:end].strip() else None
            depth -= 1
    return None


def _string(document: Document, near: int, rng: np.random.Generator) -> Place | None:
    """What is between quotes, in one line."""
    place = _behind(document, near, "\"'")
    if place is None:
        return None
    end = document.text.find(document.text[place - 1], place, place + 120)
    return (place, end) if end > place and "\n" not in document.text[place:end] else None


def _span(document: Document, near: int, rng: np.random.Generator) -> Place | None:
    """Some tokens, the last of which may be cut."""
    place = document.edge(near)
    if place is None:
        return None
    token = bisect_left(document.starts, place)
    end = document.starts[min(token + int(rng.integers(1, 13)), len(document.starts) - 1)]
    if rng.random() < 0.25:
        end -= int(rng.integers(0, 3))
    end = max(end, place + 1)
    return document.visible(place, end), end


def _block(document: Document, near: int, rng: np.random.Generator) -> Place | None:
    """The lines that are indented behind one that opens them, at most twelve."""
    text, place = document.text, document.starts[near]
    for _ in range(8):
        place = document.line_end(place)
        head = text[text.rfind("\n", 0, place) + 1 : place]
        if place == len(text):
            return None
        if head.rstrip().endswith(OPENS_A_BLOCK):
            break
        place += 1
    else:
        return None
    least, begin, end, lines = _indent(head), place + 1, place, 0
    while begin < len(text):
        after = document.line_end(begin)
        line = text[begin:after]
        if line.strip():
            if _indent(line) <= least:
                break
            end, lines = after, lines + 1
        begin = after + 1
    if not 1 <= lines <= 12:
        return None
    return document.near_line_end(place, document.visible(place, end), rng), end


KINDS: dict[str, Callable[[Document, int, np.random.Generator], Place | None]] = {
    "empty": _empty,
    "rest": _rest,
    "lines": _lines,
    "bracket": _bracket,
    "string": _string,
    "span": _span,
    "block": _block,
}
"""Where a cursor stands and where its hole ends, near a token; None if there is no such place."""


def _behind(document: Document, near: int, opening: str) -> int | None:
    """Where the next token begins that stands behind one of these characters."""
    text = document.text
    for start in document.starts[near : near + 40]:
        if start and text[start - 1] in opening and text[start - 2 : start - 1] != text[start - 1]:
            return start
    return None


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _in_word(character: str) -> bool:
    return character.isalnum() or character == "_"
