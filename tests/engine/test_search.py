"""The search finds what is likeliest, and says how likely it is; guesses change the passes only."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.attention.prefix_cache import PrefixCache
from engine.attention.span import forward
from engine.attention.token_tree import ROOT, Hole, TokenTree, Written
from engine.choice.ahead import Ahead
from engine.choice.search import Search
from engine.text.typed import Writable
from tests.cases import cases
from tests.engine.tiny import END, MASK, tiny_dense, tiny_dense_tokenizer

TOKENIZER = tiny_dense_tokenizer()
# A mask that is embedded like a token of text guesses at least something.
MODELS = [tiny_dense(seed, like=70) for seed in range(3)]
ALLOWED = torch.ones(END + 1, dtype=torch.bool).index_fill(0, torch.arange(4), False)

tokens = st.integers(4, END - 1)
prefixes = st.lists(tokens, min_size=1, max_size=30)


def tree_of(which: int, prefix: list[int], hole: Hole) -> TokenTree:
    cache = PrefixCache(MODELS[which])
    cache.extend(prefix)
    return TokenTree(cache, hole=hole)


def search(
    which: int,
    prefix: list[int],
    hole: Hole,
    most: int,
    allowed: torch.Tensor = ALLOWED,
    typed: bytes = b"",
    guesses: bool = True,
    rows: int = 16,
    width: int = 8,
    margin: float = 1.5,
    end_cost: float = 0.0,
) -> tuple[Search, int]:
    """The search when it is done, and after how many passes something was as long as it may be."""
    tree = tree_of(which, prefix, hole)
    writable = Writable(TOKENIZER, typed, allowed)
    ahead = Ahead(writable, prefix, hole.after, END) if guesses else Silent(writable, [], [], END)
    found = Search(tree, writable, END, most, ahead, margin, end_cost, rows, width)
    passes, first = 1, True
    while not found.done:
        spans = found.spans()
        if not first:
            assert sum(map(len, spans)) <= rows
        found.took(forward(tree.model, spans))
        first = False
        passes += found.cut is None
    return found, passes


class Silent(Ahead):
    """Guesses nothing."""

    def masks(self, room: int) -> int:
        return 0

    def guess(self, ids: tuple[int, ...]) -> list[int]:
        return []


def likelihood(tree: TokenTree, ids: tuple[int, ...], may_come: torch.Tensor) -> float:
    """Of these tokens and their end, read one by one."""
    total, place = 0.0, ROOT
    for token in [*ids, END]:
        tree.encode()
        assert may_come[token]
        total += float(tree.log_probs([place])[0, token])
        place = tree.add(token, place)
    return total


def every(tree: TokenTree, most: int, may_come: torch.Tensor) -> list[Written]:
    """All answers of at most `most` tokens, by reading every continuation."""
    level, ended = [Written()], list[Written]()
    tree.encode()
    for length in range(most + 1):
        logs = tree.log_probs([one.place for one in level])
        ended += [
            Written(one.ids, one.likelihood + float(row[END]), one.place)
            for one, row in zip(level, logs, strict=True)
        ]
        if length == most:
            break
        words = [word for word in range(END) if bool(may_come[word])]
        level = [
            Written((*one.ids, word), one.likelihood + float(row[word]), tree.add(word, one.place))
            for one, row in zip(level, logs, strict=True)
            for word in words
        ]
        tree.encode()
    return ended


@torch.inference_mode()
@cases(60)
@given(
    which=st.integers(0, len(MODELS) - 1),
    prefix=prefixes,
    after=st.lists(tokens, max_size=9),
    words=st.lists(tokens, min_size=1, max_size=4, unique=True),
    most=st.integers(1, 3),
    margin=st.floats(0.1, 6),
    guesses=st.booleans(),
)
def test_all_that_is_near_the_likeliest_is_found(
    which: int,
    prefix: list[int],
    after: list[int],
    words: list[int],
    most: int,
    margin: float,
    guesses: bool,
) -> None:
    """Without a bound on its width, against reading every continuation of a few words."""
    hole = Hole(16, after, MASK)
    few = torch.zeros_like(ALLOWED).index_fill(0, torch.tensor([*words, END]), True)
    plain = every(tree_of(which, prefix, hole), most, few)
    found, _ = search(which, prefix, hole, most, few, guesses=guesses, width=1 << 20, margin=margin)
    top = max(one.likelihood for one in plain)
    assert abs(found.best.likelihood - top) < 1e-3
    near = {one.ids for one in plain if one.likelihood > top - margin + 1e-3}
    assert near <= {one.ids for one in found.likeliest}
    assert {one.ids for one in found.likeliest} <= {
        one.ids for one in plain if one.likelihood > top - margin - 1e-3
    }


@torch.inference_mode()
@cases(100)
@given(
    which=st.integers(0, len(MODELS) - 1),
    prefix=prefixes,
    after=st.lists(tokens, max_size=9),
    most=st.integers(1, 12),
    rows=st.integers(1, 24),
    end_cost=st.floats(0, 3),
)
def test_what_is_found_says_how_likely_it_is(
    which: int, prefix: list[int], after: list[int], most: int, rows: int, end_cost: float
) -> None:
    hole = Hole(16, after, MASK)
    found, _ = search(which, prefix, hole, most, rows=rows, end_cost=end_cost)
    assert len({one.ids for one in found.found}) == len(found.found)
    assert found.found or found.cut is not None
    for one in found.likeliest:
        assert len(one.ids) <= most
        plain = likelihood(tree_of(which, prefix, hole), one.ids, ALLOWED)
        assert abs(plain - end_cost - one.likelihood) < 1e-3


@torch.inference_mode()
def test_guesses_save_passes_where_the_text_repeats_itself() -> None:
    saved = 0
    for seed in range(40):
        draw = torch.Generator().manual_seed(seed)
        once = [int(word) for word in torch.randint(4, END, (2,), generator=draw)]
        hole = Hole(16, once[:2], MASK)
        few = torch.zeros_like(ALLOWED).index_fill(0, torch.tensor([*once[:2], END]), True)
        _, passes = search(seed % 3, once * 9, hole, 10, few, guesses=False, end_cost=99)
        _, fewer = search(seed % 3, once * 9, hole, 10, few, end_cost=99)
        saved += passes - fewer
    assert saved > 0


@torch.inference_mode()
def test_a_word_that_was_typed_in_part_is_gone_on_with() -> None:
    hole = Hole(16, [], MASK)
    for which in range(len(MODELS)):
        found, _ = search(which, TOKENIZER.encode("x = "), hole, 12, typed=b"pri", margin=9.0)
        for one in found.found:
            assert TOKENIZER.bytes_of(one.ids).startswith(b"pri")
        assert found.found or found.cut is not None
