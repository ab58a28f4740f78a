"""The frames of an order's run, as a client sees them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from diffgemma_lsp.actions.blank import Blank
from diffgemma_lsp.actions.plan import Plan
from diffgemma_lsp.lsp import positions
from diffgemma_lsp.polish.polish import harmless
from diffgemma_lsp.text.text import Text
from engine.types import Frame, Piece

FRAME_S = 0.05
"""Frames follow each other at this distance or more; the last one always comes."""


class Throttled:
    """Lets frames through at a distance of FRAME_S; `flush` brings the last one after all."""

    def __init__(self, show: Callable[[Frame], None]) -> None:
        self._show = show
        self._last = 0.0
        self._waiting: Frame | None = None

    def __call__(self, frame: Frame) -> None:
        self._waiting = frame
        if time.monotonic() - self._last >= FRAME_S:
            self.flush()

    def flush(self) -> None:
        """Shows the frame that waits, if there is one."""
        if self._waiting is not None:
            self._show(self._waiting)
            self._last, self._waiting = time.monotonic(), None


def shown_frame(
    frame: Frame, plan: Plan, text: Text, encoding: positions.Encoding
) -> dict[str, Any]:
    """What `diffgemma/frame` says of a frame (editors/README.md)."""
    return {
        "step": frame.step,
        "planned": frame.planned,
        "entropy": frame.entropy,
        "holes": [
            {
                "range": positions.to_range(text, blank.start, blank.end, encoding),
                "before": blank.before,
                "after": blank.after,
                "pieces": _pieces(pieces, blank),
            }
            for blank, pieces in zip(plan.blanks, frame.holes, strict=True)
        ],
    }


def _pieces(pieces: Sequence[Piece], blank: Blank) -> list[tuple[str, float]]:
    """Each with its certainty, as far as it could be inserted: white space at the end is not."""
    known = blank.draft or ""
    kept = [replace(piece, text=harmless(piece.text, known)) for piece in pieces]
    while kept and not kept[-1].text.strip():
        kept.pop()
    kept[-1:] = [replace(piece, text=piece.text.rstrip()) for piece in kept[-1:]]
    return [(piece.text, round(piece.certainty, 3)) for piece in kept]
