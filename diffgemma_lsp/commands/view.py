"""Draws a fill as it settles: the lines around the holes, and the holes' tokens by certainty.

Knows nothing of engines: it is given a template and frames, and gives back what rich can draw.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.console import Console, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from diffgemma_lsp.polish.confidence import measured
from diffgemma_lsp.polish.polish import UNSEEN
from engine.types import Fixed, Frame, Hole, Infill, Piece, Template

CONTEXT_LINES = 6
"""Lines of fixed text that are shown on either side of a hole."""

_FIXED = "grey62"
_GUTTER = "grey39"
_SETTLED = "bold"
_EMPTY = Piece("▏", 0.0)
# From a pure guess over "perhaps" to settled.
_RAMP = ((0.0, (222, 73, 104)), (0.5, (240, 160, 60)), (1.0, (110, 200, 120)))


class FillView:
    """A template as a panel of numbered lines, drawn anew for each frame. prose: words are written,
    of which it was not measured how sure the model is."""

    def __init__(self, template: Template, title: str, prose: bool = False) -> None:
        self._title, self._prose = title, prose
        self._latest: Frame | None = None
        self._parts = [
            part.draft if isinstance(part, Hole) else _Excerpt(part, index, len(template))
            for index, part in enumerate(template)
        ]

    def draw(self, frame: Frame | None) -> RenderableType:
        """The panel at this frame; before the first one, the drafts."""
        self._latest = frame
        drafts = [part for part in self._parts if not isinstance(part, _Excerpt)]
        holes = frame.holes if frame else [[Piece(draft, 0.0)] if draft else [] for draft in drafts]
        return self._panel(holes, _counter(frame) if frame else "starting")

    def draw_result(self, infill: Infill) -> RenderableType:
        """The panel of the result, with how it came about."""
        # What the last pass was unsure of stays tinted.
        if self._latest and self._latest.texts == infill.holes:
            holes = self._latest.holes
        else:
            sure = 1.0 if infill.confidence is None else infill.confidence
            holes = tuple((Piece(text, sure),) for text in infill.holes)
        ms = infill.timings.get("total", 0.0)
        confidence = None if self._prose else measured(infill.confidence, infill.text)
        sure = () if confidence is None else (f"{confidence:.0%} sure",)
        passes = f"{infill.steps} pass" + ("es" if infill.steps != 1 else "")
        told = (infill.stop_reason, passes, f"{ms:.0f} ms", *sure)
        return self._panel(holes, " · ".join(told))

    def _panel(self, holes: Sequence[Sequence[Piece]], subtitle: str) -> Panel:
        lines = _Lines()
        remaining = iter(holes)
        for part in self._parts:
            if isinstance(part, _Excerpt):
                lines.write(part.head, _FIXED)
                if part.tail:
                    lines.skip(part.skipped)
                    lines.write(part.tail, _FIXED)
            else:
                for piece in next(remaining, ()) or (_EMPTY,):
                    lines.write(piece.text, tint(piece.certainty))
        return Panel(
            lines.text(),
            title=Text(self._title),
            subtitle=Text(subtitle),
            title_align="left",
            subtitle_align="right",
            border_style=_GUTTER,
            padding=(0, 1),
        )


class Screen:
    """Where a fill is drawn: live on a terminal, nowhere otherwise."""

    def __init__(self, console: Console, view: FillView) -> None:
        self._view = view
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._started = False

    def __enter__(self) -> Screen:
        return self

    def frame(self, frame: Frame) -> None:
        """Draws one frame."""
        self._update(self._view.draw(frame))

    def result(self, infill: Infill) -> None:
        """Draws the result, which stays on the screen."""
        self._update(self._view.draw_result(infill))

    def __exit__(self, *_: object) -> None:
        if self._live and self._started:
            self._live.stop()

    def _update(self, picture: RenderableType) -> None:
        if not self._live:
            return
        if not self._started:
            # Not before there is something to draw: until then the line belongs to the progress
            # of loading.
            self._live.start()
            self._started = True
        self._live.update(picture, refresh=True)


class _Excerpt:
    """What is shown of a fixed text: its end, its beginning, or both with a gap between."""

    def __init__(self, fixed: Fixed, index: int, count: int) -> None:
        lines = _displayable(fixed.text).split("\n")
        before = 0 if index == 0 else CONTEXT_LINES
        after = 0 if index == count - 1 else CONTEXT_LINES
        # The line that a hole begins or ends in comes on top of the context.
        keep_head, keep_tail = (before + 1 if before else 0), (after + 1 if after else 0)
        self.skipped = max(0, len(lines) - keep_head - keep_tail)
        if self.skipped <= 1:
            self.skipped = 0
            self.head, self.tail = "\n".join(lines), ""
        else:
            self.head = "\n".join(lines[:keep_head])
            self.tail = "\n".join(lines[len(lines) - keep_tail :])


class _Lines:
    """Styled text, collected into lines that know their number in the file."""

    def __init__(self) -> None:
        self._lines: list[tuple[int | None, Text]] = [(1, Text())]

    def write(self, text: str, style: str) -> None:
        first, *rest = _displayable(text).split("\n")
        self._lines[-1][1].append(first, style)
        for line in rest:
            self._lines.append(((self._lines[-1][0] or 0) + 1, Text(line, style)))

    def skip(self, count: int) -> None:
        """Leaves out `count` lines; the next text begins on the line after them."""
        number, line = self._lines[-1]
        at_top = number == 1 and not line.plain and len(self._lines) == 1
        if at_top:
            self._lines = []
            number = 0
        else:
            self._lines.append((None, Text("⋮", _GUTTER)))
        self._lines.append(((number or 0) + count + 1, Text()))

    def text(self) -> Text:
        width = len(str(max(number or 0 for number, _ in self._lines)))
        joined = Text("\n", no_wrap=True, overflow="ellipsis").join(
            Text.assemble((f"{number or '':>{width}}  ", _GUTTER), line)
            for number, line in self._lines
        )
        joined.no_wrap = True
        joined.overflow = "ellipsis"
        return joined


def _counter(frame: Frame) -> str:
    pieces = [piece for hole in frame.holes for piece in hole]
    settled = sum(piece.certainty > 0.9 for piece in pieces)
    return f"{frame.progress} · {settled} of {len(pieces)} tokens settled"


def tint(certainty: float) -> str:
    """The style of a token of which the model is so sure, from 0 to 1."""
    certainty = min(1.0, max(0.0, certainty))
    (low, start), (high, end) = _RAMP[:2] if certainty < 0.5 else _RAMP[1:]
    share = (certainty - low) / (high - low)
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(start, end, strict=True))
    return f"{_SETTLED if certainty > 0.9 else ''} rgb({red},{green},{blue})".strip()


def _displayable(text: str) -> str:
    """The text without what would move the cursor, turn its lines around or switch the terminal."""
    text = re.sub(r"\r\n|\r", "\n", text).replace("\t", "    ")
    return re.sub(r"[\ud800-\udfff]", "·", UNSEEN.sub("·", text))
