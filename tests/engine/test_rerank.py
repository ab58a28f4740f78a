"""Which of several answers goes best with the text around the hole."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.engine import InfillEngine
from engine.models.profile import Sampling
from engine.prefix_cache import PrefixCache
from engine.rerank import AFTER, Likelihood, likelihoods, rank
from engine.token_tree import TokenTree
from engine.types import Infill, InfillRequest, SamplingParams, fill_in_the_middle, rewrite
from tests.engine.tiny import cases, tiny_engine

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


@torch.inference_mode()
@cases(60)
@given(before=texts, middles=st.lists(texts, min_size=1, max_size=4), after=some)
def test_a_likelihood_is_that_of_the_tokens_one_by_one(
    before: str, middles: list[str], after: str
) -> None:
    tree = TokenTree(cached(before))
    answers, behind = [TOKENIZER.encode(middle) for middle in middles], TOKENIZER.encode(after)
    found = likelihoods(MODEL, tree, answers, behind)
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
    assert after  # without text behind it there is nothing to judge by
    assert chosen.text.strip()
    behind = TOKENIZER.encode(after)[:AFTER]
    stays, typed = TOKENIZER.heal(before)
    with torch.inference_mode():
        one, other = likelihoods(
            MODEL,
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
    ends = [match.start() for match in re.finditer("(?<=[(=,] )\\w+.*", text)][::3]
    changed = 0
    for start in ends:
        before, after = text[:start], text[text.index("\n", start) :]
        template = fill_in_the_middle(before, after)
        alone, chosen = (nano.fill(InfillRequest(template, p)).text for p in (ALONE, BOTH))
        changed += alone != chosen
    assert 0 < changed < len(ends)


def test_a_draft_several_holes_and_a_deadline_are_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("no other answer is due here")

    monkeypatch.setattr("engine.run.Beam", never)
    fill("a = ", "")
    ENGINE.fill(InfillRequest(rewrite("a = ", "b", "\n", 0.5)))
    fill("a = ", "\n", ALONE)
    slow: InfillEngine = tiny_engine(seed=4, sampling=Sampling(max_steps=4, rerank=True))
    slow.pass_seconds = 1e6
    slow.fill(InfillRequest(fill_in_the_middle("a = ", "\n"), budget_s=100.0))
