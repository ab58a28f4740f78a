"""What the encoder writes by itself."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.attention.prefix_cache import PrefixCache
from engine.attention.token_tree import TokenTree
from engine.choice.beam import Beam, Written, goes_on, largest
from engine.text.typed import Writable
from tests.cases import cases
from tests.engine.tiny import tiny_engine

ENGINE = tiny_engine(seed=4)
MODEL, TOKENIZER = ENGINE.model, ENGINE.tokenizer
ALLOWED = (ENGINE.banned == 0).index_fill(0, torch.tensor(TOKENIZER.id_of("<slack>")), False)

texts = st.text("ab =(1)\n", max_size=12)
behind = st.sampled_from(["\n", "\n  b", ")", "= 1"])


def cached(text: str) -> PrefixCache:
    cache = PrefixCache(MODEL)
    cache.extend([2, *TOKENIZER.encode(text)])
    return cache


def written(
    before: str, after: str, most: int, width: int = 4, typed: str = "", margin: float = 1e9
) -> list[Written]:
    tree = TokenTree(cached(before))
    writable = Writable(TOKENIZER, typed.encode(), ALLOWED)
    beam = Beam(tree, writable, goes_on(TOKENIZER, after.encode()), most, width, margin)
    steps = 0
    while not beam.done:
        tree.encode()
        beam.step()
        steps += 1
    assert steps <= most + 1
    beam.step()
    assert not tree.pending
    return beam.found


def ends(after: str, token: int) -> bool:
    own = TOKENIZER.bytes_of([token])
    return own.startswith(b"\n") if after[0] == "\n" else after.encode().startswith(own)


@cases(200)
@given(
    values=st.lists(st.integers(-9, 9), min_size=1, max_size=7),
    rows=st.integers(1, 3),
    size=st.integers(1, 3000),
    count=st.integers(1, 4),
)
def test_the_largest_are_those_of_topk(values: list[int], rows: int, size: int, count: int) -> None:
    generator = torch.Generator().manual_seed(len(values) * size)
    drawn = torch.randint(len(values), (rows, size), generator=generator)
    table = torch.tensor(values, dtype=torch.float32)[drawn]
    found, ids = largest(table, count)
    assert torch.equal(found, table.topk(min(count, size)).values)
    assert torch.equal(table.gather(1, ids), found)
    assert all(len(set(row)) == len(row) for row in ids.tolist())


@torch.inference_mode()
@cases(60)
@given(before=texts, after=behind, most=st.integers(1, 10), width=st.integers(1, 5))
def test_what_is_written_says_how_likely_it_is(
    before: str, after: str, most: int, width: int
) -> None:
    found = written(before, after, most, width)
    assert len(found) <= width
    assert len({one.ids for one in found}) == len(found)
    for one in found:
        assert TOKENIZER.bytes_of(one.ids).strip()
        assert 1 <= len(one.ids) <= most
        assert all(ALLOWED[token] for token in one.ids)
        plain, likelihood = cached(before), 0.0
        for token in one.ids:
            assert plain.last is not None
            assert not ends(after, token)
            likelihood += float(MODEL.logits(plain.last)[0].log_softmax(-1)[token])
            plain.extend([token])
        assert plain.last is not None
        logs = MODEL.logits(plain.last)[0].log_softmax(-1)
        end = max(float(logs[i]) for i in range(len(TOKENIZER)) if ALLOWED[i] and ends(after, i))
        assert abs(likelihood + end - one.likelihood) < 1e-3


@torch.inference_mode()
@cases(30)
@given(before=texts, after=behind)
def test_one_is_greedy_decoding(before: str, after: str) -> None:
    plain, greedy = cached(before), list[int]()
    while len(greedy) < 8:
        assert plain.last is not None
        order = MODEL.logits(plain.last)[0].masked_fill(~ALLOWED, -torch.inf).argsort()
        likeliest = order.flip(0).tolist()
        if TOKENIZER.bytes_of(greedy).strip() and ends(after, likeliest[0]):
            assert [one.ids for one in written(before, after, 8, 1)] == [tuple(greedy)]
            return
        greedy.append(next(token for token in likeliest if not ends(after, token)))
        plain.extend(greedy[-1:])
    assert all(len(one.ids) == 8 for one in written(before, after, 8, 1))


@torch.inference_mode()
def test_a_wider_search_finds_nothing_less_likely() -> None:
    for before in ("", "a = ", "print(", "return "):
        best = [
            max((one.likelihood for one in written(before, "\n", 6, width)), default=-torch.inf)
            for width in (1, 64)
        ]
        assert best[1] >= best[0] - 1e-3
        assert best[1] > -torch.inf


@torch.inference_mode()
@cases(40)
@given(before=texts, after=behind, margin=st.floats(0.1, 6))
def test_what_is_much_less_likely_than_another_one_is_not_looked_for(
    before: str, after: str, margin: float
) -> None:
    everything, near = written(before, after, 8, 6), written(before, after, 8, 6, margin=margin)
    top = max((one.likelihood for one in everything), default=0.0)
    for one in everything:
        if one.likelihood > top - margin:
            assert one.ids in {other.ids for other in near}


@torch.inference_mode()
def test_a_word_that_was_typed_in_part_is_gone_on_with() -> None:
    found = written("x = ", "\n", 12, 32, typed="pri")
    assert found
    assert all(TOKENIZER.bytes_of(one.ids).startswith(b"pri") for one in found)


@torch.inference_mode()
def test_what_was_typed_is_not_taken_for_the_text_behind() -> None:
    found = written("[a for a in", " print]", 12, 64, typed=" ")
    assert any(TOKENIZER.bytes_of(one.ids).startswith(b" p") for one in found)
    assert all(len(TOKENIZER.bytes_of(one.ids)) > 1 for one in found)
