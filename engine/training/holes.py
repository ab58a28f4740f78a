"""Makes canvases: where a hole is, how long it looks, and what stands around it.

A canvas of C tokens continues the window's prefix at ``start``:

    [middle | slack | suffix head]            most kinds
    [middle | slack | fixed | middle | slack | suffix head]     several holes, up to six
    [first part of a longer middle | suffix head]                a truncated hole
    [document tokens]                                            a block

Holes are free, everything else is clamped. Behind the end of a document the suffix head is
``<eos>`` repeated; a free slot never holds a special token other than slack.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from engine.training.vocab import BoolArray, IntArray, Vocabulary
from engine.training.windows import Window

MIN_SUFFIX = 8
SERVINGS = (16, 24, 32, 48)
LATER_SLACK = 0.08
P_SERVING = 0.4
P_EMPTY = 0.02
P_TRUNCATED = 0.097  # of the line kinds, which are half of all: 5% of all
P_KEEP_NON_CODE = 0.1

KINDS = ("rest", "lines", "full lines", "bracket", "span", "chars", "several", "block")
SHARES = (0.24, 0.15, 0.10, 0.08, 0.06, 0.05, 0.28, 0.04)
_LINE_KINDS = ("rest", "lines", "full lines")
_OPENING, _CLOSING = "([{", ")]}"
_CUMULATIVE: npt.NDArray[np.float64] = np.cumsum(np.array(SHARES))
_LINE_COUNTS: npt.NDArray[np.float64] = np.cumsum(
    np.array((0.75, 0.13, 0.08))
)  # of 1, 2 and 3 lines; else 4


@dataclass(frozen=True)
class CanvasSample:
    """One canvas: its kind and position, and ids, free and weight, each [C]."""

    kind: str
    start: int
    ids: IntArray
    free: BoolArray
    weight: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Part:
    """A run of canvas tokens: a hole's middle with ``slack`` behind it, or clamped text."""

    ids: IntArray
    hole: bool
    slack: int = 0


@dataclass(frozen=True)
class _Cut:
    """A hole from position ``start`` to ``end``, or, where ``middle`` is given, one whose tokens
    are ``middle`` and whose suffix is ``tail`` and then what stands at ``end``."""

    start: int
    end: int
    middle: IntArray | None = None
    tail: bytes = b""


class HoleMaker:
    """Draws canvases of ``canvas`` tokens in windows, all randomness coming from ``rng``."""

    def __init__(self, vocabulary: Vocabulary, canvas: int) -> None:
        self._vocabulary = vocabulary
        self._canvas = canvas
        self._room = canvas - MIN_SUFFIX
        self._empty = np.zeros(0, np.int64)
        self._choices: dict[str, Callable[[Window, np.random.Generator, int], _Cut | None]] = {
            "rest": self._rest,
            "lines": self._lines,
            "full lines": self._full_lines,
            "bracket": self._bracket,
            "span": self._span,
            "chars": self._chars,
        }

    def make(self, window: Window, rng: np.random.Generator, target: int) -> CanvasSample:
        """A canvas that starts near position ``target``, 1 to N."""
        kind = KINDS[0]
        for attempt in range(18):
            if attempt % 6 == 0:
                kind = KINDS[
                    int(np.searchsorted(_CUMULATIVE, rng.random() * float(_CUMULATIVE[-1])))
                ]
            made = self._attempt(window, rng, target, kind)
            if made is not None and 1 <= made.start <= window.size:
                return made
            target = int(rng.integers(1, window.size + 1))
        return self._fallback(window, target)

    def _attempt(
        self, window: Window, rng: np.random.Generator, target: int, kind: str
    ) -> CanvasSample | None:
        if kind == "block":
            start = self._edge(window, target, rng.random() < 0.5)
            if start is None or start + self._canvas > window.stop[start - 1]:
                return None
            ids = window.ids[start : start + self._canvas]
            return self._assemble(window, kind, start, [Part(ids, True)], start + self._canvas)
        if kind == "several":
            return self._several(window, rng, target)
        if rng.random() < P_EMPTY:
            start = self._empty_place(window, rng, target)
            return None if start is None else self._single(window, rng, "empty", _Cut(start, start))
        if kind in _LINE_KINDS and rng.random() < P_TRUNCATED:
            return self._truncated(window, rng, target, kind)
        cut = self._choices[kind](window, rng, target)
        return None if cut is None else self._single(window, rng, kind, cut)

    def _fallback(self, window: Window, target: int) -> CanvasSample:
        """An empty hole right at ``target``, moved behind a ``<bos>`` if need be."""
        slack = min(SERVINGS[0], self._room)
        return self._assemble(window, "empty", target, [Part(self._empty, True, slack)], target)

    # Where holes are -----------------------------------------------------------------------

    def _pick_line(self, window: Window, rng: np.random.Generator, target: int) -> int | None:
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

    def _rest(self, window: Window, rng: np.random.Generator, target: int) -> _Cut | None:
        line = self._pick_line(window, rng, target)
        if line is None:
            return None
        low, end = int(window.code_start[line]), int(window.line_end[line])
        if rng.random() < 0.2:
            return _Cut(low, end)
        places = np.flatnonzero(window.edge[low:end])
        return _Cut(low + int(rng.choice(places)), end) if len(places) else None

    def _lines(self, window: Window, rng: np.random.Generator, target: int) -> _Cut | None:
        line = self._pick_line(window, rng, target)
        if line is None:
            return None
        return _Cut(int(window.code_start[line]), self._last_end(window, rng, line))

    def _full_lines(self, window: Window, rng: np.random.Generator, target: int) -> _Cut | None:
        line = self._pick_line(window, rng, target)
        if line is None:
            return None
        return _Cut(int(window.line_start[line]), self._last_end(window, rng, line))

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

    def _bracket(self, window: Window, rng: np.random.Generator, target: int) -> _Cut | None:
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

    def _span(self, window: Window, rng: np.random.Generator, target: int) -> _Cut | None:
        start = self._edge(window, target, False)
        if start is None:
            return None
        end = min(start + int(rng.integers(1, 13)), int(window.stop[start - 1]))
        while start < end < window.stop[start - 1] and self._torn(window, end):
            end += 1
        return _Cut(start, end) if end > start else None

    def _torn(self, window: Window, position: int) -> bool:
        """Whether a token begins inside a character."""
        return 0x80 <= self._vocabulary.raw[int(window.ids[position])][0] < 0xC0

    def _chars(self, window: Window, rng: np.random.Generator, target: int) -> _Cut | None:
        start = self._edge(window, target, False)
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

    def _empty_place(self, window: Window, rng: np.random.Generator, target: int) -> int | None:
        if rng.random() < 0.5:
            line = self._pick_line(window, rng, target)
            return None if line is None else int(window.line_end[line])
        return self._edge(window, target, False)

    def _edge(self, window: Window, target: int, line_start: bool) -> int | None:
        """The first place at or behind ``target`` where a pre-token (or a line) begins."""
        if line_start:
            line = int(np.searchsorted(window.line_start, target))
            return int(window.line_start[line]) if line < len(window.line_start) else None
        place = target + int(np.argmax(window.edge[target:])) if target < len(window.ids) else 0
        if not 1 <= place < len(window.ids) or not window.edge[place]:
            return None
        # Behind a document's last token stands <bos>, which is no place inside a document.
        return place if window.ids[place] != self._vocabulary.bos else None

    def _cut_inside(self, window: Window, start: int, token: int, offset: int) -> _Cut | None:
        """A hole from ``start`` that ends ``offset`` bytes into ``token``; both sides anew."""
        vocabulary, raw = self._vocabulary, self._vocabulary.raw[int(window.ids[token])]
        head, tail = raw[:offset], raw[offset:]
        if 0x80 <= tail[0] < 0xC0:  # inside a character
            return None
        if offset == 0:
            return _Cut(start, token)
        before = vocabulary.bytes_of(window.ids[start:token]) + head
        try:
            middle = before.decode("utf-8")
        except UnicodeDecodeError:
            return None
        return _Cut(start, token + 1, vocabulary.encode(middle), tail)

    # What a canvas holds -------------------------------------------------------------------

    def _single(
        self, window: Window, rng: np.random.Generator, kind: str, cut: _Cut
    ) -> CanvasSample | None:
        middle = window.ids[cut.start : cut.end] if cut.middle is None else cut.middle
        if len(middle) > self._room:
            return self._shorten(window, rng, cut) if kind in _LINE_KINDS else None
        slack = draw_slack(rng, len(middle), self._room, SERVINGS, 32)
        parts = [Part(middle, True, slack)]
        return self._assemble(window, kind, cut.start, parts, cut.end, cut.tail)

    def _truncated(
        self, window: Window, rng: np.random.Generator, target: int, kind: str
    ) -> CanvasSample | None:
        """A line kind that goes on for several lines and does not fit its hole."""
        cut = self._choices[kind](window, rng, target)
        if cut is None:
            return None
        first = window.line_at(cut.start)
        last = min(first + int(rng.integers(1, 9)), len(window.line_start) - 1)
        stop = window.stop[window.line_start[first]]
        while last > first and (
            window.stop[window.line_start[last]] != stop
            or window.line_end[last] - cut.start > 3 * self._canvas
            or window.code_start[last] >= window.line_end[last]
        ):
            last -= 1
        return self._shorten(window, rng, _Cut(cut.start, int(window.line_end[last])))

    def _shorten(self, window: Window, rng: np.random.Generator, cut: _Cut) -> CanvasSample | None:
        """A hole full of the first tokens of a middle, without slack."""
        middle = window.ids[cut.start : cut.end]
        sizes = [s for s in SERVINGS if s < len(middle) and s <= self._room]
        if not sizes or len(middle) > 3 * self._canvas:
            return None
        size = int(rng.choice(sizes))
        if rng.random() < 0.4:
            size = int(rng.integers(sizes[0], min(len(middle), self._room + 1)))
        return self._assemble(window, "truncated", cut.start, [Part(middle[:size], True)], cut.end)

    def _several(
        self, window: Window, rng: np.random.Generator, target: int
    ) -> CanvasSample | None:
        """Two to six holes with text between them. Per slot they teach the most: much of the
        canvas is to be filled, and each hole sees text on both sides."""
        start = self._edge(window, target, False)
        if start is None:
            return None
        stop = int(window.stop[start - 1])
        places = [start]
        for _ in range(2 * int(rng.integers(2, 7)) - 1):
            place = self._edge(window, places[-1] + int(rng.integers(1, 11)), False)
            if place is None or place >= stop:
                break
            places.append(place)
        if len(places) % 2:
            places.pop()
        if len(places) < 4 or places[-1] - start > self._room:
            return None
        room = self._room - (places[-1] - start)
        parts: list[Part] = []
        for index, (low, high) in enumerate(pairwise(places)):
            ids = window.ids[low:high]
            hole = index % 2 == 0
            slack = 0
            if hole:
                slack = draw_slack(rng, len(ids), min(room, 12) + len(ids), SERVINGS[:1], 9)
                room -= slack
            parts.append(Part(ids, hole, slack))
        return self._assemble(window, "several", start, parts, places[-1])

    def _assemble(
        self,
        window: Window,
        kind: str,
        start: int,
        parts: list[Part],
        end: int,
        tail: bytes = b"",
    ) -> CanvasSample:
        """Lay parts and the suffix head from ``end`` on (``tail`` bytes before it) out."""
        size = self._canvas
        ids = np.full(size, self._vocabulary.eos, np.int64)
        free = np.zeros(size, bool)
        weight = np.zeros(size, np.float32)
        at = 0
        for part in parts:
            content = at + len(part.ids)
            ids[at:content] = part.ids
            if part.hole:
                filled = content + part.slack
                ids[content:filled] = self._vocabulary.slack
                free[at:filled] = True
                weight[at:content] = 1
                weight[content:filled] = LATER_SLACK
                weight[content : content + min(part.slack, 1)] = 1
                content = filled
            at = content
        if at < size:
            suffix = self._suffix(window, start, end, tail, size - at)
            ids[at : at + len(suffix)] = suffix
        return CanvasSample(kind, start, ids, free, weight)

    def _suffix(self, window: Window, start: int, end: int, tail: bytes, room: int) -> IntArray:
        """At most ``room`` tokens that follow; anew where they begin inside a pre-token."""
        stop = int(window.stop[start - 1])
        following = window.ids[end : min(stop, end + room)]
        if not tail and (end >= len(window.edge) or window.edge[end]):
            return following
        text = tail + self._vocabulary.bytes_of(window.ids[end : min(stop, end + room + 16)])
        # Only the last character can be torn, far behind what there is room for.
        return self._vocabulary.encode(text.decode("utf-8", "ignore"))[:room]


def draw_slack(
    rng: np.random.Generator, content: int, room: int, servings: tuple[int, ...], spread: int
) -> int:
    """How many slack tokens follow ``content`` tokens in a hole of at most ``room`` slots.

    Either the hole has one of the serving sizes (a random one of those that fit), or up to
    ``spread - 1`` more slots than content.
    """
    fitting = [s for s in servings if content <= s <= room]
    if fitting and rng.random() < P_SERVING:
        return int(rng.choice(fitting)) - content
    return min(int(rng.integers(0, spread)), room - content)
