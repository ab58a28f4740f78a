"""What is long ends when its time is up: with what there is by then, a draft's rest as it was, and
nothing changed around it. mini where it is, else small random models."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.engine import InfillEngine
from engine.types import Fixed, Frame, Hole, Infill, InfillRequest
from tests.engine.tiny import tiny_dense_engine, tiny_engine

pytestmark = pytest.mark.timeout(900)

BUDGET_S = 20.0
PATIENCE_S = 60.0
"""The pass that was begun when the time was up, on a machine that is busy with other things."""

LINES = [f"    total_{i} = total_{i - 1} + values[{i}]  # item {i}\n" for i in range(1, 599)]
SOURCE = "def add(values):\n    total_0 = values[0]\n" + "".join(LINES)
BEFORE, BETWEEN, AFTER = "import os\n\n\n", "\n\nname = ", "\n\n\ndef last():\n    return name\n"

Ran = tuple[Infill, list[Frame], float]


def run(engine: InfillEngine, *template: Fixed | Hole) -> Ran:
    began = time.monotonic()
    events = list(engine.stream(InfillRequest(template, budget_s=BUDGET_S)))
    infill = events.pop()
    assert isinstance(infill, Infill)
    return infill, [event for event in events if isinstance(event, Frame)], time.monotonic() - began


@pytest.fixture(scope="module")
def loaded() -> dict[str, InfillEngine]:
    return {}


@pytest.fixture
def mini(mini_base: Path, loaded: dict[str, InfillEngine]) -> InfillEngine:
    if not loaded:
        loaded["mini"] = InfillEngine.load("mini", "cpu")
    return loaded["mini"]


def test_a_rewrite_of_600_lines(mini: InfillEngine) -> None:
    assert SOURCE.count("\n") == 600
    name = Hole(max_tokens=4)
    rewrite = Hole(draft=SOURCE, strength=0.6)
    infill, frames, seconds = run(mini, Fixed(BEFORE), rewrite, Fixed(BETWEEN), name, Fixed(AFTER))
    assert seconds < BUDGET_S + PATIENCE_S
    assert infill.text == f"{infill.holes[0]}{BETWEEN}{infill.holes[1]}"
    assert infill.steps == len(frames) - 1 > 0, "the first one shows the draft"
    assert frames[-1].texts[0] == infill.holes[0]
    # Whatever the passes made of its beginning, it has an end: its own, if they did not get there.
    assert infill.stop_reason in ("settled", "max_tokens", "deadline")
    if infill.stop_reason == "deadline":
        assert infill.holes[0].endswith("".join(LINES[-9:]))
        assert infill.holes[0].count("\n") >= 560


@pytest.mark.parametrize("fixed", [False, True])
def test_a_middle_of_1000_tokens(mini: InfillEngine, fixed: bool) -> None:
    hole = Hole(max_tokens=1000, fixed_length=fixed)
    infill, frames, seconds = run(
        mini, Fixed(BEFORE), hole, Fixed(BETWEEN), Hole(max_tokens=4), Fixed(AFTER)
    )
    assert seconds < BUDGET_S + PATIENCE_S
    assert infill.text == f"{infill.holes[0]}{BETWEEN}{infill.holes[1]}"
    assert frames
    count = len(mini.tokenizer.encode(infill.holes[0]))
    assert count <= 1000 * 1.05, "other tokens may spell the same text"
    assert infill.stop_reason in ("settled", "max_tokens", "deadline")
    if fixed:
        assert infill.holes[0].strip()
        assert count > 500 or infill.stop_reason == "deadline", "it ends nowhere before"


@pytest.mark.parametrize("make", [tiny_engine, tiny_dense_engine])
@pytest.mark.parametrize("strength", [0.2, 0.9])
def test_when_the_time_is_up_a_draft_goes_on_as_it_was(
    make: Callable[[int], InfillEngine], strength: float
) -> None:
    engine = make(1)
    draft = "".join(f"print {i}\n" for i in range(30))
    hole = Hole(draft=draft, strength=strength)
    engine.pass_seconds = 100.0  # there is time for one pass
    infill, frames, _ = run(engine, Fixed("a\n"), hole, Fixed("\nb\n"))
    assert (infill.steps, infill.stop_reason) == (1, "deadline")
    assert infill.holes[0].endswith("print 27\nprint 28\nprint 29\n")
    assert frames[-1].texts == infill.holes
