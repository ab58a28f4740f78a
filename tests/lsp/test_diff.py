"""Small edits between two texts, and places in texts that changed."""

from __future__ import annotations

import time

import pytest
from applying import edited
from hypothesis import given
from hypothesis import strategies as st

from diffgemma_lsp.text.diff import difference, minimal
from diffgemma_lsp.text.documents import Change, Document, Documents, Trace
from diffgemma_lsp.text.text import Text
from tests.cases import cases

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


@cases(5_000)
@given(texts, texts)
def test_edits_make_the_new_text(old: str, new: str) -> None:
    edits = minimal(old, new)
    assert edited(old, edits) == new
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


@cases(1_000)
@given(words, words, words)
def test_what_is_the_same_around_stays(before: str, new: str, after: str) -> None:
    old = before + "\n<old>\n" + after
    edits = minimal(old, before + "\n" + new + "\n" + after)
    assert edited(old, edits) == before + "\n" + new + "\n" + after


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
    assert edited(old, edits) == new


def test_small_changes_of_a_large_text() -> None:
    old = "".join(f"name_{n} = call({n})\n" for n in range(5_000))
    new = old.replace("name_77 ", "other ").replace("call(4000)", "call(4000, 1)")
    first, second = minimal(old, new)
    assert (old[first.start : first.end], first.text) == ("name_77", "other")
    assert (old[second.start : second.end], second.text) == ("", ", 1")


@cases(3_000)
@given(texts, st.lists(st.tuples(texts, texts, texts), max_size=5), st.data())
def test_what_moved_along_reads_the_same(
    text: str, later: list[tuple[str, str, str]], data: st.DataObject
) -> None:
    """Through any number of changes on both sides of it, of which none touches it."""
    document = Document("file:///a", "python", 1, Text.of(text))
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(text))] * 2)))
    now, touched, place = text, False, (start, end)
    for _, _, new in later:
        first, stop = sorted(data.draw(st.tuples(*[st.integers(0, len(now))] * 2)))
        low, high = place
        touched |= first <= high and low <= stop
        if stop < low:
            place = (low + len(new) - (stop - first), high + len(new) - (stop - first))
        change = Change(first, stop, now[first:stop], new)
        now = now[:first] + new + now[stop:]
        document.changes.append(Trace.of(change))
        document.revision += 1
        if touched:
            break
    moved = document.moved(0, start, end)
    assert moved == (None if touched else place)
    if moved is not None:
        assert now[moved[0] : moved[1]] == text[start:end]


def test_what_is_too_long_ago_is_not_known() -> None:
    document = Document("file:///a", "python", 1, Text.of("ab"))
    documents = Documents()
    documents.open(document)
    for version in range(2, 1_200):
        documents.update("file:///a", version, document.text, [Change(0, 0, "", "x")])
    assert document.moved(1, 1, 2) is None
    assert document.moved(document.revision - 2, 1, 2) == (3, 4)


@cases(2_000)
@given(texts, texts)
def test_the_difference(old: str, new: str) -> None:
    change = difference(old, new)
    assert old[change.start : change.end] == change.removed
    assert old[: change.start] + change.new + old[change.end :] == new
    assert not (change.removed and change.new) or change.removed[0] != change.new[0]


def test_the_difference_of_large_texts_is_found_at_once() -> None:
    text = "some line of code\n" * 250_000
    middle = len(text) // 2
    assert difference(text, text[:middle] + "X" + text[middle:]) == Change(middle, middle, "", "X")
