"""What is counted in an evaluation, and the log that it can go on with."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import BadRequest
from engine.evaluation.journal import Journal
from engine.evaluation.metrics import (
    compiles,
    edit_similarity,
    exact,
    interval,
    mean,
    paired_difference,
    percentile,
    proportion,
    token_accuracy,
)


def test_exactness_looks_past_white_space_at_the_end_only() -> None:
    assert exact("x = 1 \n", "x = 1")
    assert not exact(" x = 1", "x = 1")


def test_token_accuracy_counts_places_from_the_start() -> None:
    assert token_accuracy([1, 2, 3], [1, 2, 3]) == 1
    assert token_accuracy([1, 9, 3, 4], [1, 2, 3]) == pytest.approx(2 / 3)
    assert token_accuracy([9, 1, 2, 3], [1, 2, 3]) == 0
    assert token_accuracy([], [1]) == 0
    assert token_accuracy([], []) == 1


def test_edit_similarity_of_known_pairs() -> None:
    assert edit_similarity("kitten", "sitting") == pytest.approx(1 - 3 / 7)
    assert edit_similarity("", "") == 1
    assert edit_similarity("", "abc") == 0


@given(st.text(max_size=12), st.text(max_size=12))
def test_edit_similarity_is_symmetric_and_1_for_equals_alone(a: str, b: str) -> None:
    assert edit_similarity(a, b) == edit_similarity(b, a)
    assert 0 <= edit_similarity(a, b) <= 1
    assert (edit_similarity(a, b) == 1) == (a == b)


def test_what_compiles() -> None:
    assert compiles("x = 1\n")
    assert not compiles("x = (\n")
    assert not compiles("x = '\0'\n")


def test_wilson_interval_of_a_known_case() -> None:
    found = proportion([True] * 10 + [False] * 90)
    assert (found.value, found.n) == (0.1, 100)
    assert (found.low, found.high) == pytest.approx((0.0552, 0.1744), abs=1e-4)
    assert found.error == pytest.approx(0.03)


@given(st.lists(st.booleans(), min_size=1, max_size=200))
def test_an_interval_holds_its_estimate(hits: list[bool]) -> None:
    found = proportion(hits)
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_a_mean_with_its_error() -> None:
    found = mean([1.0, 2.0, 3.0, 4.0])
    assert found.value == 2.5
    assert found.error == pytest.approx(math.sqrt(5 / 3) / 2)
    assert math.isnan(mean([]).value)


def test_a_paired_difference_sees_what_the_pairs_have_in_common() -> None:
    noise = [float(i % 7) for i in range(200)]
    found = paired_difference([value + 0.1 for value in noise], noise)
    assert found.low == pytest.approx(0.1)
    assert found.high == pytest.approx(0.1)
    # By chance alone: the interval holds 0.
    coin = paired_difference([1.0, 0.0] * 50, [0.0, 1.0] * 50)
    assert coin.low < 0 < coin.high
    with pytest.raises(ValueError, match="pairs"):
        paired_difference([1.0, 2.0, 3.0], [1.0, 2.0])


def test_percentiles() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2
    assert math.isnan(percentile([], 0.5))


# ---- the journal ----


def test_a_journal_goes_on_behind_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with Journal(path, {"seed": 1}) as journal:
        journal.add("a", {"exact": True})
    with path.open("ab") as file:
        file.write(b'{"key": "b", "exa')
    with Journal(path, {"seed": 1}) as journal:
        assert journal.records == {"a": {"exact": True}}
        journal.add("c", {"exact": False})
    with Journal(path, {"seed": 1}) as journal:
        assert list(journal.records) == ["a", "c"]


def test_a_journal_of_other_settings_is_not_mixed_in(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    Journal(path, {"seed": 1, "model": {"name": "nano"}}).close()
    before = path.read_bytes()
    with pytest.raises(BadRequest, match="another seed"):
        Journal(path, {"seed": 2, "model": {"name": "nano"}})
    assert path.read_bytes() == before


def test_what_can_not_be_said_is_left_out() -> None:
    assert [str(mean([])), str(mean([2.0])), str(mean([1.0, 3.0]))] == ["–", "2.000", "2.000±1.000"]
    assert [interval(-0.5, 0.25, "+.2f"), interval(math.nan, math.nan)] == ["-0.50 … +0.25", "–"]
