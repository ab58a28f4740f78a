"""Charts are well-formed SVG, to scale, and keep to what can be shown."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from engine.plots import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axis, Line, chart, smoothed

SVG = "{http://www.w3.org/2000/svg}"


def drawn(svg: str) -> list[list[tuple[float, float]]]:
    """The places of each line's points."""
    lines = ElementTree.fromstring(svg).iter(f"{SVG}polyline")
    return [[tuple(map(float, p.split(","))) for p in e.attrib["points"].split()] for e in lines]


def texts(svg: str) -> list[str]:
    return [e.text or "" for e in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_a_line_is_to_scale_within_its_axes() -> None:
    svg = chart([Line("a", [0, 5, 10], [0, 5, 10])], Axis("step"), Axis("nats"), "T & <t>")
    (places,) = drawn(svg)
    low, high = (LEFT, HEIGHT - BOTTOM), (WIDTH - RIGHT, TOP)
    middle = ((low[0] + high[0]) / 2, (low[1] + high[1]) / 2)
    assert places == [pytest.approx(low), pytest.approx(middle), pytest.approx(high)]
    assert {"T & <t>", "step", "nats", "a", "0", "10"} <= set(texts(svg))


def test_a_logarithmic_axis_has_equal_decades() -> None:
    svg = chart([Line("a", [1, 10, 100], [1, 2, 3])], Axis("n", log=True), Axis("y"))
    (places,) = drawn(svg)
    assert places[1][0] - places[0][0] == pytest.approx(places[2][0] - places[1][0], abs=0.2)
    assert {"1", "10", "100"} <= set(texts(svg))


def test_what_can_not_be_shown_is_left_out() -> None:
    nan, inf = float("nan"), float("inf")
    svg = chart([Line("a", [1, 2, 3, 4], [1, nan, inf, 2])], Axis("x"), Axis("y"))
    assert len(drawn(svg)[0]) == 2
    svg = chart([Line("a", [0, 1, 2], [1, -1, 2])], Axis("x", log=True), Axis("y", log=True))
    assert len(drawn(svg)[0]) == 1
    with pytest.raises(ValueError, match="nothing to plot"):
        chart([Line("a", [], [])], Axis("x"), Axis("y"))


def test_error_bars_reach_as_far_as_they_say() -> None:
    lines = [Line("a", [0, 1], [5, 5], error=[5, 0])]
    root = ElementTree.fromstring(chart(lines, Axis("x"), Axis("y", low=0, high=10)))
    bars = [e for e in root.iter(f"{SVG}line") if "c0" in e.attrib["class"] and e.get("y1") != "42"]
    assert [(float(e.attrib["y1"]), float(e.attrib["y2"])) for e in bars] == [
        (HEIGHT - BOTTOM, TOP)
    ]


@pytest.mark.parametrize("values", [[3.0], [2.0, 2.0], [1e-6, 3e-6], [-3.0, 1e6]])
def test_every_range_has_ticks_and_finite_places(values: list[float]) -> None:
    svg = chart([Line("a", list(range(len(values))), values)], Axis("x"), Axis("y"))
    assert "nan" not in svg
    assert "inf" not in svg
    assert len(re.findall('class="grid"', svg)) >= 4


def test_it_has_colours_for_dark_ground_and_few_points_have_dots() -> None:
    few = chart([Line("a", [0, 1], [0, 1])], Axis("x"), Axis("y"))
    many = chart([Line("a", list(range(99)), list(range(99)))], Axis("x"), Axis("y"))
    assert "prefers-color-scheme: dark" in few
    assert "<circle" in few
    assert "<circle" not in many


def test_smoothing_is_fair_at_the_start() -> None:
    assert smoothed([2.0, 2.0, 2.0], 50) == pytest.approx([2.0, 2.0, 2.0])
    assert smoothed([0.0] * 5 + [1.0] * 200, 20)[-1] == pytest.approx(1.0, abs=0.01)
