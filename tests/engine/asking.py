"""Requests of every kind for an engine, and what to do with its answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

from engine.text.tokenizer import TextTokenizer
from engine.types import (
    Fixed,
    Frame,
    Hole,
    Infill,
    InfillRequest,
    SamplingParams,
    Segment,
    Template,
)
from engine.weights.profile import EMBEDDED
from tests.engine.tiny import (
    SPECIAL,
    any_hole,
    tiny_tokenizer,
)

TINY = tiny_tokenizer()
NANO = TextTokenizer.load(EMBEDDED)
VOCAB = 282

snippets = [*SPECIAL, "pri", "x = ", "\n", "\r\n", "\r\u2028\f", "🙂", "e\u0301", "a" * 60]
texts = st.one_of(st.text(max_size=8), st.lists(st.sampled_from(snippets), max_size=3).map("".join))
holes = any_hole(texts, most=12, little=0.1)
params = st.builds(
    SamplingParams,
    max_steps=st.integers(1, 3),
    entropy_bound=st.sampled_from([None, 1e-3, 5.0, 1e3]),
    t_max=st.sampled_from([None, 0.1, 3.0]),
    t_min=st.sampled_from([None, 0.05, 2.0]),
    stability=st.sampled_from([None, 0, 2]),
    confidence=st.sampled_from([None, 0.0, 100.0]),
)


@st.composite
def templates(draw: st.DrawFn) -> Template:
    """Any order of texts and holes, with a hole in it somewhere."""
    segments: list[Segment] = draw(st.lists(st.one_of(texts.map(Fixed), holes), max_size=4))
    segments.insert(draw(st.integers(0, len(segments))), draw(holes))
    return tuple(segments)


requests = st.builds(InfillRequest, templates(), params, seed=st.integers(0, 2**63 - 1))


def around_holes(template: Template, fills: tuple[str, ...]) -> str:
    """The template's own text between its first and its last hole, and `fills` in the holes."""
    at = [i for i, segment in enumerate(template) if isinstance(segment, Hole)]
    rest = iter(fills)
    return "".join(
        segment.text if isinstance(segment, Fixed) else next(rest)
        for segment in template[at[0] : at[-1] + 1]
    )


def drain(events: Iterator[Frame | Infill | None]) -> tuple[list[Frame], Infill]:
    frames: list[Frame] = []
    for event in events:
        if isinstance(event, Infill):
            return frames, event
        if event is not None:
            frames.append(event)
    raise AssertionError("a stream ends with its result")


def outcome(result: Infill) -> tuple[Any, ...]:
    """All of a result but its timings."""
    return (
        result.text,
        result.holes,
        result.steps,
        result.forward_passes,
        result.stop_reason,
        result.confidence,
    )
