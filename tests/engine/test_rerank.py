"""What the encoder writes by itself, and which of two answers goes better with the text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.engine import InfillEngine
from engine.models.profile import Sampling
from engine.prefix_cache import PrefixCache
from engine.rerank import AFTER, Written, log_likelihood, write
from engine.types import Infill, InfillRequest, SamplingParams, fill_in_the_middle, rewrite
from tests.engine.tiny import cases, tiny_engine

ENGINE = tiny_engine(seed=4, sampling=Sampling(max_steps=4, rerank=True))
MODEL, TOKENIZER = ENGINE.model, ENGINE.tokenizer
ALLOWED = (ENGINE.banned == 0).index_fill(0, torch.tensor(TOKENIZER.id_of("<slack>")), False)
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
@given(before=texts, middle=texts, after=some)
def test_a_likelihood_is_that_of_the_tokens_one_by_one(
    before: str, middle: str, after: str
) -> None:
    cache = cached(before)
    ids, behind = TOKENIZER.encode(middle), TOKENIZER.encode(after)
    expected = 0.0
    one = cached(before)
    for token in (*ids, *behind):
        assert one.last is not None
        expected += float(MODEL.logits(one.last)[0].log_softmax(-1)[token])
        one.extend([token])
    held = list(cache.ids)
    assert log_likelihood(cache, ids, behind) == pytest.approx(expected, abs=1e-3)
    assert cache.ids == held


@torch.inference_mode()
@cases(60)
@given(before=texts, after=st.sampled_from(["\n", "\n  b", ")", "= 1"]), most=st.integers(1, 12))
def test_what_is_written_is_the_likeliest_that_may_come_and_never_blank(
    before: str, after: str, most: int
) -> None:
    written = Written()
    steps = sum(
        1 for _ in write(cached(before), TOKENIZER, written, b"", after.encode(), ALLOWED, most)
    )
    assert steps == len(written.ids) == len(written.certainty) <= most
    one = cached(before)
    for token, certainty in zip(written.ids, written.certainty, strict=True):
        assert one.last is not None
        probs = MODEL.logits(one.last)[0].masked_fill(~ALLOWED, -torch.inf).softmax(-1)
        assert float(probs[token]) == pytest.approx(certainty, abs=1e-4)
        better = (probs > probs[token] + 1e-4).nonzero().squeeze(-1).tolist()
        # Only what would have ended a blank answer was passed over.
        assert all(
            TOKENIZER.bytes_of([i]).startswith(b"\n")
            or after.encode().startswith(TOKENIZER.bytes_of([i]))
            for i in better
        )
        one.extend([token])
    if written.ended:
        assert TOKENIZER.bytes_of(written.ids).strip()


@torch.inference_mode()
def test_a_word_that_was_typed_in_part_is_gone_on_with() -> None:
    written = Written()
    list(write(cached("x = "), TOKENIZER, written, b"pri", b"\n", ALLOWED, 3))
    assert TOKENIZER.bytes_of(written.ids[:1]).startswith(b"pri")


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
        one, other = (
            log_likelihood(cached(stays), TOKENIZER.encode(typed.decode() + text), behind)
            for text in (alone.text, chosen.text)
        )
    assert other > one - 1e-3


def test_nano_changes_its_mind_where_the_text_behind_says_so() -> None:
    """Somewhere in this file the second answer is kept, and somewhere it is not."""
    nano = InfillEngine.load()
    text = Path(__file__).read_text(encoding="utf-8")
    ends = [match.start() for match in re.finditer("(?<=[(=,] )\\w+.*", text)][::6]
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
        raise AssertionError("no second answer is due here")

    monkeypatch.setattr("engine.engine.rerank", never)
    fill("a = ", "")
    ENGINE.fill(InfillRequest(rewrite("a = ", "b", "\n", 0.5)))
    fill("a = ", "\n", ALONE)
    slow: InfillEngine = tiny_engine(seed=4, sampling=Sampling(max_steps=4, rerank=True))
    slow.pass_seconds = 1e6
    slow.fill(InfillRequest(fill_in_the_middle("a = ", "\n"), budget_s=100.0))
