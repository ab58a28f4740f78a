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

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from engine.training.cuts import Cut, Cuts
from engine.training.data import LATER_SLACK
from engine.training.syntax import SYNTAX_KINDS
from engine.training.vocab import BoolArray, IntArray, Vocabulary
from engine.training.windows import Window

MIN_SUFFIX = 8
SERVINGS = (16, 24, 32, 48)
P_SERVING = 0.4
P_EMPTY = 0.02
P_TRUNCATED = 0.097  # of the line kinds, which are half of all: 5% of all

SHARES = {
    "rest": 0.24,
    "lines": 0.15,
    "full lines": 0.10,
    "bracket": 0.08,
    "span": 0.06,
    "chars": 0.05,
    "several": 0.28,
    "block": 0.04,
}
"""How often each kind is tried when nothing else is said."""

KINDS = (*SHARES, *SYNTAX_KINDS)
_LINE_KINDS = ("rest", "lines", "full lines")
_SHORTENED = (*_LINE_KINDS, "body", "docstring")
"""Kinds of which the first part is taken where the whole does not fit."""


def check_shares(shares: Mapping[str, float]) -> None:
    """Raises ValueError if a kind is not known or a share is below 0."""
    for kind, share in shares.items():
        if kind not in KINDS:
            raise ValueError(f"shares: {kind} is no kind of hole; there are {', '.join(KINDS)}")
        if share < 0:
            raise ValueError(f"shares: {kind} must be 0 or more, not {share}")
    if not any({**SHARES, **shares}.values()):
        raise ValueError("shares: at least one must be above 0")


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


class HoleMaker:
    """Draws canvases of ``canvas`` tokens in windows, all randomness coming from ``rng``."""

    def __init__(
        self, vocabulary: Vocabulary, canvas: int, shares: Mapping[str, float] = SHARES
    ) -> None:
        self._vocabulary = vocabulary
        self._canvas = canvas
        self._room = canvas - MIN_SUFFIX
        self._empty = np.zeros(0, np.int64)
        self._kinds = tuple(shares)
        self._cumulative: npt.NDArray[np.float64] = np.cumsum(np.array(list(shares.values())))
        self._cuts = Cuts(vocabulary, self._room)

    def make(self, window: Window, rng: np.random.Generator, target: int) -> CanvasSample:
        """A canvas that starts near position ``target``, 1 to N."""
        kind = self._kinds[0]
        for attempt in range(18):
            if attempt % 6 == 0:
                share = rng.random() * float(self._cumulative[-1])
                kind = self._kinds[int(np.searchsorted(self._cumulative, share))]
            made = self._attempt(window, rng, target, kind)
            if made is not None and 1 <= made.start <= window.size:
                return made
            target = int(rng.integers(1, window.size + 1))
        return self._fallback(window, target)

    def _attempt(
        self, window: Window, rng: np.random.Generator, target: int, kind: str
    ) -> CanvasSample | None:
        if kind == "block":
            start = self._cuts.edge(window, target, rng.random() < 0.5)
            if start is None or start + self._canvas > window.stop[start - 1]:
                return None
            ids = window.ids[start : start + self._canvas]
            return self._assemble(window, kind, start, [Part(ids, True)], start + self._canvas)
        if kind == "several":
            return self._several(window, rng, target)
        if kind not in SYNTAX_KINDS and rng.random() < P_EMPTY:
            start = self._cuts.empty_place(window, rng, target)
            return None if start is None else self._single(window, rng, "empty", Cut(start, start))
        if kind in _LINE_KINDS and rng.random() < P_TRUNCATED:
            return self._truncated(window, rng, target, kind)
        cut = self._cuts.draw(kind, window, rng, target)
        return None if cut is None else self._single(window, rng, kind, cut)

    def _fallback(self, window: Window, target: int) -> CanvasSample:
        """An empty hole right at ``target``, moved behind a ``<bos>`` if need be."""
        slack = min(SERVINGS[0], self._room)
        return self._assemble(window, "empty", target, [Part(self._empty, True, slack)], target)

    def _single(
        self, window: Window, rng: np.random.Generator, kind: str, cut: Cut
    ) -> CanvasSample | None:
        middle = window.ids[cut.start : cut.end] if cut.middle is None else cut.middle
        if len(middle) > self._room:
            return self._shorten(window, rng, cut) if kind in _SHORTENED else None
        slack = draw_slack(rng, len(middle), self._room, SERVINGS, 32)
        parts = [Part(middle, True, slack)]
        return self._assemble(window, kind, cut.start, parts, cut.end, cut.tail)

    def _truncated(
        self, window: Window, rng: np.random.Generator, target: int, kind: str
    ) -> CanvasSample | None:
        """A line kind that goes on for several lines and does not fit its hole."""
        cut = self._cuts.draw(kind, window, rng, target)
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
        return self._shorten(window, rng, Cut(cut.start, int(window.line_end[last])))

    def _shorten(self, window: Window, rng: np.random.Generator, cut: Cut) -> CanvasSample | None:
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
        start = self._cuts.edge(window, target, False)
        if start is None:
            return None
        stop = int(window.stop[start - 1])
        places = [start]
        for _ in range(2 * int(rng.integers(2, 7)) - 1):
            place = self._cuts.edge(window, places[-1] + int(rng.integers(1, 11)), False)
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
