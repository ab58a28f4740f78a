"""Charts as SVG, without a plotting library: lines with error bars, in light and in dark mode.

Colours are CSS that follows what the reader prefers; the hues differ in lightness as well, so that
they can be told apart by everybody, and each line has its name at its end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, TOP, BOTTOM = 62, 132, 44, 52

_HUES = (
    *(("#0b62c4", "#6cb2ff"), ("#c2410c", "#ff9d5c"), ("#15803d", "#5fd38d")),
    *(("#7e22ce", "#cf9bff"), ("#a16207", "#e8c34f"), ("#be185d", "#ff86b8")),
)
_LIGHT = "--ink:#1f2328;--faint:#d0d7de;--ground:#ffffff;"
_DARK = "--ink:#e6edf3;--faint:#3d444d;--ground:#0d1117;"


@dataclass(frozen=True, slots=True)
class Point:
    """A place, and how far its value may be off: from low to high."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Line:
    """Points in order. dashed: a reference, drawn thin, without points.

    dots: whether each point has one, with its error bar. faint: a background of raw values behind
    the line of the same name. Lines of one name have one colour, and the name stands once.
    """

    name: str
    points: Sequence[Point]
    dashed: bool = False
    dots: bool = True
    faint: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """What is drawn. log_x: equal factors have equal distances. ticks: x values that are named;
    without them the chart chooses. y_from_0: the axis begins there."""

    title: str
    x_name: str
    y_name: str
    lines: Sequence[Line]
    log_x: bool = False
    ticks: Sequence[float] = field(default_factory=tuple[float, ...])
    y_from_0: bool = True

    def svg(self) -> str:
        """The chart as a document of its own. Raises ValueError without a point to draw."""
        return _Drawing(self).svg()


class _Scale:
    """From values to places on one axis."""

    def __init__(self, low: float, high: float, begin: float, end: float, log: bool) -> None:
        self.log = log
        self.low, self.high = self._bent(low), self._bent(high)
        self.begin, self.end = begin, end

    def __call__(self, value: float) -> float:
        share = (self._bent(value) - self.low) / ((self.high - self.low) or 1.0)
        return self.begin + share * (self.end - self.begin)

    def _bent(self, value: float) -> float:
        return math.log(value) if self.log else value


class _Drawing:
    def __init__(self, chart: Chart) -> None:
        self.chart = chart
        points = [p for line in chart.lines for p in line.points if math.isfinite(p.y)]
        if not points:
            raise ValueError(f"there is nothing to draw in {chart.title!r}")
        xs = [p.x for p in points]
        lows = [p.low if math.isfinite(p.low) else p.y for p in points]
        highs = [p.high if math.isfinite(p.high) else p.y for p in points]
        self.y_ticks = _ticks(0.0 if chart.y_from_0 else min(lows), max(highs))
        self.x_ticks = list(chart.ticks) or (
            _doublings(min(xs), max(xs)) if chart.log_x else _ticks(min(xs), max(xs))
        )
        left, right = min(*xs, *self.x_ticks), max(*xs, *self.x_ticks)
        self.x = _Scale(left, right, LEFT, WIDTH - RIGHT, chart.log_x)
        self.y = _Scale(self.y_ticks[0], self.y_ticks[-1], HEIGHT - BOTTOM, TOP, log=False)

    def svg(self) -> str:
        hues = range(len(_HUES))
        light = _LIGHT + "".join(f"--c{i}:{_HUES[i][0]};" for i in hues)
        dark = _DARK + "".join(f"--c{i}:{_HUES[i][1]};" for i in hues)
        style = (
            f":root{{{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}"
            "text{font:13px system-ui,sans-serif;fill:var(--ink)}.title{font-weight:600}"
            ".grid{stroke:var(--faint)}path{fill:none;stroke-width:2}"
        )
        parts = [*self._axes(), *self._lines(), *self._names()]
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}">'
            f"<title>{escape(self.chart.title)}</title><style>{style}</style>\n"
            f'<rect width="{WIDTH}" height="{HEIGHT}" rx="8" fill="var(--ground)"/>\n'
            + "\n".join(parts)
            + "\n</svg>\n"
        )

    def _axes(self) -> Iterable[str]:
        chart, right, floor = self.chart, WIDTH - RIGHT, HEIGHT - BOTTOM
        yield f'<text class="title" x="{LEFT}" y="24">{escape(chart.title)}</text>'
        middle = (LEFT + right) / 2
        yield _text(middle, HEIGHT - 12, chart.x_name, "middle")
        yield (
            f'<text transform="translate(16 {(TOP + floor) / 2:g}) rotate(-90)" '
            f'text-anchor="middle">{escape(chart.y_name)}</text>'
        )
        for tick in self.y_ticks:
            y = self.y(tick)
            yield f'<path class="grid" d="M{LEFT} {y:.1f}H{right}" style="stroke-width:1"/>'
            yield _text(LEFT - 8, y + 4, f"{tick:g}", "end")
        for tick in self.x_ticks:
            x = self.x(tick)
            yield f'<path class="grid" d="M{x:.1f} {floor}v5" style="stroke-width:1"/>'
            yield _text(x, floor + 20, f"{tick:g}", "middle")

    def _lines(self) -> Iterable[str]:
        for line in self.chart.lines:
            points = [p for p in line.points if math.isfinite(p.y)]
            colour = self._colour(line)
            way = "L".join(f"{self.x(p.x):.1f} {self.y(p.y):.1f}" for p in points)
            look = f"stroke:{colour}" + (";stroke-dasharray:5 4" if line.dashed else "")
            look += ";stroke-width:1;stroke-opacity:.3" if line.faint else ""
            if points:
                yield f'<path d="M{way}" style="{look}"/>'
            for p in points if line.dots and not (line.dashed or line.faint) else ():
                x, y = self.x(p.x), self.y(p.y)
                if math.isfinite(p.low) and math.isfinite(p.high):
                    low, high = self.y(max(p.low, self.y_ticks[0])), self.y(p.high)
                    bar = f"M{x:.1f} {low:.1f}V{high:.1f}m-4 0h8M{x - 4:.1f} {low:.1f}h8"
                    yield f'<path d="{bar}" style="stroke:{colour};stroke-width:1.2"/>'
                yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>'

    def _names(self) -> Iterable[str]:
        """The names at the lines' ends, moved apart where they would lie on each other."""
        named = {line.name: line for line in reversed(self.chart.lines) if not line.faint}
        ends = [
            (self.y(line.points[-1].y), number, line)
            for number, line in enumerate(reversed(named.values()))
            if line.points and math.isfinite(line.points[-1].y)
        ]
        place = -math.inf
        for y, _, line in sorted(ends, key=lambda end: end[:2]):
            place = max(y + 4, place + 16)
            x = self.x(line.points[-1].x) + 10
            name = escape(line.name)
            colour = self._colour(line)
            yield f'<text x="{x:.1f}" y="{place:.1f}" style="fill:{colour}">{name}</text>'

    def _colour(self, line: Line) -> str:
        names = list(dict.fromkeys(each.name for each in self.chart.lines))
        return f"var(--c{names.index(line.name) % len(_HUES)})"


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _ticks(low: float, high: float) -> list[float]:
    """Round values, four to eight of them, from at most `low` to at least `high`."""
    span = (high - low) or abs(high) or 1.0
    size = 10.0 ** math.floor(math.log10(span))
    step = next(size * f for f in (0.1, 0.2, 0.25, 0.5, 1.0, 2.0) if span / (size * f) <= 6)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]


def _doublings(low: float, high: float) -> list[float]:
    """Powers of two from at most `low` to at least `high`, both above 0."""
    first, last = math.floor(math.log2(low)), math.ceil(math.log2(high))
    step = max(1, -(-(last - first) // 8))
    return [2.0**i for i in range(first, last + step, step)]
