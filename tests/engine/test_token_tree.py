"""A tree of continuations gives each of them the rows that it has alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from engine.config import parse_config
from engine.model import DiffusionGemma
from engine.prefix_cache import GROWTH, PrefixCache
from engine.token_tree import ROOT, TokenTree
from tests.engine.tiny import cases, random_model, tiny_config

VOCAB = tiny_config()["text_config"]["vocab_size"]
WINDOW = tiny_config()["text_config"]["sliding_window"]

tokens = st.integers(0, VOCAB - 1)
node = st.tuples(tokens, st.integers(0, 99))
"""A token, and which of the places before it (the root included) is its parent."""


@pytest.fixture(scope="module")
def model() -> DiffusionGemma:
    return random_model(parse_config(tiny_config()), seed=3)


def alone(model: DiffusionGemma, prefix: list[int], ids: list[int]) -> Tensor:
    cache = PrefixCache(model)
    cache.extend(prefix)
    return cache.extend(ids)[-1]


@torch.inference_mode()
@cases(100)
@given(
    prefix=st.lists(tokens, min_size=1, max_size=3 * WINDOW),
    calls=st.lists(st.lists(node, min_size=1, max_size=6), min_size=1, max_size=4),
)
def test_every_row_is_that_of_its_own_text_alone(
    model: DiffusionGemma, prefix: list[int], calls: list[list[tuple[int, int]]]
) -> None:
    cache = PrefixCache(model)
    cache.extend(prefix)
    tree = TokenTree(cache, sum(map(len, calls)))
    texts: list[list[int]] = []
    for call in calls:
        parents: list[int] = []
        for token, choice in call:
            parent = choice % (len(texts) + 1) - 1
            parents.append(parent)
            texts.append([*(texts[parent] if parent != ROOT else []), token])
        rows = tree.grow([token for token, _ in call], parents)
        for row, text in zip(rows, texts[-len(call) :], strict=True):
            torch.testing.assert_close(row, alone(model, prefix, text), atol=1e-4, rtol=1e-4)
    assert len(tree) == len(texts)
    assert cache.ids == prefix


@torch.inference_mode()
def test_a_text_longer_than_the_window_sees_no_further_than_it(model: DiffusionGemma) -> None:
    text = list(range(2 * WINDOW))
    cache = PrefixCache(model)
    cache.extend([5, 6])
    rows = TokenTree(cache, len(text)).grow(text, range(ROOT, len(text) - 1))
    torch.testing.assert_close(rows[-1], alone(model, [5, 6], text), atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_a_tree_outlasts_no_room_and_leaves_the_prefix_as_it_was(model: DiffusionGemma) -> None:
    cache = PrefixCache(model)
    cache.extend([7] * (GROWTH - 3))
    tree = TokenTree(cache, 12)
    first = tree.grow([1, 2, 3], [ROOT, 0, 1])
    tree.grow([4] * 9, [2, *range(3, 11)])  # past the end of the buffers as they were
    again = TokenTree(cache, 12).grow([1, 2, 3], [ROOT, 0, 1])
    assert torch.equal(first, again)
    assert cache.ids == [7] * (GROWTH - 3)
