"""Requests and descriptions as JSON, and back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import cases

from engine.errors import BadRequest
from engine.types import (
    EngineInfo,
    Frame,
    Hole,
    InfillRequest,
    Piece,
    SamplingParams,
    Snippet,
    fill_in_the_middle,
)
from engine.wire import (
    event_from_json,
    frame_to_json,
    info_from_json,
    info_to_json,
    request_from_json,
    request_to_json,
)

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
)


@cases(100)
@given(requests)
def test_a_request_survives_the_way(request: InfillRequest) -> None:
    assert request_from_json(json.loads(json.dumps(request_to_json(request)))) == request


def test_what_older_clients_send_still_counts() -> None:
    template = fill_in_the_middle("a", "b")
    sent = request_to_json(InfillRequest(template, seed=3))
    del sent["context"]
    assert request_from_json(sent) == InfillRequest(template, seed=3)


@pytest.mark.parametrize("context", [7, [{"path": "a"}], [{"path": "a", "text": 7}], ["a"]])
def test_a_context_that_is_none(context: object) -> None:
    sent = request_to_json(InfillRequest(fill_in_the_middle("a", "b")))
    with pytest.raises(BadRequest):
        request_from_json({**sent, "context": context})


@pytest.mark.parametrize("languages", [None, (), ("python", "c")])
@pytest.mark.parametrize("neighbours", [True, False])
def test_a_description_survives_the_way(
    neighbours: bool, languages: tuple[str, ...] | None
) -> None:
    info = EngineInfo("m", "cpu", "float32", 1, 2, 3, ("fill",), neighbours, languages)
    assert info_from_json(json.loads(json.dumps(info_to_json(info)))) == info


def test_a_frame_survives_the_way() -> None:
    frame = Frame(3, 8, ((Piece("a", 0.5), Piece("b", 0.25)), ()), 1.5)
    assert event_from_json(json.loads(json.dumps(frame_to_json(frame)))) == frame
