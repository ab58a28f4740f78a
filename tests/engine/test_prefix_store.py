"""Prefix caches between requests: shared, copied, bounded, and never those of a failure."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from engine.attention.kv import KVBuffer
from engine.attention.prefix_cache import PrefixCache, PrefixStore
from engine.backbones.config import parse_config
from engine.backbones.diffusion_gemma import DiffusionGemma
from engine.engine import InfillEngine
from engine.types import InfillRequest, SamplingParams, fill_in_the_middle
from tests.cases import cases
from tests.engine.tiny import (
    random_model,
    tiny_config,
    tiny_dense_engine,
    tiny_engine,
    tiny_profile,
    tiny_tokenizer,
)

SMALL = tiny_config(num_hidden_layers=2, layer_types=["sliding_attention", "full_attention"])
MODEL = random_model(parse_config(SMALL), seed=3)
FEW = SamplingParams(max_steps=1)


def rows_of(cache: PrefixCache) -> Tensor:
    return MODEL.logits(cache.canvas(torch.arange(20)))


def cold(ids: list[int]) -> PrefixCache:
    cache = PrefixCache(MODEL)
    if ids:
        cache.extend(ids)
    return cache


def taken(store: PrefixStore, ids: list[int]) -> PrefixCache:
    """As a request does it: takes, parts with what is not shared, reads the rest."""
    cache, known = store.take(ids)
    if len(cache.ids) > known:
        cache = store.part(cache, known)
    if ids[known:]:
        cache.extend(ids[known:])
    return cache


@torch.inference_mode()
def test_requests_of_one_text_share_a_cache() -> None:
    store = PrefixStore(MODEL, 1 << 30)
    one, other = taken(store, [5, 6, 7]), taken(store, [5, 6, 7, 8])
    assert one is other
    assert one.users == 2
    assert one.ids == [5, 6, 7, 8]
    assert len(store.caches) == 1
    store.give_back(one)
    store.give_back(other)
    assert one.users == 0
    assert taken(store, [5, 6, 7, 8, 9]) is one


@torch.inference_mode()
def test_who_needs_another_text_gets_a_copy_while_somebody_reads_it() -> None:
    store = PrefixStore(MODEL, 1 << 30)
    one = taken(store, [5, 6, 7, 8])
    before = rows_of(one)
    other = taken(store, [5, 6, 7, 9, 9])
    assert other is not one
    assert (one.ids, other.ids) == ([5, 6, 7, 8], [5, 6, 7, 9, 9])
    assert torch.equal(rows_of(one), before)
    torch.testing.assert_close(rows_of(other), rows_of(cold([5, 6, 7, 9, 9])), atol=1e-4, rtol=1e-4)
    assert (one.users, other.users) == (1, 1)
    store.give_back(one)
    again = taken(store, [5, 6, 7, 7])  # nobody reads it any more: it is cut
    assert again is one
    assert again.ids == [5, 6, 7, 7]


operations = st.lists(
    st.tuples(st.sampled_from(["take", "take", "give back", "fail"]), st.integers(0, 999)),
    max_size=30,
)


@torch.inference_mode()
@cases(60)
@given(history=operations, most=st.sampled_from([0, 300_000, 1 << 30]))
def test_whoever_has_a_cache_has_the_rows_of_his_text(
    history: list[tuple[str, int]], most: int
) -> None:
    store, out = PrefixStore(MODEL, most, most=4), list[tuple[PrefixCache, list[int]]]()
    for what, number in history:
        if what == "take":
            ids = [4 + number % 2, *[7] * (number % 5), *range(4, 4 + number % 7)]
            out.append((taken(store, ids), ids))
        elif out:
            cache, _ = out.pop(number % len(out))
            store.give_back(cache, whole=what == "give back")
            assert what == "give back" or cache not in store.caches
        for cache, ids in out:
            assert cache.ids[: len(ids)] == ids
            row, wanted = cache.row(len(ids)), cold(ids).last
            assert row is not None
            torch.testing.assert_close(row, wanted, atol=1e-4, rtol=1e-4)
        for cache in store.caches:
            assert cache.users == sum(cache is one for one, _ in out)
        idle = [cache for cache in store.caches if not cache.users]
        assert not idle or (store.bytes <= most and len(store.caches) <= 4)
    for cache, _ in out:
        store.give_back(cache)
        assert cache.users >= 0
    assert store.bytes <= most
    store.shed()
    assert store.caches == []


@torch.inference_mode()
def test_the_least_recently_used_goes_first() -> None:
    size = cold([4]).bytes
    store = PrefixStore(MODEL, 3 * size)
    texts = [[10 * n + 4, 5, 6, 7] for n in range(3)]
    for ids in texts:
        store.give_back(taken(store, ids))
    store.give_back(taken(store, texts[0]))
    store.give_back(taken(store, [90, 5, 6, 7]))
    assert [cache.ids[0] for cache in store.caches] == [24, 4, 90]
    assert store.bytes <= 3 * size


@torch.inference_mode()
@pytest.mark.parametrize("fails_at", range(4))
def test_a_failed_allocation_leaves_a_cache_as_it_was(
    fails_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Buffers of two layers: four allocations, any of which may fail."""
    ids = list(range(4, 40))
    cache = PrefixCache(MODEL)
    cache.buffer = KVBuffer(MODEL.kv, MODEL.dtype, MODEL.device, growth=1)
    cache.extend(ids)
    before, size = rows_of(cache), cache.bytes
    empty, calls = torch.empty, [0]

    def failing(*arguments: Any, **named: Any) -> Tensor:
        calls[0] += 1
        if calls[0] == fails_at + 1:
            raise torch.OutOfMemoryError("no memory")
        return empty(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "empty", failing)
        with pytest.raises(torch.OutOfMemoryError):
            cache.extend([7] * 50)
    assert calls[0] == fails_at + 1
    assert (cache.ids, cache.bytes, cache.writing) == (ids, size, False)
    assert torch.equal(rows_of(cache), before)
    cache.extend([7] * 50)
    wanted = cold(ids)
    wanted.extend([7] * 50)
    assert torch.equal(rows_of(cache), rows_of(wanted))


@pytest.mark.parametrize("make", [tiny_engine, tiny_dense_engine])
def test_a_request_that_raised_gives_nothing_back(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine: InfillEngine = make()
    request = InfillRequest(fill_in_the_middle("abc(" * 9, ")\n", 4), FEW)
    wanted = engine.fill(request).text
    engine.shed()
    left = [2]
    encode = engine.model.encode

    def failing(*arguments: Any) -> Tensor:
        left[0] -= 1
        if left[0] < 0:
            raise RuntimeError("the device is gone")
        return encode(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(engine.model, "encode", failing)
        with pytest.raises(RuntimeError, match="the device is gone"):
            engine.fill(request)
    assert engine.store.caches == []
    assert engine.fill(request).text == wanted
    assert [cache.users for cache in engine.store.caches] == [0]


def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each span of a prefix had, from now on."""
    sizes: list[int] = []
    span = PrefixCache.span

    def counted(self: PrefixCache, ids: list[int]) -> Any:
        sizes.append(len(ids))
        return span(self, ids)

    monkeypatch.setattr(PrefixCache, "span", counted)
    return sizes


def in_bfloat16() -> InfillEngine:
    model: DiffusionGemma = random_model(parse_config(SMALL), seed=5).to(torch.bfloat16)
    profile = tiny_profile(context=4064, prefill=512)
    return InfillEngine(model, tiny_tokenizer(), profile)


def test_a_typed_character_behind_a_long_prefix_encodes_next_to_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine, text = in_bfloat16(), ""
    while len(engine.tokenizer.encode(text)) < 4000:
        text += f"value = f({len(text)})\n"
    text = text[:-8]
    sizes = encoded(monkeypatch)
    engine.fill(InfillRequest(fill_in_the_middle(text, "\n", 4), FEW))
    assert sum(sizes) > 3900
    for typed in "total = print(self.value, 1)":
        text += typed
        sizes.clear()
        engine.fill(InfillRequest(fill_in_the_middle(text, "\n", 4), FEW))
        assert sum(sizes) <= 3, (text[-9:], sizes)
    assert len(engine.store.caches) == 1


def test_a_second_request_for_a_document_encodes_nothing_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for engine in (in_bfloat16(), tiny_dense_engine()):
        engine.multiple = 1
        request = InfillRequest(fill_in_the_middle("value = (1)\n" * 3, "\n", 4), FEW)
        first = engine.fill(request).text
        with monkeypatch.context() as patch:
            sizes = encoded(patch)
            assert engine.fill(request).text == first
            assert sizes == []


@pytest.mark.timeout(600)
@pytest.mark.parametrize("make", [tiny_engine, tiny_dense_engine])
def test_after_any_edits_the_answer_is_that_of_a_cold_engine(make: Any) -> None:
    """A thousand edits of a few documents, half of them with each kind of model."""
    engine: InfillEngine = make(context=48)
    draw = random.Random(7)
    documents = ["def f(x):\n    return x\n", "import re\n", "", "x = 1\n" * 9]
    for _ in range(500):
        at = draw.randrange(len(documents))
        text = documents[at]
        low = draw.randint(0, len(text))
        high = draw.choice([low, low, min(len(text), low + draw.randint(0, 9))])
        new = draw.choice(["", "a", "(b\n", " print", "ä", "\r\n", "self." * 3])
        documents[at] = (text[:low] + new + text[high:])[-160:]
        cursor = draw.choice([low + len(new), draw.randint(0, len(documents[at]))])
        before, after = documents[at][:cursor], documents[at][cursor:]
        request = InfillRequest(
            fill_in_the_middle(before, after, draw.choice([1, 3, 6])), FEW, seed=draw.randrange(9)
        )
        fresh = InfillEngine(engine.model, engine.tokenizer, engine.profile)
        warm, wanted = engine.fill(request), fresh.fill(request)
        assert (warm.text, warm.confidence) == (wanted.text, wanted.confidence)
    assert all(cache.users == 0 for cache in engine.store.caches)
