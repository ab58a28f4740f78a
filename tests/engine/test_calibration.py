"""Calibration: errors of known cases, what a fit finds, the gate, and the evaluation end to end."""

from __future__ import annotations

import json
import random
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.charts import Chart, Line, Point
from engine.errors import BadRequest
from engine.evaluation import calibration, passes
from engine.evaluation.calibration import is_for_fitting, write_profile
from engine.evaluation.fit import (
    bins,
    calibration_error,
    expected_calibration_error,
    fit,
    gate,
)
from engine.evaluation.holes import Cut, Source
from engine.evaluation.metrics import ratio, share_of_gap
from engine.profile import Calibration
from tests.cases import cases

SVG = "{http://www.w3.org/2000/svg}"


def drawn(kept: Calibration, count: int, seed: int = 0) -> tuple[list[float], list[bool]]:
    """Answers that are right as often as `kept` says for their confidence."""
    rng = random.Random(seed)
    stated = [rng.random() for _ in range(count)]
    return stated, [rng.random() < kept(one) for one in stated]


# ---- errors ----


def test_the_error_of_known_cases() -> None:
    assert expected_calibration_error([0.5] * 10, [True, False] * 5) == pytest.approx(0)
    assert expected_calibration_error([0.9] * 10, [False] * 10) == pytest.approx(0.9)
    half = [0.2] * 10 + [0.8] * 10
    hits = [True] * 4 + [False] * 6 + [True] * 6 + [False] * 4
    assert expected_calibration_error(half, hits) == pytest.approx(0.2)
    with pytest.raises(ValueError, match="no answers"):
        expected_calibration_error([], [])


@cases(100)
@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.7, 1.0]) | st.floats(0, 1), st.booleans()),
        min_size=1,
        max_size=60,
    ),
    st.integers(1, 12),
)
def test_bins_hold_every_answer_once_and_never_part_equals(
    pairs: list[tuple[float, bool]], count: int
) -> None:
    stated, right = [one for one, _ in pairs], [hit for _, hit in pairs]
    found = bins(stated, right, count)
    assert sum(one.right.n for one in found) == len(pairs)
    assert sum(round(one.right.value * one.right.n) for one in found) == sum(right)
    assert 1 <= len(found) <= min(count, len(set(stated)))
    assert [one.stated for one in found] == sorted(one.stated for one in found)


def test_a_kept_confidence_has_a_small_error_and_a_broken_one_has_not() -> None:
    stated, right = drawn(Calibration(1.0, 0.0), 4000)
    assert calibration_error(stated, right).value < 0.04
    found = calibration_error([(1 + one) / 2 for one in stated], right)
    assert found.value == pytest.approx(0.25, abs=0.03)
    assert found.low < found.value < found.high


# ---- the fit ----


@pytest.mark.parametrize("kept", [Calibration(0.4, -1.5), Calibration(2.0, -1.0)])
def test_a_fit_finds_the_mapping_and_mends_the_error(kept: Calibration) -> None:
    found = fit(*drawn(kept, 4000, seed=1))
    assert found.scale == pytest.approx(kept.scale, abs=0.2)
    assert found.shift == pytest.approx(kept.shift, abs=0.2)
    stated, right = drawn(kept, 4000, seed=2)
    before = expected_calibration_error(stated, right)
    after = expected_calibration_error([found(one) for one in stated], right)
    assert before > 0.1
    assert after < 0.04


def test_a_fit_stays_finite_where_the_halves_are_apart() -> None:
    found = fit([0.1] * 20 + [0.9] * 20, [False] * 20 + [True] * 20)
    assert found(0.1) < 0.1 < 0.9 < found(0.9)
    assert found.scale < 20


def test_a_fit_never_turns_the_order_round() -> None:
    stated, right = drawn(Calibration(1.0, 0.0), 500)
    found = fit(stated, [not one for one in right])
    assert found.scale > 0
    share = 1 - sum(right) / len(right)
    assert found(0.1) <= found(0.9)
    assert found(0.5) == pytest.approx(share, abs=0.01)


def test_a_fit_needs_right_and_wrong_answers() -> None:
    for right in ([True, True], [False, False]):
        with pytest.raises(ValueError, match="of 2 answers are right"):
            fit([0.3, 0.4], right)


def test_a_gate_trades_recall_for_precision() -> None:
    rows = gate([0.1, 0.4, 0.6, 0.9], [False, False, True, True], [0.0, 0.5, 0.95])
    shown = [row["shown"]["value"] for row in rows]
    assert shown == [1, 0.5, 0]
    assert [row["precision"]["value"] for row in rows[:2]] == [0.5, 1]
    assert [row["recall"]["value"] for row in rows] == [1, 1, 0]
    assert rows[2]["precision"]["n"] == 0


# ---- other figures ----


def test_a_ratio_is_of_the_sums() -> None:
    found = ratio([2.0, 4.0], [1.0, 1.0])
    assert found.value == 3
    assert found.low < 3 < found.high
    assert ratio([3.0] * 9, [2.0] * 9).error == pytest.approx(0)
    assert ratio([1.0], [0.0]).n == 0


def test_the_share_of_a_gap() -> None:
    low, high = [0.0, 0.2] * 20, [1.0, 0.6] * 20
    found = share_of_gap([0.8, 0.52] * 20, low, high)
    assert found.value == pytest.approx(0.8)
    assert (found.low, found.high) == pytest.approx((0.8, 0.8))
    assert share_of_gap(low, low, high).value == 0
    assert share_of_gap(high, low, low).n == 0
    with pytest.raises(ValueError, match="same holes"):
        share_of_gap([1.0], low, high)


# ---- pictures ----


def drawing(chart: Chart) -> ET.Element:
    return ET.fromstring(chart.svg())


def test_a_chart_has_its_lines_points_bars_and_names() -> None:
    points = [Point(n, n / 10, n / 10 - 0.05, n / 10 + 0.05) for n in (1, 2, 4, 8)]
    chart = Chart("A <title>", "x & y", "y", [Line("one", points), Line("two", points, True)], True)
    root = drawing(chart)
    assert len(root.findall(f"{SVG}circle")) == 4
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert {"A <title>", "x & y", "y", "one", "two", "1", "2", "4", "8"} <= set(texts)
    xs = [float(circle.get("cx", "")) for circle in root.findall(f"{SVG}circle")]
    steps = [b - a for a, b in pairwise(xs)]
    assert steps == pytest.approx([steps[0]] * 3, abs=0.2)  # doublings have equal distances
    ys = [float(circle.get("cy", "")) for circle in root.findall(f"{SVG}circle")]
    assert ys == sorted(ys, reverse=True)
    assert "prefers-color-scheme:dark" in chart.svg()


@cases(60)
@given(
    st.lists(
        st.tuples(st.floats(0.001, 1e6), st.floats(-5, 5), st.floats(0, 1)), min_size=1, max_size=8
    ),
    st.booleans(),
    st.booleans(),
)
def test_all_of_a_chart_is_inside(
    values: list[tuple[float, float, float]], log: bool, from_0: bool
) -> None:
    points = [Point(x, abs(y), abs(y) - off, abs(y) + off) for x, y, off in values]
    root = drawing(Chart("t", "x", "y", [Line("l", points)], log, (), from_0))
    for circle in root.findall(f"{SVG}circle"):
        assert 0 <= float(circle.get("cx", "")) <= 640
        assert 0 <= float(circle.get("cy", "")) <= 400


def test_a_chart_of_nothing_is_refused() -> None:
    nan = float("nan")
    with pytest.raises(ValueError, match="nothing to draw"):
        Chart("t", "x", "y", [Line("l", [Point(1, nan, nan, nan)])]).svg()


# ---- end to end, with nano ----


@pytest.fixture
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "src"
    folder.mkdir()
    for i in range(6):
        body = "".join(f"    total_{n} = {n}\n    print(total_{n})\n" for n in range(2))
        (folder / f"f{i}.py").write_text(f"def f{i}(x):\n{body}    return x\n", encoding="utf-8")
    return folder


def records(kind: str, count: int, seed: int) -> list[tuple[Cut, dict[str, Any]]]:
    stated, right = drawn(Calibration(0.5, -1.0), count, seed)
    return [
        (Cut("line", Source(f"{kind}{i % 40}.py", "x = 1\n"), 0, 5), {"confidence": c, "exact": r})
        for i, (c, r) in enumerate(zip(stated, right, strict=True))
    ]


def test_files_are_on_one_side_and_what_is_judged_was_not_fitted_on() -> None:
    halves = [is_for_fitting(f"package/file{i}.py") for i in range(200)]
    assert 60 < sum(halves) < 140
    found = {"line": records("line", 1500, 1), "rest": records("rest", 1500, 2)}
    result = calibration.report(found)
    judged = result["all"]["right"]["n"]
    own = sum(not is_for_fitting(cut.source.name) for kind in found.values() for cut, _ in kind)
    assert judged == own == sum(one["right"]["n"] for one in result["kinds"].values())
    assert result["fitted_on"] + judged == 3000
    assert result["all"]["error_after"]["value"] < 0.05 < result["all"]["error_before"]["value"]
    assert [table.row_count for table in calibration.tables(result)] == [3, 7]
    for chart in calibration.pictures(result).values():
        assert drawing(chart).findall(f"{SVG}circle")


def test_a_mapping_goes_into_the_profile_and_changes_nothing_else(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="does not exist"):
        write_profile(tmp_path, {"scale": 1.0, "shift": 0.0})
    path = tmp_path / "infill.json"
    path.write_text('{"name": "m", "hole": 7}')
    write_profile(tmp_path, {"scale": 1.23456, "shift": -0.5})
    found = json.loads(path.read_text())
    assert found == {"name": "m", "hole": 7, "calibration": {"scale": 1.2346, "shift": -0.5}}


def test_too_few_right_answers_are_said_so(
    code: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "result.json"
    flags = ["--source", str(code), "--count", "1", "--steps", "1", "--out", str(out)]
    assert calibration.main(flags) == 2
    assert "answers are right" in capsys.readouterr().err
    assert len((tmp_path / "result.jsonl").read_text().splitlines()) == 3  # nothing is lost


def test_passes_from_end_to_end_and_again(code: Path, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    flags = ["--source", str(code), "--count", "2", "--kinds", "line,block", "--passes", "1,2"]
    assert passes.main([*flags, "--steps", "3", "--out", str(out)]) == 0
    first = json.loads(out.read_text(encoding="utf-8"))
    assert set(first["kinds"]) == {"line", "block"}
    line = first["kinds"]["line"]
    assert list(line["arms"]) == ["1", "2", "shipped"]
    assert line["arms"]["1"]["passes"]["value"] == 1
    assert line["arms"]["2"]["passes"]["value"] <= 2
    assert list(line["steps"]) == ["1 -> 2"]
    for name in ("passes", "time"):
        root = ET.fromstring((tmp_path / f"result-{name}.svg").read_text(encoding="utf-8"))
        assert len(root.findall(f"{SVG}circle")) == 4
    before = (tmp_path / "result.jsonl").read_bytes()
    assert passes.main([*flags, "--steps", "3", "--out", str(out)]) == 0  # all of it from the log
    assert (tmp_path / "result.jsonl").read_bytes() == before
    assert json.loads(out.read_text(encoding="utf-8"))["kinds"] == first["kinds"]
    with pytest.raises(SystemExit):
        passes.main([*flags, "--passes", "0", "--out", str(out)])


def test_a_drop_is_told_from_chance() -> None:
    def arm(score: float) -> list[dict[str, Any]]:
        base = dict.fromkeys(("exact", "empty", "parses"), False)
        return [
            {**base, "token_accuracy": score + i % 3, "edit_similarity": score + i % 5, "ms": 1.0}
            | {"passes": 1, "forward_passes": 1, "tokens": 3, "denoise_ms": 1.0}
            for i in range(30)
        ]

    found = passes.report({"1": arm(0.5), "2": arm(0.7), "4": arm(0.6), "shipped": arm(0.7)})
    assert found["falls"] == {
        "edit_similarity": ["2 -> 4"],
        "token_accuracy": ["2 -> 4"],
        "exact": [],
    }
    assert passes.table("line", found).row_count == 4
