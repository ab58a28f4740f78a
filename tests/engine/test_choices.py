"""Texts are weighed as they are when each is read by itself, token by token."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.attention.prefix_cache import PrefixCache
from engine.attention.token_tree import Hole as TreeHole
from engine.choice.rank import AFTER
from engine.engine import InfillEngine
from engine.errors import BadRequest, Cancelled, DeadlineExceeded
from engine.left_run import SLOTS
from engine.profile import Weights
from engine.text.layout import Sheet
from engine.types import Fixed, Hole, Infill, InfillRequest, fill_in_the_middle
from tests.cases import cases
from tests.engine.test_decoder_tree import by_a_dense_mask
from tests.engine.tiny import END, MASK, tiny_dense_engine, tiny_engine

BEFORE, AFTER_IT = "def f(self):\n    return sel", "\n\nprint(1)\n"

texts = st.text("ab =(1)\n", max_size=8)
choices = st.lists(st.text("ab f=(1)", max_size=6), min_size=1, max_size=4)


def weighed(engine: InfillEngine, before: str, after: str, *texts: str) -> Infill:
    return engine.fill(InfillRequest(fill_in_the_middle(before, after), choices=texts))


def as_read(engine: InfillEngine, before: str, after: str, text: str) -> tuple[list[int], ...]:
    """The ids in front of the hole, of the text in it, and behind it."""
    sheet = Sheet((Fixed(before), Hole(), Fixed(after)), engine.tokenizer, engine.profile)
    gap = sheet.gaps[0]
    start = [] if engine.bos_id is None else [engine.bos_id]
    prefix = [*start, *engine.tokenizer.encode(sheet.prefix_text)]
    return prefix, sheet.ids_of(gap, text), sheet.behind(gap, 99)


def by_the_encoder(engine: InfillEngine, before: str, after: str, text: str) -> tuple[float, float]:
    """log p of the text and the first token behind it, and of the tokens behind that one."""
    prefix, ids, behind = as_read(engine, before, after, text)
    behind = behind[:AFTER] or engine.tokenizer.encode("\n")
    cache = PrefixCache(engine.model)
    cache.extend(prefix)
    each: list[float] = []
    for token in (*ids, *behind):
        assert cache.last is not None
        each.append(float(engine.model.logits(cache.last)[0].log_softmax(-1)[token]))
        cache.extend([token])
    return sum(each[: len(ids) + 1]), sum(each[len(ids) + 1 :])


def by_the_decoder(engine: InfillEngine, before: str, after: str, text: str, longest: int) -> float:
    """log p of the text and the hole's end, with both sides in view."""
    prefix, ids, behind = as_read(engine, before, after, text)
    slots = next(size for size in SLOTS if size > longest)
    hole = TreeHole(slots, behind[: engine.profile.suffix], MASK, engine.marks)
    rows = by_a_dense_mask(engine.model, prefix, hole, ids, masks=0)
    logs = engine.model.logits(rows).log_softmax(-1)
    return float(logs[range(len(ids) + 1), [*ids, END]].sum())


CANVAS = tiny_engine(seed=4)
FROM_LEFT = {
    weights: tiny_dense_engine(seed=1, weights=weights, marks=marks, lines=lines)
    for weights, marks, lines in (
        (Weights(1.0, 0.0, 0.5), None, False),
        (Weights(1.0, 0.0, 0.0), ("<pad>", "<eos>"), True),
        (Weights(0.5, 0.25, 1.0), ("<pad>", "<eos>"), False),
    )
}


@torch.inference_mode()
@cases(40)
@given(before=texts, texts=choices, after=texts)
def test_a_model_of_canvases_weighs_as_its_encoder_reads(
    before: str, texts: list[str], after: str
) -> None:
    result = weighed(CANVAS, before, after, *texts)
    plain = [sum(by_the_encoder(CANVAS, before, after, text)) for text in texts]
    assert result.scores == pytest.approx(plain, abs=1e-3)
    assert result.holes == (texts[result.scores.index(max(result.scores))],)


@torch.inference_mode()
@cases(60)
@given(weights=st.sampled_from(list(FROM_LEFT)), before=texts, texts=choices, after=texts)
def test_a_model_that_decides_from_the_left_weighs_with_both_sides_in_view(
    weights: Weights, before: str, texts: list[str], after: str
) -> None:
    engine = FROM_LEFT[weights]
    result = weighed(engine, before, after, *texts)
    longest = max(len(as_read(engine, before, after, text)[1]) for text in texts)
    for text, score in zip(texts, result.scores, strict=True):
        ended, behind = by_the_encoder(engine, before, after, text)
        written = by_the_decoder(engine, before, after, text, longest)
        plain = weights.written * written + weights.before * ended + weights.after * behind
        assert score == pytest.approx(plain, abs=1e-3)
    assert result.confidence is None
    assert result.others == ()


def test_it_takes_few_passes_and_leaves_nothing_behind() -> None:
    engine = tiny_dense_engine(seed=2, weights=Weights(1.0, 0.0, 0.5), context=4096, prefill=4096)
    assert weighed(engine, BEFORE, AFTER_IT, "f.a", "f.b", "f").forward_passes == 3
    assert weighed(engine, BEFORE, AFTER_IT, "f.c").forward_passes == 3
    assert all(cache.users == 0 for cache in engine.store.caches)


@pytest.mark.parametrize("engine", [CANVAS, FROM_LEFT[Weights(1.0, 0.0, 0.5)]])
def test_it_can_be_withdrawn_and_has_a_deadline(engine: InfillEngine) -> None:
    request = InfillRequest(fill_in_the_middle(BEFORE, AFTER_IT), choices=("f", "f.a"))
    asked: list[None] = []

    def at_the_second() -> bool:
        asked.append(None)
        return len(asked) > 1

    with pytest.raises(Cancelled):
        list(engine.stream(request, at_the_second))
    with pytest.raises(DeadlineExceeded):
        list(engine.stream(request, deadline=time.monotonic() - 1))
    assert all(cache.users == 0 for cache in engine.store.caches)


def test_a_model_that_only_fills_says_so() -> None:
    engine = tiny_engine(window=True, slack=None, mask="<pad>")
    with pytest.raises(BadRequest, match="can't weigh"):
        weighed(engine, BEFORE, AFTER_IT, "f")


RENAMED = """\
def area(width, height):
    return width * height


def price(parcel, rate):
    return {} * rate
"""


@pytest.mark.timeout(600)
def test_mini_finds_the_name_that_there_is_likelier(mini_base: Path) -> None:
    before, after = RENAMED.split("{}")
    engine = InfillEngine.load("mini", "cpu")
    was, now = weighed(engine, before, after, "package", "parcel").scores
    assert now > was + 2
