"""Draft and verify: in fewer passes exactly the text that a token a pass gives."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.attention.batch import Batch
from engine.attention.prefix_cache import PrefixCache
from engine.attention.token_tree import ROOT, Hole, TokenTree
from engine.backbones.dense import Dense
from engine.diffusion.lookahead import AHEAD, DRAWN, LEAST, Look, look_ahead
from engine.diffusion.rng import Draws
from engine.text.typed import Writable
from tests.cases import cases
from tests.engine.tiny import END, MASK, tiny_dense, tiny_dense_tokenizer

TOKENIZER = tiny_dense_tokenizer()
MODELS = [
    tiny_dense(seed, spread, like=like)
    for seed, (spread, like) in enumerate([(0.3, None), (0.3, 80), (0.1, 90), (0.15, 100)])
]
# Says again and again what it reads, as long as it has a token for it; its masks guess LIKE.
LIKE, SAME = 90, len(MODELS)
MODELS.append(tiny_dense(4, 0.005, like=LIKE))
TEXT = torch.tensor([i not in TOKENIZER.special for i in range(END + 1)])


@dataclass(frozen=True)
class Case:
    """A hole in a text, of a model. ends: by how much its end is made likelier."""

    model: int
    prefix: list[int]
    after: list[int]
    slots: int
    typed: bytes
    fixed: bool
    few: int  # so many tokens may be written: with few of them guesses are right more often

    @property
    def end(self) -> int | None:
        return None if self.fixed else END

    @property
    def backbone(self) -> Dense:
        return MODELS[self.model]

    def tree(self) -> TokenTree:
        cache = PrefixCache(self.backbone)
        cache.extend(self.prefix)
        return TokenTree(cache, hole=Hole(self.slots, self.after, MASK))

    def writable(self) -> Writable:
        allowed = TEXT.clone()
        allowed[4 + self.few : 4 + 256] = False
        for byte in self.typed:  # what was typed can always be written
            allowed[list(TOKENIZER.starting_with(bytes([byte])))] = True
        allowed[END] = not self.fixed
        return Writable(TOKENIZER, self.typed, allowed)


tokens = st.integers(4, END - 1)
some = st.builds(
    Case,
    st.integers(0, len(MODELS) - 1),
    st.lists(tokens, min_size=1, max_size=12),
    st.lists(tokens, max_size=6),
    st.integers(1, 16),
    st.sampled_from([b"", b"", b"pri", b" ret", "ä".encode(), b"\n    "]),
    st.booleans(),
    st.sampled_from([2, 20, 256]),
)


def greedy(it: Case, draws: Draws | None = None) -> list[int]:
    """One token a pass in the same tree."""
    tree, writable, ids, place = it.tree(), it.writable(), list[int](), ROOT
    while True:
        tree.encode()
        logits = tree.model.logits(tree.rows([place]))[0]
        logits = logits.masked_fill(~writable.next(ids), -torch.inf)
        token = int(logits.argmax())
        if draws is not None:
            probs = logits.softmax(-1)
            likely = probs.sort(descending=True, stable=True)[0][:DRAWN]
            likely = likely[likely >= LEAST * likely[0]]
            reach = likely.cumsum(0)
            at = float(draws.uniform(0, [len(ids)], Draws.TOKEN)) * float(reach[-1])
            token = int(probs.topk(DRAWN).indices[min(int((reach <= at).sum()), len(likely) - 1)])
        if token == it.end or len(ids) >= it.slots:
            return ids
        ids.append(token)
        place = tree.add(token, place)


def looks(
    it: Case,
    draft: list[int] | None = None,
    strength: float = 1.0,
    masks: int = 6,
    sure: float = 0.5,
    draws: Draws | None = None,
) -> list[Look]:
    """All passes; each was asked for before it came."""
    batch, writable = Batch(it.backbone), it.writable()
    passes = look_ahead(
        *(it.tree(), batch, writable, it.end, it.slots, draft, strength, masks, sure), draws=draws
    )
    events = list(passes)
    assert [one is None for one in events] == [True, False] * (len(events) // 2)
    found = [one for one in events if one is not None]
    assert [one.step for one in found] == list(range(1, len(found) + 1))
    assert [one.settled is None for one in found] == [True] * (len(found) - 1) + [False]
    for one in found:
        assert len(one.certainty) == len(one.ids) <= it.slots
        assert len(one.hope) == len(one.ahead)
        assert len(one.ids) + len(one.ahead) <= it.slots
        assert END not in one.ids
        assert all(0 <= each <= 1.0001 for each in (*one.certainty, *one.hope))
        allowed = it.writable()
        assert all(allowed.next(one.ids[:i])[token] for i, token in enumerate(one.ids))
    for one, later in pairwise(found):
        assert later.ids[: len(one.ids)] == one.ids, "what is decided stays"
    last = found[-1]
    assert last.ahead == []
    assert last.settled == "settled" or len(last.ids) == it.slots
    return found


def answer(it: Case, *rest: object, **more: object) -> list[int]:
    return looks(it, *rest, **more)[-1].ids  # type: ignore[arg-type]


@torch.inference_mode()
@cases(200)
@given(it=some, masks=st.integers(0, 6), sure=st.sampled_from([0.0, 1e-3, 0.05, 0.5, 1.0]))
def test_it_is_the_text_of_a_token_a_pass(it: Case, masks: int, sure: float) -> None:
    found = looks(it, masks=masks, sure=sure)
    assert found[-1].ids == greedy(it)
    assert len(found) <= len(found[-1].ids) + 1
    if masks == 0:
        assert len(found) == len(found[-1].ids) + 1


@torch.inference_mode()
@cases(100)
@given(it=some, masks=st.integers(0, 6), seed=st.integers(1, 2**63 - 1))
def test_what_is_drawn_is_the_text_of_a_token_a_pass_too(it: Case, masks: int, seed: int) -> None:
    draws = Draws(seed, torch.device("cpu"))
    assert looks(it, masks=masks, sure=0.05, draws=draws)[-1].ids == greedy(it, draws)


@torch.inference_mode()
def test_another_seed_draws_something_else() -> None:
    it = Case(0, [2, 30], [9], 8, b"", True, 256)
    found = {tuple(answer(it, draws=Draws(seed, torch.device("cpu")))) for seed in range(1, 9)}
    assert len(found) > 4


@torch.inference_mode()
def test_some_guesses_stand() -> None:
    """So that the above can fail, and for what all of this is done."""
    passes = [
        len(looks(Case(SAME, [2, LIKE], [], 16, b"", True, 256), sure=0.0, masks=masks))
        for masks in (0, 2, 6)
    ]
    assert passes[0] == 17
    assert passes[0] > passes[1] > passes[2]


@torch.inference_mode()
def test_a_hole_ends_where_the_model_ends_it_and_a_full_one_is_full() -> None:
    ends = [
        looks(Case(model, [2, first], [9], 6, b"", fixed, 256))[-1]
        for model in range(len(MODELS))
        for first in range(4, 200, 9)
        for fixed in (False, True)
    ]
    kinds = {(one.settled, len(one.ids) == 6) for one in ends}
    assert ("full", True) in kinds
    assert ("settled", False) in kinds
    assert ("full", False) not in kinds


@torch.inference_mode()
@pytest.mark.parametrize("typed", [b"print", b" return x", "ää".encode(), b"qqq"])
@pytest.mark.parametrize("sure", [0.0, 0.5])
def test_what_was_typed_may_take_several_tokens(typed: bytes, sure: float) -> None:
    for model in range(len(MODELS)):
        ids = answer(Case(model, [2, 30], [9], 16, typed, True, 256), sure=sure)
        assert TOKENIZER.bytes_of(ids).startswith(typed)


drafts = st.lists(st.integers(4, END - 1), min_size=1, max_size=12)


@torch.inference_mode()
@cases(120)
@given(it=some, draft=drafts)
def test_a_draft_of_strength_1_changes_no_text(it: Case, draft: list[int]) -> None:
    assert answer(it, draft[: it.slots], 1.0) == greedy(it)


@torch.inference_mode()
@cases(60)
@given(it=some, cut=st.integers(1, 16), wrong=st.integers(4, END - 1))
def test_a_draft_that_is_nearly_right_saves_passes(it: Case, cut: int, wrong: int) -> None:
    wanted = greedy(it)
    assert answer(it, wanted, 1.0) == wanted
    assert len(looks(it, wanted, 1.0, masks=0)) <= 2
    at = cut % len(wanted) if wanted else 0
    assert answer(it, [*wanted[:at], wrong, *wanted[at + 1 :]][: it.slots], 1.0) == wanted


@torch.inference_mode()
@cases(120)
@given(it=some, length=st.integers(1, 3 * AHEAD), seed=st.integers(0, 99), room=st.integers(0, 5))
def test_a_draft_of_strength_0_stays_as_it_is(it: Case, length: int, seed: int, room: int) -> None:
    it = Case(it.model, it.prefix, it.after, length + room, b"", False, 256)
    draw = torch.Generator().manual_seed(seed)
    draft = torch.randint(4, END, (length,), generator=draw).tolist()
    found = looks(it, draft, 0.0)
    assert found[-1].ids == draft
    assert len(found) <= length // AHEAD + 2


@torch.inference_mode()
@cases(80)
@given(
    it=some, draft=st.lists(st.integers(4, END - 1), max_size=60), strength=st.floats(0.05, 0.95)
)
def test_a_draft_of_any_strength_fits_its_hole(it: Case, draft: list[int], strength: float) -> None:
    found = looks(it, draft[: it.slots], strength)
    assert len(found[-1].ids) <= it.slots


@torch.inference_mode()
def test_the_weaker_the_more_of_a_draft_stays() -> None:
    kept: list[int] = []
    draft = list(range(40, 52))
    for strength in (0.0, 0.3, 0.6, 0.9, 1.0):
        kept.append(0)
        for model in range(len(MODELS)):
            ids = answer(Case(model, [2, 30], [9], 14, b"", True, 256), draft, strength)
            kept[-1] += sum(a == b for a, b in zip(ids, draft, strict=False))
    assert kept[0] == len(draft) * len(MODELS)
    assert kept == sorted(kept, reverse=True)
    assert kept[-1] < kept[0]
