"""A tree of continuations gives each of them the rows that it has alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from engine.attention.kv import KVBuffer
from engine.attention.prefix_cache import GROWTH, PrefixCache, canvas_span
from engine.attention.span import forward
from engine.attention.token_tree import ROOT, TokenTree
from engine.backbones.config import parse_config
from engine.backbones.diffusion_gemma import DiffusionGemma
from engine.diffusion.denoiser import CanvasDenoiser
from tests.cases import cases
from tests.engine.tiny import random_model, tiny_config

VOCAB = tiny_config()["text_config"]["vocab_size"]
WINDOW = tiny_config()["text_config"]["sliding_window"]
CANVAS = torch.arange(20)

tokens = st.integers(0, VOCAB - 1)
node = st.tuples(st.integers(0, 3), st.integers(0, 99))
"""A token, of few so that some are there already, and which place (or the root) is above it."""


@pytest.fixture(scope="module")
def model() -> DiffusionGemma:
    return random_model(parse_config(tiny_config()), seed=3)


def cached(model: DiffusionGemma, prefix: list[int]) -> PrefixCache:
    cache = PrefixCache(model)
    cache.extend(prefix)
    return cache


def beside(tree: TokenTree, cache: PrefixCache, soft: Tensor | None = None) -> Tensor:
    """The canvas' hidden rows, in one pass with what waits in the tree."""
    own = KVBuffer(cache.model.kv, cache.model.dtype, cache.model.device, growth=1)
    canvas = canvas_span(cache, len(cache.ids), own, CANVAS, soft)
    hidden, *others = forward(cache.model, [canvas, *tree.spans()])
    tree.took(others)
    return hidden


def same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
@cases(100)
@given(
    prefix=st.lists(tokens, min_size=1, max_size=3 * WINDOW),
    calls=st.lists(st.lists(node, max_size=6), min_size=1, max_size=4),
    room=st.sampled_from([1, 64]),
    by_a_canvas=st.booleans(),
)
def test_every_row_is_that_of_its_own_text_alone(
    model: DiffusionGemma,
    prefix: list[int],
    calls: list[list[tuple[int, int]]],
    room: int,
    by_a_canvas: bool,
) -> None:
    cache = cached(model, prefix)
    canvas = cache.canvas(CANVAS)
    tree = TokenTree(cache, room=room)
    texts: dict[int, list[int]] = {ROOT: []}
    for call in calls:
        for token, choice in call:
            parent = choice % len(texts) - 1
            place = tree.add(token, parent)
            assert texts.setdefault(place, [*texts[parent], token]) == [*texts[parent], token]
        if by_a_canvas:
            same(beside(tree, cache), canvas)
        else:
            tree.encode()
        assert not tree.pending
        for row, text in zip(tree.rows(list(texts)), texts.values(), strict=True):
            same(row, cached(model, [*prefix, *text]).last[0])  # type: ignore[index]
    assert len({tuple(text) for text in texts.values()}) == len(texts), "each text is there once"
    assert cache.ids == prefix
    same(cache.canvas(CANVAS), canvas)


@torch.inference_mode()
def test_a_text_longer_than_the_window_sees_no_further_than_it(model: DiffusionGemma) -> None:
    text = list(range(2 * WINDOW))
    tree = TokenTree(cached(model, [5, 6]))
    places = tree.path(text)
    tree.encode()
    last = cached(model, [5, 6, *text]).last
    assert last is not None
    same(tree.rows(places[-1:]), last)


@torch.inference_mode()
def test_a_tree_that_outgrows_its_buffers_keeps_what_it_has(model: DiffusionGemma) -> None:
    tree = TokenTree(cached(model, [7]), room=1)
    text = [9] * (GROWTH + 10)
    for start in range(0, len(text), 300):
        tree.path(text[: start + 300])
        tree.encode()
    last = cached(model, [7, *text]).last
    assert last is not None
    same(tree.rows([len(text) - 1]), last)


@torch.inference_mode()
def test_a_canvas_conditions_the_same_beside_a_tree(model: DiffusionGemma) -> None:
    cache = cached(model, list(range(30)))
    soft = model.embed(CANVAS + 3)
    tree = TokenTree(cache)
    tree.path([1, 2, 3])
    hidden = beside(tree, cache, soft)
    same(hidden, cache.canvas(CANVAS, soft))
    assert float((hidden - cache.canvas(CANVAS)).abs().max()) > 1e-2


@torch.inference_mode()
@cases(60)
@given(
    prefix=st.lists(tokens, min_size=1, max_size=40),
    readings=st.lists(st.lists(st.integers(0, 3), min_size=20, max_size=20), max_size=4),
    known=st.integers(0, 19),
)
def test_a_bound_model_reads_what_encoding_it_all_gives(
    model: DiffusionGemma, prefix: list[int], readings: list[list[int]], known: int
) -> None:
    cache = cached(model, prefix)
    bound = CanvasDenoiser(cache, tree=TokenTree(cache))
    free = known <= CANVAS
    for ids in readings:
        canvas = torch.tensor(ids)
        logits, expected = bound.ask(canvas, None, free, ids[:known])()
        same(logits, model.logits(cache.canvas(canvas)[free]))
        whole = PrefixCache(model).extend([*prefix, *ids[:known]])
        assert expected is not None
        same(expected, model.logits(whole[len(prefix) - 1 :]))
