"""The framing of messages."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from diffgemma_lsp.lsp.stdio import Framing
from tests.cases import cases


def framed(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n\r\n" % len(body) + body


@cases(1_000)
@given(st.lists(st.binary(max_size=30), max_size=6), st.lists(st.integers(0, 200), max_size=8))
def test_messages_arrive_whole_however_they_are_cut(bodies: list[bytes], cuts: list[int]) -> None:
    data = b"".join(map(framed, bodies))
    ends = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    framing = Framing()
    pieces = [data[start:end] for start, end in pairwise(ends)]
    assert [body for piece in pieces for body in framing.feed(piece)] == bodies


@cases(1_000)
@given(st.binary(max_size=200))
def test_any_bytes_are_survived(data: bytes) -> None:
    list(Framing().feed(data))


@cases(300)
@given(st.binary(max_size=60).filter(lambda b: b"\r" not in b and b":" not in b))
def test_a_message_behind_garbage(garbage: bytes) -> None:
    data = garbage + b"\r\n\r\n" + framed(b"first") + framed(b"second")
    assert list(Framing().feed(data)) == [b"first", b"second"]


def test_headers_are_read_in_any_case_and_order() -> None:
    data = b"content-type: a; b=c\r\nCONTENT-LENGTH:2\r\nX: y\r\n\r\nab"
    assert list(Framing().feed(data)) == [b"ab"]


def test_an_absurd_length_is_skipped() -> None:
    data = b"Content-Length: 99999999999999999999\r\n\r\n" + framed(b"x")
    assert list(Framing().feed(data)) == [b"x"]
