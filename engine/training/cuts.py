"""Where holes are: at lines, brackets, words, characters and nodes of the syntax."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.training.syntax import SYNTAX_KINDS, SyntaxSpans
from engine.training.vocab import IntArray, Vocabulary
from engine.training.windows import Window

P_KEEP_NON_CODE = 0.1

_OPENING, _CLOSING = "([{", ")]}"
_LINE_COUNTS: npt.NDArray[np.float64] = np.cumsum(
    np.array((0.75, 0.13, 0.08))
)  # of 1, 2 and 3 lines; else 4
_NEAR = 3
"""A node of the syntax is one of so many behind the place that was drawn, or before it."""


@dataclass(frozen=True)
class Cut:
    """A hole from position ``start`` to ``end``, or, where ``middle`` is given, one whose tokens
    are ``middle`` and whose suffix is ``tail`` and then what stands at ``end``."""

    start: int
    end: int
    middle: IntArray | None = None
    tail: bytes = b""


class Cuts:
    """Draws holes of each kind in windows; ``room`` is the most tokens of one that ends a line."""

    def __init__(self, vocabulary: Vocabulary, room: int) -> None:
        self._vocabulary = vocabulary
        self._room = room
        self._spans = SyntaxSpans(vocabulary)
        self._choices: dict[str, Callable[[Window, np.random.Generator, int], Cut | None]] = {
            "rest": self.rest,
            "lines": self.lines,
            "full lines": self.full_lines,
            "bracket": self.bracket,
            "span": self.span,
            "chars": self.chars,
        }

    def draw(self, kind: str, window: Window, rng: np.random.Generator, target: int) -> Cut | None:
        """A hole of a kind at or behind position ``target``; None if there is none near."""
        if kind in SYNTAX_KINDS:
            return self.node(kind, window, rng, target)
        return self._choices[kind](window, rng, target)

    def node(self, kind: str, window: Window, rng: np.random.Generator, target: int) -> Cut | None:
        """A node of the syntax, or what is in it."""
        starts, ends = self._spans.of(window)[kind]
        if not len(starts):
            return None
        first = int(np.searchsorted(starts, self._spans.byte_at(target)))
        last = min(first + _NEAR, len(starts))
        chosen = int(rng.integers(min(first, max(0, last - _NEAR)), last))
        start = self._spans.token_at(int(starts[chosen]))
        token, offset = self._spans.place_of(int(ends[chosen]))
        if start is None or start < 1 or token + (offset > 0) > window.stop[start - 1]:
            return None
        return self._cut_inside(window, start, token, offset)

    def pick_line(self, window: Window, rng: np.random.Generator, target: int) -> int | None:
        """A line at or behind ``target``, mostly one that holds code; never a blank one."""
        line = window.line_at(target)
        if line < 0:
            line = 0
        for candidate in range(line, min(line + 12, len(window.line_start))):
            if window.code_start[candidate] >= window.line_end[candidate]:
                continue
            if window.is_code[candidate] or rng.random() < P_KEEP_NON_CODE:
                return candidate
        return None

    def rest(self, window: Window, rng: np.random.Generator, target: int) -> Cut | None:
        line = self.pick_line(window, rng, target)
        if line is None:
            return None
        low, end = int(window.code_start[line]), int(window.line_end[line])
        if rng.random() < 0.2:
            return Cut(low, end)
        places = np.flatnonzero(window.edge[low:end])
        return Cut(low + int(rng.choice(places)), end) if len(places) else None

    def lines(self, window: Window, rng: np.random.Generator, target: int) -> Cut | None:
        line = self.pick_line(window, rng, target)
        if line is None:
            return None
        return Cut(int(window.code_start[line]), self._last_end(window, rng, line))

    def full_lines(self, window: Window, rng: np.random.Generator, target: int) -> Cut | None:
        line = self.pick_line(window, rng, target)
        if line is None:
            return None
        return Cut(int(window.line_start[line]), self._last_end(window, rng, line))

    def _last_end(self, window: Window, rng: np.random.Generator, line: int) -> int:
        """The end of the last of 1 to 4 lines from ``line`` on, within the canvas and document."""
        count = int(np.searchsorted(_LINE_COUNTS, rng.random())) + 1
        stop = window.stop[window.line_start[line]]
        last = min(line + count, len(window.line_start)) - 1
        while last > line and (
            window.stop[window.line_start[last]] != stop
            or window.line_end[last] - window.line_start[line] > self._room
            or window.code_start[last] >= window.line_end[last]
        ):
            last -= 1
        return int(window.line_end[last])

    def bracket(self, window: Window, rng: np.random.Generator, target: int) -> Cut | None:
        """What stands between two matching brackets of one line."""
        first = window.line_at(target)
        for line in range(max(first, 0), min(first + 24, len(window.line_start))):
            low, end = int(window.code_start[line]), int(window.line_end[line])
            pairs = self._bracket_pairs(window, low, end) if window.is_code[line] else []
            if pairs:
                start, close, offset = pairs[int(rng.integers(len(pairs)))]
                return self._cut_inside(window, start, close, offset)
        return None

    def _bracket_pairs(self, window: Window, low: int, end: int) -> list[tuple[int, int, int]]:
        """(first inner position, position of the closing token, byte offset of the bracket)."""
        found: list[tuple[int, int, int]] = []
        opened: list[tuple[str, int, bool]] = []
        for position in range(low, end):
            raw = self._vocabulary.raw[int(window.ids[position])]
            for offset, byte in enumerate(raw):
                char = chr(byte)
                if char in _OPENING:
                    at_boundary = offset == len(raw) - 1
                    opened.append((char, position + 1, at_boundary))
                elif char in _CLOSING and opened:
                    opening, start, at_boundary = opened.pop()
                    if _OPENING.index(opening) != _CLOSING.index(char):
                        return found
                    if at_boundary and start <= position and (start < position or offset > 0):
                        found.append((start, position, offset))
        return found

    def span(self, window: Window, rng: np.random.Generator, target: int) -> Cut | None:
        start = self.edge(window, target, False)
        if start is None:
            return None
        end = min(start + int(rng.integers(1, 13)), int(window.stop[start - 1]))
        while start < end < window.stop[start - 1] and self._torn(window, end):
            end += 1
        return Cut(start, end) if end > start else None

    def _torn(self, window: Window, position: int) -> bool:
        """Whether a token begins inside a character."""
        return 0x80 <= self._vocabulary.raw[int(window.ids[position])][0] < 0xC0

    def chars(self, window: Window, rng: np.random.Generator, target: int) -> Cut | None:
        start = self.edge(window, target, False)
        if start is None:
            return None
        stop = int(window.stop[start - 1])
        if rng.random() < 0.85:
            stop = min(stop, int(window.line_end[window.line_at(start)]))
        near = range(start, min(stop, start + 16))
        sizes = [len(self._vocabulary.raw[int(window.ids[p])]) for p in near]
        if sum(sizes) < 2:
            return None
        left = int(rng.integers(1, min(sum(sizes), 41)))
        for position, size in enumerate(sizes, start):
            if left < size:
                return self._cut_inside(window, start, position, left)
            left -= size
        return None

    def empty_place(self, window: Window, rng: np.random.Generator, target: int) -> int | None:
        if rng.random() < 0.5:
            line = self.pick_line(window, rng, target)
            return None if line is None else int(window.line_end[line])
        return self.edge(window, target, False)

    def edge(self, window: Window, target: int, line_start: bool) -> int | None:
        """The first place at or behind ``target`` where a pre-token (or a line) begins."""
        if line_start:
            line = int(np.searchsorted(window.line_start, target))
            return int(window.line_start[line]) if line < len(window.line_start) else None
        place = target + int(np.argmax(window.edge[target:])) if target < len(window.ids) else 0
        if not 1 <= place < len(window.ids) or not window.edge[place]:
            return None
        # Behind a document's last token stands <bos>, which is no place inside a document.
        return place if window.ids[place] != self._vocabulary.bos else None

    def _cut_inside(self, window: Window, start: int, token: int, offset: int) -> Cut | None:
        """A hole from ``start`` that ends ``offset`` bytes into ``token``; both sides anew."""
        if offset == 0 and token == len(window.ids):
            return Cut(start, token)
        vocabulary, raw = self._vocabulary, self._vocabulary.raw[int(window.ids[token])]
        head, tail = raw[:offset], raw[offset:]
        if tail and 0x80 <= tail[0] < 0xC0:  # inside a character
            return None
        if offset == 0:
            return Cut(start, token)
        before = vocabulary.bytes_of(window.ids[start:token]) + head
        try:
            middle = before.decode("utf-8")
        except UnicodeDecodeError:
            return None
        return Cut(start, token + 1, vocabulary.encode(middle), tail)
