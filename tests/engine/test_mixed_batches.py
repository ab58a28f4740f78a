"""Requests that take turns share their passes, and each gets the text that it gets alone."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from torch import Tensor

from engine.attention.span import Span, forward
from engine.backbones.base import Backbone
from engine.engine import InfillEngine
from engine.errors import Cancelled
from engine.profile import Sampling
from engine.types import (
    Fixed,
    Frame,
    Hole,
    Infill,
    InfillRequest,
    SamplingParams,
    Template,
    fill_in_the_middle,
    rewrite,
)
from tests.engine.tiny import tiny_dense_engine, tiny_engine

MOST = 6
"""So many run side by side."""

TURNS = 2000


@dataclass(slots=True)
class Running:
    """A request on its way. cancelled: whether it has been withdrawn."""

    request: InfillRequest
    events: Iterator[Frame | Infill | None]
    cancelled: bool = False
    after: int = 0  # turns since then


def requests(draw: random.Random, count: int) -> list[InfillRequest]:
    """Requests for few documents that are edited all the time."""
    made: list[InfillRequest] = []
    documents = ["def f(x):\n    return x\n", "import re\nx = ", "a = 1\n" * 8]
    for _ in range(count):
        at = draw.randrange(len(documents))
        documents[at] = documents[at][draw.choice([0, 0, 0, 3]) :] + draw.choice(
            ["b", " print", "(c\n", "\n"]
        )
        text = documents[at][-120:]
        cut = draw.randint(0, len(text))
        before, after = text[:cut], text[cut:]
        template: Template = draw.choice(
            [
                fill_in_the_middle(before, after, draw.randint(1, 8)),
                fill_in_the_middle(text, "\n", 4),
                fill_in_the_middle(text, "\n"),
                rewrite(before, after[:9] or "a", "\n", 0.5),
                (Fixed(before), Hole(max_tokens=3), Fixed("\n)"), Hole(max_tokens=2), Fixed("(")),
            ]
        )
        params = SamplingParams(max_steps=draw.randint(1, 3))
        made.append(InfillRequest(template, params, seed=draw.randrange(99)))
    return made


def begin(engine: InfillEngine, request: InfillRequest) -> Running:
    one = Running(request, iter(()))
    one.events = engine.stream(request, lambda: one.cancelled)
    return one


def make_plain() -> InfillEngine:
    return tiny_engine(seed=1)


def make_choosing() -> InfillEngine:
    sampling = Sampling(max_steps=3, causal_share=0.5, rerank=True)
    return tiny_engine(seed=4, sampling=sampling)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("make", [make_plain, make_choosing, tiny_dense_engine])
def test_each_gets_what_it_gets_alone_whoever_joins_and_leaves(make: Any) -> None:
    engine: InfillEngine = make()
    draw = random.Random(11)
    pool = requests(draw, 60)
    alone: dict[InfillRequest, Infill] = {}
    running: list[Running] = []
    ended = dict.fromkeys(["whole", "cancelled", "left"], 0)

    def turn(one: Running) -> None:
        try:
            event = next(one.events)
        except Cancelled:
            assert one.cancelled
            running.remove(one)
            ended["cancelled"] += 1
            return
        one.after += one.cancelled
        # The pass that was asked for; if it was the last one, the choice and the result.
        assert one.after <= 3, "a cancel ends a request within a pass"
        if not isinstance(event, Infill):
            return
        one.events.close()  # type: ignore[attr-defined]
        running.remove(one)
        ended["whole"] += 1
        if one.request not in alone:
            fresh = InfillEngine(engine.model, engine.tokenizer, engine.profile)
            alone[one.request] = fresh.fill(one.request)
        wanted = alone[one.request]
        assert (event.text, event.holes) == (wanted.text, wanted.holes)
        assert (event.steps, event.stop_reason) == (wanted.steps, wanted.stop_reason)
        if wanted.confidence is None:
            assert event.confidence is None
        else:
            assert event.confidence == pytest.approx(wanted.confidence, abs=1e-3)

    for _ in range(TURNS):
        what = draw.random()
        if len(running) < MOST and what < 0.3:
            running.append(begin(engine, draw.choice(pool)))
        elif running and 0.3 <= what < 0.32:
            draw.choice(running).cancelled = True
        elif running and 0.32 <= what < 0.34:
            one = draw.choice(running)
            one.events.close()  # type: ignore[attr-defined]
            running.remove(one)
            ended["left"] += 1
        elif running:
            turn(draw.choice(running))
    while running:
        turn(running[0] if draw.random() < 0.2 else draw.choice(running))
    assert all(count > 20 for count in ended.values()), ended
    assert all(cache.users == 0 for cache in engine.store.caches)
    assert not engine.batch._waiting, "nobody's spans are left behind"
    assert not any(cache.writing for cache in engine.store.caches)


def test_requests_that_take_turns_share_passes() -> None:
    engine = tiny_engine(seed=1)
    template = fill_in_the_middle("x = (", ")\n", 6)
    four = [InfillRequest(template, SamplingParams(max_steps=3), seed=seed) for seed in range(4)]
    alone = sum(engine.fill(request).forward_passes for request in four)
    engine.shed()
    before = engine.batch.passes
    running = [engine.stream(request) for request in four]
    while running:
        running = [one for one in running if not isinstance(next(one), Infill)]
    assert engine.batch.passes - before < alone / 2


def test_one_whose_pass_fails_takes_nobody_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = tiny_engine(seed=1)
    good = InfillRequest(fill_in_the_middle("a = (", ")\n", 4), seed=1)
    bad = InfillRequest(fill_in_the_middle("bbbbbbbb(", ")\n", 4), seed=2)
    wanted = engine.fill(good).text
    engine.shed()
    b = engine.tokenizer.encode("b")[0]

    def failing(model: Backbone, spans: Sequence[Span]) -> list[Tensor]:
        if any(span.role == "encoder" and b in span.ids for span in spans):
            raise RuntimeError("too large")
        return forward(model, spans)

    monkeypatch.setattr("engine.attention.batch.forward", failing)
    one, other = engine.stream(good), engine.stream(bad)
    outcomes: list[object] = []
    running = [one, other]
    while running:
        stream = running.pop(0)
        try:
            event = next(stream)
        except RuntimeError as error:
            outcomes.append(str(error))
            continue
        if isinstance(event, Infill):
            outcomes.append(event.text)
        else:
            running.append(stream)
    assert sorted(map(str, outcomes)) == sorted([wanted, "too large"])
