"""A request that is withdrawn, or whose time is up: an end within a pass."""

from __future__ import annotations

import time
from typing import Any

import pytest

from engine.errors import Cancelled, DeadlineExceeded
from engine.profile import Sampling
from engine.types import (
    Fixed,
    Hole,
    InfillRequest,
    fill_in_the_middle,
)
from tests.engine.asking import (
    TINY,
    VOCAB,
    drain,
)
from tests.engine.tiny import (
    always,
    fake_engine,
    random_script,
)


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_cancel_ends_within_one_pass(after: int) -> None:
    engine, model = fake_engine(random_script(VOCAB, 1, 0.5), sampling=Sampling(max_steps=10))
    request = InfillRequest(fill_in_the_middle("(", ")"))
    with pytest.raises(Cancelled):
        engine.fill(request, lambda: len(model.calls) >= after)
    assert len(model.calls) == after
    assert engine.fill(request).steps  # the engine goes on


def test_a_cancel_ends_between_chunks_of_the_prefix() -> None:
    engine, model = fake_engine(context=10_000)
    with pytest.raises(Cancelled):
        engine.fill(InfillRequest(fill_in_the_middle("xy(" * 500, ")")), lambda: model.encoded >= 3)
    assert model.encoded == 3
    assert not model.calls


class Clock:
    """Time that passes only when the model works."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, model: Any, chunk: float = 0.0) -> None:
        self.now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        decode, encode = type(model).decode, type(model).encode

        def slow_decode(*args: Any, **more: Any) -> Any:
            self.now += 1.0
            return decode(model, *args, **more)

        def slow_encode(*args: Any, **more: Any) -> Any:
            self.now += chunk
            return encode(model, *args, **more)

        model.decode, model.encode = slow_decode, slow_encode


LONG = Sampling(max_steps=10, confidence=0.0)


@pytest.mark.parametrize("budget", [1.5, 3.5, 7.5])
def test_a_deadline_ends_within_one_pass_with_the_best_guess(
    budget: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    letter = TINY.encode("y")[0]
    engine, model = fake_engine(always(VOCAB, letter), sampling=LONG)
    clock = Clock(monkeypatch, model)
    began = clock.now
    result = engine.fill(InfillRequest(fill_in_the_middle("(", ")", 5), budget_s=budget))
    assert clock.now - began <= budget
    assert len(model.calls) == int(budget)
    assert result.holes == ("y" * 5,)
    assert result.stop_reason == "deadline"


def test_the_number_of_passes_is_fitted_to_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, model = fake_engine(random_script(VOCAB, 1), sampling=LONG)
    Clock(monkeypatch, model)
    request = InfillRequest(fill_in_the_middle("(", ")", 5), budget_s=4.5)
    frames, _ = drain(engine.stream(request))
    assert frames[-1].planned == 10  # nothing is known of its speed yet
    frames, result = drain(engine.stream(request))
    assert frames[-1].planned == 4
    assert result.steps == 4


@pytest.mark.parametrize("draft", [None, "y"])
def test_without_any_time_there_is_nothing_to_show(draft: str | None) -> None:
    engine, model = fake_engine()
    hole = Hole() if draft is None else Hole(draft=draft, strength=0.5)
    with pytest.raises(DeadlineExceeded):
        engine.fill(InfillRequest((Fixed("("), hole, Fixed(")")), budget_s=0.0))
    assert not model.calls


def test_a_deadline_that_comes_while_the_prefix_is_read_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine, model = fake_engine(context=10_000)
    clock = Clock(monkeypatch, model, chunk=1.0)
    with pytest.raises(DeadlineExceeded):
        engine.fill(InfillRequest(fill_in_the_middle("xy(" * 500, ")"), budget_s=3.0))
    assert clock.now <= 103.0
    assert not model.calls


def test_a_deadline_between_canvases_gives_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second hole is never reached: it keeps its draft, and no text between them is lost."""
    letter = TINY.encode("y")[0]
    engine, model = fake_engine(always(VOCAB, letter), sampling=LONG)
    clock = Clock(monkeypatch, model, chunk=0.25)
    far = "(far)\n" * 60
    template = (
        Fixed("("),
        Hole(max_tokens=3),
        Fixed(far),
        Hole(draft="old", strength=0.5),
        Fixed(""),
    )
    began = clock.now
    result = engine.fill(InfillRequest(template, budget_s=11.5))
    assert clock.now - began <= 11.5
    assert result.stop_reason == "deadline"
    assert result.holes == ("yyy", "old")
    assert result.text == "yyy" + far + "old"
