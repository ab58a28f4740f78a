"""Lines of a chart that belong together: one colour, one name; and backgrounds stay in the back."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest

from engine.charts import Chart, Line, Point
from engine.training.journal import smoothed

SVG = "{http://www.w3.org/2000/svg}"


def points(*values: float) -> list[Point]:
    return [Point(x, y, math.nan, math.nan) for x, y in enumerate(values)]


def test_lines_of_one_name_have_one_colour_and_one_label() -> None:
    lines = [
        Line("loss", points(3, 1, 2), faint=True),
        Line("loss", points(3, 2, 2), dots=False),
        Line("loss", points(2, 2)),
        Line("other", points(1, 1, 1)),
    ]
    root = ElementTree.fromstring(Chart("t", "x", "y", lines).svg())
    paths = [e.attrib["style"] for e in root.iter(f"{SVG}path") if "class" not in e.attrib]
    drawn = [style for style in paths if "stroke:var" in style]
    assert [style.partition(";")[0] for style in drawn] == [
        *["stroke:var(--c0)"] * 3,
        "stroke:var(--c1)",
    ]
    assert ["stroke-opacity" in style for style in drawn] == [True, False, False, False]
    labels = [e.text for e in root.iter(f"{SVG}text")]
    assert labels.count("loss") == 1
    assert labels.count("other") == 1
    assert len(list(root.iter(f"{SVG}circle"))) == 2 + 3


def test_smoothing_is_fair_at_the_start() -> None:
    assert smoothed([2.0, 2.0, 2.0]) == pytest.approx([2.0, 2.0, 2.0])
    assert smoothed([0.0] * 5 + [1.0] * 200)[-1] == pytest.approx(1.0, abs=0.01)
