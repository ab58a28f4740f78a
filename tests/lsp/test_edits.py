"""Small edits between two texts, and places in texts that changed."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffgemma_lsp.edits import applied, changed, minimal, rebase

words = st.lists(
    st.sampled_from(
        ["a", "foo", "(", ")", " ", "    ", "\n", "\r\n", "\r", "\u2028", "é", "😀", "e\u0301"]
    ),
    max_size=25,
).map("".join)
texts = words | st.text(max_size=20)


@pytest.mark.parametrize(
    ("old", "new", "edits"),
    [
        ("same", "same", []),
        ("", "new", [(0, 0, "new")]),
        ("old", "", [(0, 3, "")]),
        ("foo(a, b)", "bar(a, c)", [(0, 3, "bar"), (7, 8, "c")]),
        ("a\nb\nc\n", "a\nX\nc\n", [(2, 3, "X")]),
        ("a\nb\nc\n", "a\nc\n", [(2, 4, "")]),
        ("a\nc\n", "a\nb\nc\n", [(2, 2, "b\n")]),
        ("a\r\nb", "a\nb", [(1, 3, "\n")]),
        ("one two", "three four", [(0, 7, "three four")]),
        ("x = 1\n", "value = 1\n", [(0, 1, "value")]),
    ],
)
def test_minimal(old: str, new: str, edits: list[tuple[int, int, str]]) -> None:
    assert minimal(old, new) == edits


@settings(max_examples=5_000, deadline=None)
@given(texts, texts)
def test_edits_make_the_new_text(old: str, new: str) -> None:
    edits = minimal(old, new)
    assert applied(old, edits) == new
    assert (edits == []) == (old == new)
    ends = [0]
    for start, end, text in edits:
        assert start > ends[-1] or len(ends) == 1
        assert (start, text) != (end, "")
        assert old[start:end] != text
        ends.append(end)
    assert ends[-1] <= len(old)
    for place in {place for edit in edits for place in edit[:2]}:
        assert old[place - 1 : place + 1] != "\r\n" or not place


@settings(max_examples=1_000, deadline=None)
@given(words, words, words)
def test_what_is_the_same_around_stays(before: str, new: str, after: str) -> None:
    old = before + "\n<old>\n" + after
    edits = minimal(old, before + "\n" + new + "\n" + after)
    assert applied(old, edits) == before + "\n" + new + "\n" + after


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("a b " * 480, "c" + "d b " * 480),
        ("a b\n" * 1_900, "c\n" + "d b\n" * 1_900),
        ("".join(f"a{n % 7} " for n in range(950)), "".join(f"a{n * 5 % 11} " for n in range(950))),
        ("".join(f"{n}\n" for n in range(30_000)), "".join(f"{n * 7}\n" for n in range(30_000))),
    ],
)
def test_no_text_takes_long(old: str, new: str) -> None:
    began = time.thread_time()
    edits = minimal(old, new)
    assert time.thread_time() - began < 2
    assert applied(old, edits) == new


def test_small_changes_of_a_large_text() -> None:
    old = "".join(f"name_{n} = call({n})\n" for n in range(5_000))
    new = old.replace("name_77 ", "other ").replace("call(4000)", "call(4000, 1)")
    first, second = minimal(old, new)
    assert (old[first.start : first.end], first.text) == ("name_77", "other")
    assert (old[second.start : second.end], second.text) == ("", ", 1")


@pytest.mark.parametrize(
    ("new", "place"),
    [
        ("abc [def] ghi", (4, 9)),
        ("Xabc [def] ghi", (5, 10)),
        ("bc [def] ghi", (3, 8)),
        ("abc [def] ghi more", (4, 9)),
        ("abc [def] hi", (4, 9)),
        ("abc [dXf] ghi", None),
        ("abc []", None),
        ("abc[def] ghi", None),  # what touches it may belong to it
        ("abc [def]X ghi", None),
        ("Xabc [def] ghiX", None),  # on both sides: it can't be told what is in between
        ("", None),
    ],
)
def test_rebase(new: str, place: tuple[int, int] | None) -> None:
    assert rebase(4, 9, "abc [def] ghi", new) == place


def test_a_cursor_moves_along() -> None:
    assert rebase(2, 2, "ab cd", "ab cd") == (2, 2)
    assert rebase(2, 2, "ab cd", "ab cdX") == (2, 2)
    assert rebase(2, 2, "ab cd", "Xab cd") == (3, 3)
    assert rebase(2, 2, "ab cd", "abX cd") is None


@settings(max_examples=5_000, deadline=None)
@given(texts, texts, texts, texts, st.data())
def test_what_was_rebased_reads_the_same(
    head: str, removed: str, added: str, tail: str, data: st.DataObject
) -> None:
    old, new = head + removed + tail, head + added + tail
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(old))] * 2)))
    place = rebase(start, end, old, new)
    if place is not None:
        first, last = place
        assert 0 <= first <= last <= len(new)
        assert new[first:last] == old[start:end]
    if old == new or end < len(head) - 1:
        assert place == (start, end)


@settings(max_examples=2_000, deadline=None)
@given(texts, texts)
def test_what_changed(old: str, new: str) -> None:
    first, stop, growth = changed(old, new)
    assert old[:first] == new[:first]
    assert old[stop:] == new[stop + growth :]
    assert first <= stop
    assert first <= stop + growth
    if first < stop and first < stop + growth:
        assert old[first] != new[first]


def test_a_large_document_is_rebased_at_once() -> None:
    text = "some line of code\n" * 250_000
    middle = len(text) // 2
    new = text[:middle] + "X" + text[middle:]
    assert rebase(100, 200, text, new) == (100, 200)
    assert rebase(len(text) - 9, len(text), text, new) == (len(text) - 8, len(text) + 1)
