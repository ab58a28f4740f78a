"""The prefix cache changes the speed, never the result: to the last bit in float32."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from engine.attention.prefix_cache import GROWTH, PrefixCache
from engine.backbones.config import parse_config
from engine.backbones.diffusion_gemma import DiffusionGemma
from engine.text.prompt import prefix_ids
from tests.cases import cases
from tests.engine.tiny import random_model, tiny_config, tiny_tokenizer

CHUNK = 16
VOCAB = tiny_config()["text_config"]["vocab_size"]


@pytest.fixture(scope="module")
def model() -> DiffusionGemma:
    return random_model(parse_config(tiny_config()), seed=3)


def bring(cache: PrefixCache, ids: list[int]) -> None:
    """As the engine does it: what is shared is kept up to a chunk's end, the rest in chunks."""
    cache.keep(ids, CHUNK)
    while len(cache.ids) < len(ids):
        at = len(cache.ids)
        cache.extend(ids[at : at + CHUNK])


def canvas_of(cache: PrefixCache) -> Tensor:
    return cache.model.logits(cache.canvas(torch.arange(20)))


def random_ids(count: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, VOCAB, (count,), generator=generator).tolist()


def cold(model: DiffusionGemma, ids: list[int]) -> Tensor:
    cache = PrefixCache(model)
    bring(cache, ids)
    return canvas_of(cache)


edits = st.one_of(
    st.tuples(st.just("append"), st.integers(0, 40), st.integers(0, 99)),
    st.tuples(st.just("cut"), st.integers(0, 120), st.just(0)),
    st.tuples(st.just("change"), st.integers(0, 120), st.integers(0, 99)),
    st.tuples(st.just("canvas"), st.integers(1, 60), st.integers(0, 99)),
)


@torch.inference_mode()
@cases(120)
@given(history=st.lists(edits, min_size=1, max_size=6), length=st.integers(0, 100))
def test_whatever_came_before_the_answer_is_that_of_a_fresh_cache(
    model: DiffusionGemma, history: list[tuple[str, int, int]], length: int
) -> None:
    cache, ids = PrefixCache(model), random_ids(length, seed=0)
    bring(cache, ids)
    for what, count, seed in history:
        if what == "append":
            ids = ids + random_ids(count, seed)
        elif what == "cut":
            ids = ids[:count]
        elif what == "change" and count < len(ids):
            ids = [*ids[:count], (ids[count] + 1 + seed) % VOCAB, *ids[count + 1 :]]
        elif what == "canvas":
            cache.canvas(torch.tensor(random_ids(count, seed)))
        bring(cache, ids)
        assert cache.ids == ids
    assert torch.equal(canvas_of(cache), cold(model, ids))


@torch.inference_mode()
def test_buffers_that_grow_keep_what_they_hold(model: DiffusionGemma) -> None:
    ids = random_ids(GROWTH + 100, seed=1)
    cache = PrefixCache(model)
    bring(cache, ids[: GROWTH - 4])
    before = cache.bytes
    small = canvas_of(cache)  # would not fit behind the prefix, and has a buffer of its own
    assert cache.bytes == before
    assert torch.equal(small, cold(model, ids[: GROWTH - 4]))
    bring(cache, ids)
    assert cache.bytes > before
    assert torch.equal(canvas_of(cache), cold(model, ids))


@torch.inference_mode()
def test_pieces_of_any_size_agree_but_for_rounding(model: DiffusionGemma) -> None:
    ids = random_ids(90, seed=2)
    whole = PrefixCache(model)
    hidden = whole.extend(ids)
    for size in (1, 7, 30):
        cache = PrefixCache(model)
        pieces = [cache.extend(ids[at : at + size]) for at in range(0, len(ids), size)]
        assert float((torch.cat(pieces) - hidden).abs().max()) < 1e-4
        assert float((canvas_of(cache) - canvas_of(whole)).abs().max()) < 1e-4


@torch.inference_mode()
def test_a_canvas_needs_no_prefix(model: DiffusionGemma) -> None:
    assert bool(canvas_of(PrefixCache(model)).isfinite().all())


def test_only_what_is_shared_up_to_a_multiple_is_kept(model: DiffusionGemma) -> None:
    cache = PrefixCache(model)
    ids = random_ids(50, seed=4)
    bring(cache, ids)
    assert cache.shared(ids) == 50
    assert cache.shared([*ids[:37], 0, 0]) in (37, 38)
    assert cache.shared([]) == 0
    assert cache.keep(ids, CHUNK) == 48
    # What the last id leads to is known of every length.
    assert cache.keep(ids[:20]) == 20
    assert cache.ids == ids[:20]


@torch.inference_mode()
def test_the_last_row_is_known_at_every_length(model: DiffusionGemma) -> None:
    cache = PrefixCache(model)
    assert cache.last is None
    hidden = cache.extend(random_ids(10, seed=5))
    assert cache.last is not None
    assert torch.equal(cache.last, hidden[-1:])
    cache.cut(4)
    assert torch.equal(cache.last, hidden[3:4])
    cache.extend(random_ids(3, seed=6))
    assert torch.equal(cache.row(4), hidden[3:4])  # type: ignore[arg-type]
    cache.cut(0)
    assert cache.last is None


@cases(150)
@given(
    lines=st.integers(0, 120),
    budget=st.integers(1, 90),
    bos=st.sampled_from([None, 2]),
    newline=st.sampled_from(["\n", "", " "]),
)
def test_a_prompt_is_the_end_of_the_text_within_its_budget(
    lines: int, budget: int, bos: int | None, newline: str
) -> None:
    tokenizer = tiny_tokenizer()
    text = newline.join(f"x{i} = print({i})" for i in range(lines))
    ids = prefix_ids(text, tokenizer, bos, budget)
    assert len(ids) <= budget
    rest = ids
    if bos is not None:
        assert ids[0] == bos
        rest = ids[1:]
    assert tokenizer.bytes_of(tokenizer.encode(text)).endswith(tokenizer.bytes_of(rest))
    if len(tokenizer.encode(text)) + (bos is not None) <= budget:
        assert tokenizer.text_of(rest) == text
    elif newline == "\n" and budget > 40:
        assert len(ids) > budget // 4  # these tokens are short, so that a jump is half the budget


def test_the_left_edge_moves_seldom() -> None:
    """With every key typed the ids change at their end only, but for a jump now and then."""
    tokenizer = tiny_tokenizer()
    text = "\n".join(f"value_{i} = {i}" for i in range(60))
    jumps, before = 0, prefix_ids(text, tokenizer, 2, 200)
    for typed in range(400):
        text += "\n" if typed % 20 == 19 else "abcdefghij"[typed % 10]
        now = prefix_ids(text, tokenizer, 2, 200)
        shared = next(
            (i for i, (a, b) in enumerate(zip(before, now, strict=False)) if a != b), len(before)
        )
        jumps += shared < len(before) // 2
        before = now
    assert jumps <= 12
