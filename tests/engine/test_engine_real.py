"""The whole engine on a tiny real model."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch.nn as nn
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from engine.backbones.diffusion_gemma import ROWS, DiffusionGemma
from engine.engine import InfillEngine
from engine.types import (
    Infill,
    InfillRequest,
    SamplingParams,
    fill_in_the_middle,
)
from tests.cases import cases
from tests.engine.asking import (
    around_holes,
    drain,
    outcome,
    templates,
)
from tests.engine.tiny import (
    tiny_engine,
)

REAL = tiny_engine()


def fresh(engine: InfillEngine = REAL) -> InfillEngine:
    """An engine on the same model that has seen nothing yet."""
    return InfillEngine(engine.model, engine.tokenizer, engine.profile)


real_requests = st.builds(
    InfillRequest,
    templates(),
    st.builds(SamplingParams, max_steps=st.integers(1, 2)),
    seed=st.integers(0, 2**63 - 1),
)


@cases(25)
@given(batch=st.lists(real_requests, min_size=2, max_size=4), order=st.randoms())
def test_a_request_gives_the_same_alone_and_beside_others(
    batch: list[InfillRequest], order: random.Random
) -> None:
    alone = [fresh().fill(request) for request in batch]
    engine = fresh()
    running = {i: engine.stream(request) for i, request in enumerate(batch)}
    together: dict[int, Infill] = {}
    while running:
        i = order.choice(sorted(running))
        event = next(running[i])
        if isinstance(event, Infill):
            together[i] = event
            running.pop(i).close()
    for i, wanted in enumerate(alone):
        # What another one has read of the same prefix already is not read again.
        assert together[i].forward_passes <= wanted.forward_passes
        # Rows that run beside others are multiplied in other pieces: sums are rounded otherwise.
        if wanted.confidence is None:
            assert together[i].confidence is None
        else:
            assert together[i].confidence == pytest.approx(wanted.confidence, rel=1e-4)
        as_alone = replace(
            together[i], forward_passes=wanted.forward_passes, confidence=wanted.confidence
        )
        assert outcome(as_alone) == outcome(wanted)


@cases(25)
@given(
    prefix=st.text(alphabet="ab(\n", min_size=20, max_size=120),
    edits=st.lists(st.tuples(st.integers(0, 120), st.sampled_from(["x", "(b\n"])), max_size=3),
    seed=st.integers(0, 1000),
)
def test_a_warm_cache_changes_nothing(prefix: str, edits: list[tuple[int, str]], seed: int) -> None:
    engine = fresh()
    for at, new in [(0, ""), *edits]:
        prefix = prefix[:at] + new + prefix[at + len(new) :]
        few = SamplingParams(max_steps=2)
        request = InfillRequest(fill_in_the_middle(prefix, ")\n", 8), few, seed=seed)
        warm, cold = engine.fill(request), fresh().fill(request)
        assert (warm.text, warm.confidence, warm.steps) == (cold.text, cold.confidence, cold.steps)


@cases(25)
@given(request=real_requests)
def test_a_real_model_keeps_the_text_outside_the_holes_too(request: InfillRequest) -> None:
    frames, result = drain(REAL.stream(request))
    assert result.text == around_holes(request.template, result.holes)
    for frame in frames:
        for text in frame.texts:
            text.encode()


def test_a_seed_changes_the_draws() -> None:
    request = fill_in_the_middle("x = (", ")\n")
    assert len({REAL.fill(InfillRequest(request, seed=seed)).text for seed in range(5)}) > 1


def test_hundreds_of_requests_do_not_fill_the_memory() -> None:
    engine = fresh()
    sizes: list[int] = []
    for i in range(150):
        prefix = f"def f{i}(" + "x, " * (i % 60)
        params = SamplingParams(max_steps=1)
        engine.fill(InfillRequest(fill_in_the_middle(prefix, ")", 2), params, seed=i))
        sizes.append(engine.store.bytes)
        assert len(engine.store.caches) <= 16
    assert sizes[-1] <= max(sizes[:20]) * 1.5


def test_the_engine_says_what_it_is() -> None:
    info = REAL.info
    assert (info.model, info.device, info.dtype) == ("tiny", "cpu", "float32")
    assert info.canvas_length == 32
    assert info.can == ("fill",)
    assert isinstance(REAL.model, DiffusionGemma)


def test_the_number_of_rows_that_a_cpu_meets_is_bounded() -> None:
    """The matrix library keeps a kernel for each: they would fill the memory within days."""
    met: set[int] = set()

    def meet(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        met.add(inputs[0].flatten(0, -2).shape[0])

    layers = REAL.model.layers.modules()
    hooks = [m.register_forward_pre_hook(meet) for m in layers if isinstance(m, nn.Linear)]
    try:
        for length in range(1, 60, 3):
            fresh().fill(InfillRequest(fill_in_the_middle("a" * length, "\n")))
    finally:
        for hook in hooks:
            hook.remove()
    assert met
    assert all(rows % ROWS == 0 for rows in met)
