"""What may come next in a hole, and what is written anew in front of it."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.text.typed import Writable
from tests.cases import cases
from tests.engine.asking import NANO, TINY
from tests.engine.tiny import SPECIAL

ALLOWED = torch.tensor([i not in TINY.special for i in range(len(TINY))])
BYTES = [TINY.bytes_of([i]) for i in range(len(TINY))]

starts = st.one_of(
    st.sampled_from([b"print", b" ret", b"\n    ", b"    ", "ä".encode(), "🙂x".encode(), b"self"]),
    st.binary(min_size=1, max_size=6),
)


@cases(200)
@given(start=starts)
def test_along_are_all_tokens_that_lie_on_the_way(start: bytes) -> None:
    wanted = {
        i for i, own in enumerate(BYTES) if own and (own.startswith(start) or start.startswith(own))
    }
    found = TINY.along(start)
    assert set(found) == wanted
    assert len(found) == len(wanted)
    assert not wanted & TINY.special


@cases(150)
@given(typed=starts, choices=st.lists(st.integers(0, 999), max_size=8))
def test_all_that_was_typed_is_written_first_and_anything_after_it(
    typed: bytes, choices: list[int]
) -> None:
    writable, ids = Writable(TINY, typed, ALLOWED), list[int]()
    for choice in choices:
        may = writable.next(ids).tolist()
        written = TINY.bytes_of(ids)
        assert writable.begun(ids) == (len(written) >= len(typed))
        for i, own in enumerate(BYTES):
            with_it = written + own
            fits = with_it.startswith(typed) or typed.startswith(with_it)
            assert may[i] == (i not in TINY.special and fits)
        options = [i for i, one in enumerate(may) if one]
        assert options, "there is a token for every byte"
        ids.append(options[choice % len(options)])
    written = TINY.bytes_of(ids)
    assert written.startswith(typed) or typed.startswith(written)
    assert writable.text(ids) == written[len(typed) :].decode(errors="ignore")


def test_without_anything_typed_all_that_is_allowed_may_come() -> None:
    writable = Writable(TINY, b"", ALLOWED)
    assert writable.next([]) is ALLOWED
    assert writable.begun([])
    assert writable.text(TINY.encode(" print(x)")) == " print(x)"


def test_what_is_not_allowed_is_not_written_though_it_was_typed() -> None:
    allowed = ALLOWED.clone()
    allowed[TINY.encode("print")] = False
    may = Writable(TINY, b"print", allowed).next([])
    assert not may[TINY.encode("print")].any()
    assert bool(may.any())


texts = st.one_of(
    st.text("a1 \n\t.(é", max_size=12),
    st.sampled_from(["def f():\n    ", "x = \n\n\n  pri", "   ", "", "a\r\n", "x\u00a0", *SPECIAL]),
)


@cases(300)
@given(text=texts)
def test_white_space_in_front_of_a_hole_is_split_off_whole(text: str) -> None:
    for tokenizer in (TINY, NANO):
        stays, typed = tokenizer.heal_blank(text)
        assert stays + typed.decode() == text
        assert stays == stays.rstrip()
        bare, word = tokenizer.heal(text)
        assert typed.endswith(word)
        assert typed[: len(typed) - len(word)].decode().strip() == ""
        assert stays == bare.rstrip()
