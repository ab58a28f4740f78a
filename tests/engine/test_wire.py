"""Requests and descriptions as JSON, and back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import BadRequest
from engine.types import (
    MOST_CHOICES,
    EngineInfo,
    Frame,
    Hole,
    Infill,
    InfillRequest,
    Piece,
    SamplingParams,
    Snippet,
    fill_in_the_middle,
)
from engine.wire import (
    EventReader,
    FrameWriter,
    infill_to_json,
    info_from_json,
    info_to_json,
    request_from_json,
    request_to_json,
)
from tests.cases import cases

requests = st.builds(
    InfillRequest,
    st.builds(fill_in_the_middle, st.text(), st.text(), st.none() | st.integers(1, 99))
    | st.builds(Hole, max_tokens=st.integers(1, 99), fixed_length=st.booleans()).map(
        lambda h: (h,)
    ),
    st.builds(SamplingParams, max_steps=st.none() | st.integers(1, 99)),
    st.none() | st.floats(0, 99),
    st.integers(0, 2**63 - 1),
    instruction=st.none() | st.text(),
    context=st.lists(st.builds(Snippet, st.text(), st.text())).map(tuple),
    title=st.text(),
) | st.builds(
    InfillRequest,
    st.builds(fill_in_the_middle, st.text(), st.text()),
    choices=st.lists(st.text(), max_size=MOST_CHOICES).map(tuple),
)


@cases(100)
@given(requests)
def test_a_request_survives_the_way(request: InfillRequest) -> None:
    assert request_from_json(json.loads(json.dumps(request_to_json(request)))) == request


def test_what_older_clients_send_still_counts() -> None:
    template = fill_in_the_middle("a", "b")
    sent = request_to_json(InfillRequest(template, seed=3))
    del sent["context"], sent["title"]
    assert request_from_json(sent) == InfillRequest(template, seed=3)


@pytest.mark.parametrize("context", [7, [{"path": "a"}], [{"path": "a", "text": 7}], ["a"]])
def test_a_context_that_is_none(context: object) -> None:
    sent = request_to_json(InfillRequest(fill_in_the_middle("a", "b")))
    with pytest.raises(BadRequest):
        request_from_json({**sent, "context": context})


@pytest.mark.parametrize(
    ("hole", "choices"),
    [
        ({}, [7]),
        ({}, 7),
        ({}, ["a"] * (MOST_CHOICES + 1)),
        ({"draft": "a"}, ["a"]),
        ({"max_tokens": 3}, ["a"]),
    ],
)
def test_choices_that_can_not_be_weighed(hole: dict[str, object], choices: object) -> None:
    with pytest.raises(BadRequest):
        request_from_json({"template": [{"hole": hole}], "choices": choices})


@pytest.mark.parametrize("languages", [None, (), ("python", "c")])
@pytest.mark.parametrize("neighbours", [True, False])
def test_a_description_survives_the_way(
    neighbours: bool, languages: tuple[str, ...] | None
) -> None:
    info = EngineInfo("m", "cpu", "float32", 1, 2, 3, ("fill",), neighbours, languages)
    assert info_from_json(json.loads(json.dumps(info_to_json(info)))) == info


def test_scores_survive_the_way() -> None:
    infill = Infill("a", ("a",), 1, 2, "settled", None, {"total": 1.0}, scores=(-1.5, -2.0))
    assert EventReader().read(json.loads(json.dumps(infill_to_json(infill)))) == infill


pieces = st.builds(Piece, st.sampled_from("ab"), st.sampled_from([0.0, 0.5]))
frames = st.integers(1, 3).flatmap(
    lambda count: st.lists(
        st.tuples(*[st.lists(pieces, max_size=6).map(tuple)] * count), min_size=1, max_size=5
    )
)


@cases(300)
@given(frames, st.booleans())
def test_frames_survive_the_way(seen: list[tuple[tuple[Piece, ...], ...]], fewer: bool) -> None:
    writer, reader = FrameWriter(), EventReader()
    told = [Frame(step, 8, holes, 1.5) for step, holes in enumerate(seen)]
    told += [Frame(9, 9, told[-1].holes[:-1], 0.5)] if fewer else []
    for frame in told:
        assert reader.read(json.loads(json.dumps(writer.to_json(frame)))) == frame


def test_what_has_not_changed_is_not_sent_again() -> None:
    long = tuple(Piece(f"word{i} ", 0.0) for i in range(2000))
    writer = FrameWriter()
    writer.to_json(Frame(1, 8, (long, long), 1.5))
    changed = (*long[:700], Piece("new", 0.5), *long[703:])
    sent = writer.to_json(Frame(2, 8, (long, changed), 1.5))
    assert sent["frame"]["holes"] == [(2000, 0, []), (700, 1297, [["new", 0.5]])]
