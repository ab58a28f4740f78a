"""The text store against a naive one, in all three encodings."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from lsprotocol import types
from naive import naive_lines, naive_offset, size

from diffgemma_lsp.lsp import positions
from diffgemma_lsp.lsp.positions import Encoding
from diffgemma_lsp.text import documents as store
from diffgemma_lsp.text.documents import Document, Documents, Trace
from diffgemma_lsp.text.snapshot import DocumentSnapshot
from diffgemma_lsp.text.text import Point, Text
from tests.cases import cases

ENCODINGS: tuple[Encoding, ...] = ("utf-8", "utf-16", "utf-32")

# Line ends; what str.splitlines takes for line ends; one to four bytes; combining marks and
# joiners; a lone surrogate, which JSON can carry.
ALPHABET = (
    "ab \t\r\n\n\v\f\x1c\x1d\x1e\x85\u2028\u2029éß\u0301€中\u200d\ufe0f😀👩🏽\U0010ffff\ud83d\ude00"
)
texts = st.text(ALPHABET, max_size=40)
encodings = st.sampled_from(ENCODINGS)


@dataclass(frozen=True)
class Change:
    start: tuple[int, int]
    end: tuple[int, int]
    text: str


places = st.tuples(st.integers(0, 12), st.integers(0, 30))
changes = st.builds(Change, places, places, texts)


def change_event(change: Change) -> types.TextDocumentContentChangePartial:
    return types.TextDocumentContentChangePartial(
        range=types.Range(types.Position(*change.start), types.Position(*change.end)),
        text=change.text,
    )


@cases(2_000)
@given(texts, st.lists(changes, max_size=8), encodings)
@example("a\r", [Change((1, 0), (1, 0), "\nb")], "utf-16")
@example("a\rb\nc", [Change((1, 0), (1, 1), "")], "utf-16")
@example("a\r\nb", [Change((0, 1), (1, 0), "")], "utf-8")
@example("a\nb", [Change((0, 1), (0, 1), "\r")], "utf-8")
@example("a\fb\u2028c\nd", [Change((1, 0), (1, 1), "e")], "utf-16")
@example("😀😀", [Change((0, 1), (0, 3), "x")], "utf-16")
def test_edits_as_the_naive_store_makes_them(
    text: str, edits: list[Change], encoding: Encoding
) -> None:
    ours, naive = Text.of(text), text
    for edit in edits:
        before = str(ours)
        ours, done = positions.apply_change(ours, change_event(edit), encoding)
        assert before[done.start : done.end] == done.removed
        assert before[: done.start] + done.new + before[done.end :] == str(ours)
        start, end = sorted(
            naive_offset(naive, *place, encoding) for place in (edit.start, edit.end)
        )
        naive = naive[:start] + edit.text + naive[end:]
        assert str(ours) == naive
        assert len(ours) == len(naive)
        assert [ours.content(n) for n in range(ours.line_count)] == naive_lines(naive)
    for offset in range(len(naive) + 1):
        assert ours.offset(ours.point(offset)) == offset


@cases(2_000)
@given(texts, encodings)
def test_positions_come_back(text: str, encoding: Encoding) -> None:
    ours = Text.of(text)
    for line in range(ours.line_count):
        for column in range(len(ours.content(line)) + 1):
            point = Point(line, column)
            position = positions.to_position(ours, point, encoding)
            assert position.character == size(ours.line(line)[:column], encoding)
            assert positions.to_point(ours, position, encoding) == point


@cases(500)
@given(texts, st.integers(0, 12), st.integers(0, 60), encodings)
def test_any_position_is_a_place_in_the_text(
    text: str, line: int, character: int, encoding: Encoding
) -> None:
    ours = Text.of(text)
    point = positions.to_point(ours, types.Position(line, character), encoding)
    assert ours.offset(point) == naive_offset(text, line, character, encoding)


@pytest.mark.parametrize(
    ("encoding", "character", "column"),
    [
        ("utf-8", 0, 0),
        ("utf-8", 1, 0),  # inside the emoji: rounded down
        ("utf-8", 3, 0),
        ("utf-8", 4, 1),
        ("utf-8", 6, 2),  # behind the combining mark
        ("utf-8", 99, 3),
        ("utf-16", 1, 0),
        ("utf-16", 2, 1),
        ("utf-16", 3, 2),
        ("utf-16", 99, 3),
        ("utf-32", 1, 1),
        ("utf-32", 99, 3),
    ],
)
def test_a_position_inside_a_character_is_rounded_down(
    encoding: Encoding, character: int, column: int
) -> None:
    assert positions.column_of("😀\u0301x", character, encoding) == column


@cases(300)
@given(texts, places, places, texts, encodings)
def test_typing_into_a_snapshot(
    text: str, at: tuple[int, int], to: tuple[int, int], new: str, encoding: Encoding
) -> None:
    ours = Text.of(text)
    ends = types.Range(types.Position(*at), types.Position(*to))
    start, end = positions.to_points(ours, ends, encoding)
    before = DocumentSnapshot("u", 1, "python", ours, start, start)
    after = before.typed(start, end, new)
    a, b = ours.offset(start), ours.offset(end)
    assert str(after.text) == text[:a] + new + text[b:]
    assert after.text.offset(after.start) == a + len(new)
    assert str(before.text) == text  # the old one is as it was


def test_many_lines_make_few_chunks_whatever_is_done_to_them() -> None:
    text = Text.of("".join(f"line {n}\n" for n in range(20_000)))
    for n in range(6_000):
        text = text.edit(Point(n, 0), Point(n + 2, 0), "")
    for _ in range(3_000):
        text = text.edit(Point(100, 0), Point(100, 0), "a\nb\n")
    assert text.line_count == 20_001 - 12_000 + 6_000
    assert len(text._chunks) < 200  # pyright: ignore[reportPrivateUsage]
    assert str(text).count("\n") + 1 == text.line_count


def test_an_edit_costs_what_it_changes() -> None:
    def seconds(lines: int) -> float:
        text = Text.of("some line of code\n" * lines)
        best = float("inf")
        for _ in range(20):
            began = time.thread_time()
            for n in range(200):
                text = text.edit(Point(lines // 2, n), Point(lines // 2, n), "x")
            best = min(best, time.thread_time() - began)
        return best

    # A store that joins all lines would take 100 times as long. This one takes 3 times as
    # long where nothing else runs; the rest is for caches that others use too.
    assert seconds(100_000) < 15 * seconds(1_000)


def document(uri: str = "u", version: int = 1, text: str = "x") -> Document:
    return Document(uri, "python", version, Text.of(text))


def test_what_a_client_gets_wrong_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    documents = Documents()
    documents.open(document(version=3))
    documents.open(document(version=5, text="y"))
    documents.update("u", 2, Text.of("z"))
    documents.close("u")
    documents.close("u")
    assert documents.get("u") is None
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 3


def test_a_snapshot_does_not_move() -> None:
    documents = Documents()
    documents.open(document(text="old"))
    known = documents.get("u")
    assert known is not None
    snapshot = DocumentSnapshot.of(known, Point(0, 3))
    documents.update("u", 2, Text.of("new text"))
    assert (snapshot.version, str(snapshot.text)) == (1, "old")


@pytest.mark.parametrize(
    ("text", "line", "newline"),
    [
        ("a\r\nb", 0, "\r\n"),
        ("a\r\nb", 1, "\r\n"),
        ("a\rb", 1, "\r"),
        ("a\nb", 1, "\n"),
        ("a", 0, "\n"),
        ("", 0, "\n"),
        ("a\r\nb\nc", 1, "\n"),
    ],
)
def test_the_line_end_in_use(text: str, line: int, newline: str) -> None:
    point = Point(line, 0)
    assert DocumentSnapshot("u", 1, "python", Text.of(text), point, point).newline == newline


def test_what_is_remembered_of_changes_is_small() -> None:
    documents = Documents()
    text = "x" * 100_000
    documents.open(Document("u", "python", 1, Text.of(text)))
    for version in range(2, 30):
        new = f"{version}" * 50_000
        change = store.Change(0, len(text), text, new)
        documents.update("u", version, Text.of(new), [change])
        text = new
    document = documents.get("u")
    assert document is not None
    assert sum(len(str(trace)) for trace in document.changes) < 10_000
    assert [trace.size for trace in document.changes][:2] == [50_000, 50_000]
    assert document.moved(0, 0, 5) is None
    # What comes back is known again, however long it is.
    old, other = document.changes[-1].removed, Trace.of(store.Change(0, 0, "", text)).new
    assert old != other
    assert Trace.of(store.Change(0, len(text), text, "")).removed == other
