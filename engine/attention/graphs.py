"""Passes of canvases by CUDA graphs: thousands of small kernels are started as one.

A graph is recorded for every shape that is met, and there are few of them: rows, prefix and number
of canvases are rounded up. All that is no canvas runs as ever, beside it.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.attention.span import Span, forward
from engine.attention.static_pass import Seats, StaticPass, is_canvas
from engine.backbones.base import Backbone

_log = logging.getLogger(__name__)

ROWS = (16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
PREFIXES = (0, 512, 1024, 2048, 4096, 6144, 8192, 12_288, 16_384, 32_768)
CANVASES = (1, 2, 4, 8)
"""What shapes are rounded up to. What is larger runs without a graph."""

USUAL = 256
"""Rows that there is room for behind a prefix: canvases of all sizes up to it share one place."""

MOST = 48
"""Graphs that are kept. Those that were not used for the longest time go first."""

WARM = 2
"""Passes before one is recorded: libraries set themselves up in the first."""

Shape = tuple[int, int, int]
"""Canvases, prefix rows, rows of each canvas."""


@dataclass(frozen=True, slots=True)
class _Recorded:
    work: StaticPass
    graph: torch.cuda.CUDAGraph

    def replay(self) -> None:
        with torch.cuda.device(self.work.hidden.device):
            self.graph.replay()


class Graphs:
    """`engine.attention.span.forward`, with graphs where they pay."""

    def __init__(self, model: Backbone) -> None:
        self._model = model
        self._seats: dict[Shape, Seats] = {}
        self._recorded: dict[tuple[Shape, bool], _Recorded] = {}
        self._pool: Any = None
        self.usable = True
        self.recorded = 0  # how many there were, those that went too

    def __call__(self, spans: Sequence[Span]) -> list[Tensor]:
        """The hidden rows [n, d] of each span."""
        rows: dict[int, Tensor] = {}
        known = [i for i, span in enumerate(spans) if self.usable and is_canvas(span)]
        for start in range(0, len(known), CANVASES[-1]):
            some = known[start : start + CANVASES[-1]]
            canvases = [spans[i] for i in some]
            shape = shape_of(canvases)
            if shape is not None and (given := self._replay(shape, canvases)) is not None:
                rows |= dict(zip(some, given, strict=True))
        others = [i for i in range(len(spans)) if i not in rows]
        rows |= dict(zip(others, forward(self._model, [spans[i] for i in others]), strict=True))
        return [rows[i] for i in range(len(spans))]

    def shed(self) -> None:
        """Gives up the memory of all graphs; they are recorded anew when they are needed."""
        self._recorded.clear()
        self._seats.clear()

    def _replay(self, shape: Shape, spans: list[Span]) -> list[Tensor] | None:
        """The rows of canvases; None if no graph can be recorded here."""
        canvases, prefix, rows = shape
        conditioned = any(span.soft is not None for span in spans)
        try:
            room = (canvases, prefix, max(rows, USUAL))
            if room not in self._seats:
                self._seats[room] = Seats(self._model, *room)
            seats = self._seats[room].take(spans)
            one = self._recorded.pop((shape, conditioned), None)
            if one is None:
                self.recorded += 1
                one = self._record(StaticPass(self._model, self._seats[room], rows, conditioned))
        except RuntimeError as error:  # torch.OutOfMemoryError is one, too
            self._give_up(error)
            return None
        self._recorded[shape, conditioned] = one  # the last used stands last
        while len(self._recorded) > MOST:
            del self._recorded[next(iter(self._recorded))]
        one.work.load(spans, seats)
        one.replay()
        return [one.work.rows(span, seat) for span, seat in zip(spans, seats, strict=True)]

    def _record(self, work: StaticPass) -> _Recorded:
        graph = torch.cuda.CUDAGraph()
        # The card that others mean by "the current one" may be another.
        with torch.cuda.device(self._model.device):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(WARM):
                    work.run()
            torch.cuda.current_stream().wait_stream(side)
            # One pool for all: only one of them runs at a time, and what they give is outside.
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                work.run()
        return _Recorded(work, graph)

    def _give_up(self, error: RuntimeError) -> None:
        """Without memory for them all graphs go, and may come back; what can't be recorded once
        never can."""
        self.shed()
        if not isinstance(error, torch.OutOfMemoryError):
            self.usable = False
            first = str(error).strip().partition("\n")[0]
            _log.warning("passes run without CUDA graphs, which is slower: %s", first)


def shape_of(spans: Sequence[Span]) -> Shape | None:
    """The shape of the graph that has room for these canvases; None if they are too large."""
    rows, seen = max(map(len, spans)), max(span.seen for span in spans)
    wanted = zip((CANVASES, PREFIXES, ROWS), (len(spans), seen, rows), strict=True)
    places = [(sizes, bisect_left(sizes, size)) for sizes, size in wanted]
    if any(place == len(sizes) for sizes, place in places):
        return None
    canvases, prefix, rows = (sizes[place] for sizes, place in places)
    return canvases, prefix, rows
