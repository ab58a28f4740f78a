"""Line charts as SVG, readable on light and on dark ground. No dependency, no script.

    chart([Line("loss", steps, nats)], Axis("step"), Axis("nats"), title="Training")

A point that is not a number, or not positive on a logarithmic axis, is left out; so is what belongs
to it, and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 64, 48
DOTTED_UP_TO = 40
"""Points of a line that each get a dot; more of them are a line alone."""

_COLOURS = (
    ("#1d5fd1", "#7db3ff"),
    ("#c25e00", "#ffb15c"),
    ("#0b7a53", "#5fd6a4"),
    ("#a3257f", "#f08fd0"),
    ("#5b5fc7", "#b3b6ff"),
    ("#7a6a00", "#dccb57"),
)
"""On light ground, on dark ground."""


@dataclass(frozen=True, slots=True)
class Line:
    """Points joined by a line. error: half the length of each point's error bar.

    faint: in the background, in the colour of the line of the same name that is not.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    error: Sequence[float] | None = None
    faint: bool = False


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis: what it says, whether it is logarithmic, and ends other than those of the data."""

    label: str
    log: bool = False
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class _Scale:
    """From values to pixels."""

    low: float
    high: float
    log: bool
    start: float
    end: float

    def at(self, value: float) -> float:
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        return _log_ticks(self.low, self.high) if self.log else _even_ticks(self.low, self.high)


def chart(lines: Sequence[Line], x: Axis, y: Axis, title: str = "") -> str:
    """The SVG document. Raises ValueError if there is no point to show."""
    shown = [(line, list(_points(line, x, y))) for line in lines]
    points = [point for _, own in shown for point in own]
    if not points:
        raise ValueError("there is nothing to plot")
    across = _scale(x, [p[0] for p in points], LEFT, WIDTH - RIGHT)
    heights = [v for p in points for v in (p[1], p[1] - p[2], p[1] + p[2]) if v > 0 or not y.log]
    up = _scale(y, heights, HEIGHT - BOTTOM, TOP)
    names = list(dict.fromkeys(line.name for line in lines))
    parts = [*_frame(across, up, x.label, y.label, title), *_legend(names)]
    for line, own in sorted(shown, key=lambda pair: not pair[0].faint):
        parts += _drawn(line, own, names.index(line.name) % len(_COLOURS), across, up)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" role="img">\n'
        f"<title>{escape(title or y.label)}</title>\n<style>\n{_style()}</style>\n"
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def smoothed(values: Iterable[float], over: float) -> list[float]:
    """The running average of values, with a time constant of `over` of them, fair at the start."""
    out: list[float] = []
    mean = share = 0.0
    for value in values:
        mean += (value - mean) / over
        share += (1.0 - share) / over
        out.append(mean / share)
    return out


def _points(line: Line, x: Axis, y: Axis) -> Iterator[tuple[float, float, float]]:
    """The points (x, y, error) that can be shown."""
    errors = line.error or [0.0] * len(line.y)
    for point in zip(line.x, line.y, errors, strict=True):
        if all(map(math.isfinite, point)):
            across, up, error = point
            if (across > 0 or not x.log) and (up > 0 or not y.log):
                yield across, up, error


def _scale(axis: Axis, values: Sequence[float], start: float, end: float) -> _Scale:
    low = min(values) if axis.low is None else axis.low
    high = max(values) if axis.high is None else axis.high
    if not high > low:
        low, high = (low / 2, low * 2) if axis.log else (low - 0.5, low + 0.5)
    if not axis.log:
        ticks = _even_ticks(low, high)
        step = ticks[1] - ticks[0]
        low = math.floor(low / step + 1e-9) * step if axis.low is None else low
        high = math.ceil(high / step - 1e-9) * step if axis.high is None else high
    return _Scale(low, high, axis.log, start, end)


def _even_ticks(low: float, high: float) -> list[float]:
    """Round numbers in between, about six of them, a step of 1, 2 or 5 apart."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = max(first + 1, math.floor(high / step + 1e-9))
    return [n * step for n in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten, and their multiples by 2 and 5 where there are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    few = math.log10(high / low) < 3
    found = [10.0**p * m for p in powers for m in ((1, 2, 5) if few else (1,))]
    return [tick for tick in found if low * 0.999 <= tick <= high * 1.001]


def _frame(across: _Scale, up: _Scale, x: str, y: str, title: str) -> Iterator[str]:
    yield f'<text class="title" x="{LEFT}" y="22">{escape(title)}</text>'
    for tick in across.ticks():
        at = _px(across.at(tick))
        yield f'<line class="grid" x1="{at}" y1="{TOP}" x2="{at}" y2="{HEIGHT - BOTTOM}"/>'
        yield (
            f'<text x="{at}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{_number(tick)}</text>'
        )
    for tick in up.ticks():
        at = up.at(tick)
        yield (
            f'<line class="grid" x1="{LEFT}" y1="{_px(at)}" x2="{WIDTH - RIGHT}" y2="{_px(at)}"/>'
        )
        yield f'<text x="{LEFT - 8}" y="{_px(at + 4)}" text-anchor="end">{_number(tick)}</text>'
    middle = (LEFT + WIDTH - RIGHT) / 2
    yield f'<text x="{middle}" y="{HEIGHT - 10}" text-anchor="middle">{escape(x)}</text>'
    middle = (TOP + HEIGHT - BOTTOM) / 2
    yield (
        f'<text x="16" y="{middle}" text-anchor="middle" '
        f'transform="rotate(-90 16 {middle})">{escape(y)}</text>'
    )


def _legend(names: Sequence[str]) -> Iterator[str]:
    at = LEFT
    for rank, name in enumerate(names):
        colour = f"c{rank % len(_COLOURS)}"
        yield f'<line class="line {colour}" x1="{at}" y1="42" x2="{at + 18}" y2="42"/>'
        yield f'<text x="{at + 24}" y="46">{escape(name)}</text>'
        at += 24 + 7 * len(name) + 22


def _drawn(
    line: Line,
    points: Sequence[tuple[float, float, float]],
    colour: int,
    across: _Scale,
    up: _Scale,
) -> Iterator[str]:
    classes = f"c{colour}{' faint' if line.faint else ''}"
    places = [(_px(across.at(x)), _px(up.at(y))) for x, y, _ in points]
    path = " ".join(f"{x},{y}" for x, y in places)
    yield f'<polyline class="line {classes}" points="{path}"/>'
    if len(points) <= DOTTED_UP_TO and not line.faint:
        yield from (f'<circle class="{classes}" cx="{x}" cy="{y}" r="3"/>' for x, y in places)
    for (at, _), (_, y, error) in zip(places, points, strict=True):
        if error:
            low = max(y - error, up.low) if up.log else y - error
            ends = f'y1="{_px(up.at(low))}" x2="{at}" y2="{_px(up.at(y + error))}"'
            yield f'<line class="line {classes}" x1="{at}" {ends}/>'


def _style() -> str:
    def colours(dark: int) -> str:
        pairs = enumerate(_COLOURS)
        return "".join(f".c{i} {{ stroke: {c[dark]}; fill: {c[dark]} }}\n" for i, c in pairs)

    return (
        "text { font: 12px system-ui, sans-serif; fill: #3d444d }\n"
        ".title { font-weight: 600; font-size: 14px }\n"
        ".grid { stroke: #8b949e; stroke-opacity: .3 }\n"
        + colours(0)
        + "@media (prefers-color-scheme: dark) {\ntext { fill: #c9d1d9 }\n"
        + colours(1)
        + "}\n.line { fill: none; stroke-width: 2; stroke-linejoin: round }\n"
        ".faint { stroke-width: 1; stroke-opacity: .35 }\n"
    )


def _number(value: float) -> str:
    """A tick's number, short."""
    if value and not 1e-4 <= abs(value) < 1e5:
        mantissa, _, exponent = f"{value:.0e}".partition("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:.4g}".rstrip() if abs(value) < 1e4 else f"{value:.0f}"


def _px(value: float) -> str:
    return f"{value:.1f}"
