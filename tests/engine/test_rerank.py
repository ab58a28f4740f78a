"""Which of several answers goes best with the text around the hole."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from engine.attention.prefix_cache import PrefixCache
from engine.attention.token_tree import TokenTree
from engine.backbones.diffusion_gemma import DiffusionGemma
from engine.choice.rank import AFTER, Likelihood, likelihoods, rank
from engine.engine import InfillEngine
from engine.errors import Cancelled
from engine.profile import Calibration, Sampling
from engine.types import (
    Fixed,
    Hole,
    Infill,
    InfillRequest,
    SamplingParams,
    Template,
    fill_in_the_middle,
    rewrite,
)
from tests.cases import cases
from tests.engine.tiny import tiny_engine

LONGEST_WORD = 6

ENGINE = tiny_engine(seed=4, sampling=Sampling(max_steps=4, rerank=True))
MODEL, TOKENIZER = ENGINE.model, ENGINE.tokenizer
BOTH, ALONE = SamplingParams(), SamplingParams(rerank=False)

texts = st.text("ab =(1)\n", max_size=12)
some = st.text("ab =(1)\n", min_size=1, max_size=12)


def cached(text: str) -> PrefixCache:
    cache = PrefixCache(MODEL)
    cache.extend([2, *TOKENIZER.encode(text)])
    return cache


def fill(before: str, after: str, params: SamplingParams = BOTH) -> Infill:
    return ENGINE.fill(InfillRequest(fill_in_the_middle(before, after), params))


CHOSEN = ("b", "\nab = (1)\n")
"""Around a hole for which the encoder has answers, too."""


@torch.inference_mode()
@cases(60)
@given(before=texts, middles=st.lists(texts, min_size=1, max_size=4), after=some)
def test_a_likelihood_is_that_of_the_tokens_one_by_one(
    before: str, middles: list[str], after: str
) -> None:
    tree = TokenTree(cached(before))
    answers, behind = [TOKENIZER.encode(middle) for middle in middles], TOKENIZER.encode(after)
    found = likelihoods(tree, answers, behind)
    assert len(found) == len(answers)
    for ids, likelihood in zip(answers, found, strict=True):
        each: list[float] = []
        one = cached(before)
        for token in (*ids, *behind):
            assert one.last is not None
            each.append(float(MODEL.logits(one.last)[0].log_softmax(-1)[token]))
            one.extend([token])
        end = len(ids) + 1
        assert likelihood.ended == pytest.approx(sum(each[:end]), abs=1e-3)
        assert likelihood.after == pytest.approx(sum(each[end:]), abs=1e-3)


@cases(60)
@given(before=texts, after=texts)
def test_the_likelier_answer_is_kept(before: str, after: str) -> None:
    alone, chosen = fill(before, after, ALONE), fill(before, after)
    if chosen.text == alone.text:
        return
    assert chosen.text.strip()
    behind = TOKENIZER.encode(after or "\n")[:AFTER]
    stays, typed = TOKENIZER.heal(before)
    with torch.inference_mode():
        one, other = likelihoods(
            TokenTree(cached(stays)),
            [TOKENIZER.encode(typed.decode() + text) for text in (alone.text, chosen.text)],
            behind,
        )
    assert other.ended + other.after > one.ended + one.after - 1e-3


nats = st.floats(-30, 0)


@cases(200)
@given(st.lists(st.tuples(nats, nats), min_size=1, max_size=8))
def test_confidence_follows_likelihood_and_never_exceeds_what_the_answers_cover(
    parts: list[tuple[float, float]],
) -> None:
    answers = [[number] for number in range(len(parts))]
    ranked = rank(answers, [Likelihood(ended, after) for ended, after in parts])
    assert sorted(one.ids for one in ranked) == answers
    totals = [sum(parts[one.ids[0]]) for one in ranked]
    assert all(a >= b - 1e-9 for a, b in pairwise(totals))
    assert all(a.confidence >= b.confidence for a, b in pairwise(ranked))
    covered = min(1.0, sum(math.exp(ended) for ended, _ in parts))
    assert sum(one.confidence for one in ranked) == pytest.approx(covered)


def test_equals_keep_their_order() -> None:
    ranked = rank([[1], [2]], [Likelihood(-1.0, -2.0)] * 2)
    assert [one.ids for one in ranked] == [[1], [2]]


def test_other_answers_come_with_the_best_one() -> None:
    seen = 0
    for before in ("a = ", "print(", "b", ""):
        infill = fill(before, "\nab = (1)\n")
        texts = [infill.text, *(other.text for other in infill.others)]
        confidences = [infill.confidence, *(other.confidence for other in infill.others)]
        assert len(set(texts)) == len(texts)
        assert confidences == sorted(confidences, reverse=True)
        seen += len(infill.others)
        assert fill(before, "\nab = (1)\n", ALONE).others == ()
    assert seen > 0


def test_nano_changes_its_mind_where_the_text_behind_says_so() -> None:
    """Somewhere in this file another answer is kept, and somewhere the denoiser's own."""
    nano = InfillEngine.load()
    text = Path(__file__).read_text(encoding="utf-8")
    ends = [match.start() for match in re.finditer("(?<=[(=,] )\\w+.*", text)][::6]
    seen: set[bool] = set()
    for start in ends:
        before, after = text[:start], text[text.index("\n", start) :]
        template = fill_in_the_middle(before, after)
        alone, chosen = (nano.fill(InfillRequest(template, p)).text for p in (ALONE, BOTH))
        seen.add(alone != chosen)
        if len(seen) == 2:
            break
    assert seen == {False, True}


def never(*_: object) -> None:
    raise AssertionError("no other answer is due here")


@pytest.mark.parametrize(
    "template",
    [
        rewrite("a = ", "b", "\n", 0.5),
        (Fixed("a = "), Hole(), Fixed("b = "), Hole(), Fixed("\n")),
        (Fixed("a = "), Hole(max_tokens=4, fixed_length=True), Fixed("\n")),
    ],
    ids=["a draft", "two holes", "a fixed length"],
)
def test_some_holes_are_left_to_the_denoiser_and_have_no_confidence(
    template: Template, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.canvas_run.Beam", never)
    filled = ENGINE.fill(InfillRequest(template))
    assert (filled.others, filled.confidence) == ((), None)


def test_the_end_of_a_file_is_something_to_be_likely_before() -> None:
    """A last line without a final newline gets what the same line in the middle gets."""
    last, inner = (ENGINE.fill(InfillRequest(fill_in_the_middle("=", end))) for end in ("", "\n"))
    assert (last.text, last.others, last.confidence) == (inner.text, inner.others, inner.confidence)
    assert last.others


def test_who_wants_no_other_answer_or_has_no_time_gets_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("engine.canvas_run.Beam", never)
    fill("a = ", "\n", ALONE)
    slow = tiny_engine(seed=4, sampling=Sampling(max_steps=4, rerank=True))
    slow.pass_seconds = 1e6
    slow.fill(InfillRequest(fill_in_the_middle("a = ", "\n"), budget_s=100.0))


@cases(40)
@given(before=texts, after=some, most=st.integers(1, 6))
def test_no_answer_has_more_tokens_than_the_hole_may(before: str, after: str, most: int) -> None:
    infill = ENGINE.fill(InfillRequest(fill_in_the_middle(before, after, most)))
    _, typed = TOKENIZER.heal(before)
    for text in (infill.text, *(other.text for other in infill.others)):
        assert "<slack>" not in text
        # Written otherwise it may be shorter, but a token has a byte at least.
        assert len(TOKENIZER.encode(typed.decode() + text)) <= most * LONGEST_WORD


def test_other_answers_take_no_longer_than_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way to run the model takes a second by this clock."""
    engine = tiny_engine(seed=4, sampling=Sampling(max_steps=4, rerank=True))
    now = [0.0]
    monkeypatch.setattr("engine.run.time.monotonic", lambda: now[0])
    run = DiffusionGemma._run

    def slowly(*arguments: Any, **named: Any) -> Tensor:
        now[0] += 1.0
        return run(*arguments, **named)

    monkeypatch.setattr(DiffusionGemma, "_run", slowly)
    engine.pass_seconds = 1.0
    chosen = 0
    for budget in range(2, 40):
        began = now[0]
        template = fill_in_the_middle(*CHOSEN)
        infill = engine.fill(InfillRequest(template, budget_s=float(budget)))
        assert now[0] - began <= budget + 1
        chosen += bool(infill.others)
    assert 0 < chosen < 38


def test_a_search_can_be_given_up() -> None:
    engine = tiny_engine(seed=4, sampling=Sampling(max_steps=1, rerank=True))
    asked = [0]

    def cancelled() -> bool:
        asked[0] += 1
        return asked[0] > passes

    request = InfillRequest(fill_in_the_middle(*CHOSEN))
    passes = 10**6
    engine.fill(request, cancelled)
    needed, asked[0] = asked[0], 0
    assert needed > 4, "the search goes on behind the denoiser's only pass"
    passes = needed - 1
    with pytest.raises(Cancelled):
        engine.fill(request, cancelled)


def test_what_was_chosen_is_mapped_as_the_profile_says_and_nothing_else_is() -> None:
    calibration = Calibration(1.0, -3.0)
    mapped = tiny_engine(seed=4, sampling=Sampling(max_steps=4, rerank=True))
    mapped.profile = replace(mapped.profile, calibration=calibration)
    request = InfillRequest(fill_in_the_middle(*CHOSEN))
    plain, other = ENGINE.fill(request), mapped.fill(request)
    assert plain.others
    assert other.confidence == pytest.approx(calibration(plain.confidence))
    for one, raw in zip(other.others, plain.others, strict=True):
        assert one.confidence == pytest.approx(calibration(raw.confidence))
    alone = replace(request, params=ALONE)
    assert mapped.fill(alone).confidence is None
