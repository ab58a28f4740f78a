"""Reading ahead changes how many passes a search takes, and nothing of what it finds."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.attention.prefix_cache import PrefixCache
from engine.attention.span import forward
from engine.attention.token_tree import Hole, TokenTree, Written
from engine.choice.ahead import ROWS, Ahead
from engine.choice.beam import Beam
from engine.text.typed import Writable
from tests.engine.tiny import END, MASK, cases, tiny_dense, tiny_dense_tokenizer

TOKENIZER = tiny_dense_tokenizer()
# A mask that is embedded like a token of text guesses at least something.
MODELS = [tiny_dense(seed, like=70) for seed in range(3)]
ALLOWED = torch.ones(END + 1, dtype=torch.bool).index_fill(0, torch.arange(4), False)

tokens = st.integers(4, END - 1)


def search(
    which: int, prefix: list[int], hole: Hole, most: int, width: int, ahead: bool
) -> tuple[list[Written], int]:
    """What is found, and after how many passes."""
    cache = PrefixCache(MODELS[which])
    cache.extend(prefix)
    tree = TokenTree(cache, hole=hole)
    writable = Writable(TOKENIZER, b"", ALLOWED)
    beam = Beam(tree, writable, lambda token: token == END, most, width, blank=True)
    reader = Ahead(tree, writable, [*prefix, *hole.after], END)
    passes = 0
    while not beam.done:
        unread = tree.unread
        asked = reader.add(beam.live[0], prefix) if ahead else (None, 0)
        rows = tree.unread + asked[1]
        assert rows <= max(ROWS, -(-unread // ROWS) * ROWS), "no row is read that costs anything"
        tree.took(forward(tree.model, tree.spans(*asked)))
        reader.learn()
        passes += 1
        beam.step()
        while ahead and not beam.done and tree.knows([one.place for one in beam.live]):
            beam.step()
    return beam.found, passes


@torch.inference_mode()
@cases(150)
@given(
    which=st.integers(0, len(MODELS) - 1),
    prefix=st.lists(tokens, min_size=1, max_size=30),
    after=st.lists(tokens, max_size=9),
    most=st.integers(1, 12),
    width=st.integers(1, 8),
)
def test_what_is_found_is_the_same(
    which: int, prefix: list[int], after: list[int], most: int, width: int
) -> None:
    hole = Hole(16, after, MASK)
    plain, passes = search(which, prefix, hole, most, width, ahead=False)
    found, fewer = search(which, prefix, hole, most, width, ahead=True)
    assert [one.ids for one in found] == [one.ids for one in plain]
    for one, other in zip(found, plain, strict=True):
        assert abs(one.likelihood - other.likelihood) < 1e-3
    assert fewer <= passes


@torch.inference_mode()
def test_what_was_said_before_takes_fewer_passes() -> None:
    """A model that goes on as the text did before: several steps of a pass."""
    saved = 0
    for seed in range(40):
        draw = torch.Generator().manual_seed(seed)
        once = torch.randint(4, END, (6,), generator=draw).tolist()
        prefix = once * 4
        hole = Hole(16, once[:2], MASK)
        _, passes = search(seed % 3, prefix, hole, 10, 1, ahead=False)
        saved += passes - search(seed % 3, prefix, hole, 10, 1, ahead=True)[1]
    assert saved > 0
