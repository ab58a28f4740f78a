"""What the engine gets to see of a document."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffgemma_lsp.context.window import (
    PREFIX_CHARS,
    SUFFIX_CHARS,
    fill_request,
    prefix_of,
    suffix_of,
)
from diffgemma_lsp.text.snapshot import DocumentSnapshot
from diffgemma_lsp.text.text import Text
from engine.types import Fixed, Hole
from tests.cases import cases


def at(text: str, offset: int) -> DocumentSnapshot:
    whole = Text.of(text)
    cursor = whole.point(offset)
    return DocumentSnapshot("u", 1, "python", whole, cursor, cursor)


@cases(500)
@given(st.text("ab\n\r\f\u2028😀", max_size=60), st.data())
def test_a_small_document_is_seen_whole(text: str, data: st.DataObject) -> None:
    offset = data.draw(st.integers(0, len(text)))
    if text[offset - 1 : offset + 1] == "\r\n":
        return  # no place for a cursor

    def plain(part: str) -> str:
        return part.replace("\r\n", "\n").replace("\r", "\n")

    snapshot = at(text, offset)
    assert prefix_of(snapshot) == plain(text[:offset])
    assert suffix_of(snapshot) == plain(text[offset:])


@cases(200)
@given(st.integers(1, 300), st.integers(0, 400_000))
def test_a_large_document_is_cut_at_line_starts(width: int, offset: int) -> None:
    line = "x" * (width - 1) + "\n"
    text = line * (400_000 // width + 1)
    snapshot = at(text, offset)
    prefix, suffix = prefix_of(snapshot), suffix_of(snapshot)
    assert text[:offset].endswith(prefix)
    assert text[offset:].startswith(suffix)
    left, right = offset - len(prefix), offset + len(suffix)
    assert left == 0 or text[left - 1] == "\n"
    assert right == len(text) or text[right - 1] == "\n"
    assert len(prefix) <= PREFIX_CHARS
    assert len(suffix) <= SUFFIX_CHARS
    # No more is left away than the jumps and the lines make necessary.
    assert left == 0 or len(prefix) > PREFIX_CHARS * 3 // 4 - width
    assert right == len(text) or len(suffix) > SUFFIX_CHARS - width


def test_the_left_edge_stands_still_while_typing() -> None:
    text = "some line of code\n" * 10_000
    edges = {n - len(prefix_of(at(text, n))) for n in range(100_000, 100_000 + PREFIX_CHARS, 97)}
    assert len(edges) <= 5  # four jumps a budget


def test_a_line_longer_than_the_budget_is_cut_where_the_budget_ends() -> None:
    snapshot = at("x" * 200_000, 100_000)
    assert PREFIX_CHARS * 3 // 4 <= len(prefix_of(snapshot)) <= PREFIX_CHARS
    assert len(suffix_of(snapshot)) == SUFFIX_CHARS


def test_the_request() -> None:
    request = fill_request(at("a\r\nb\ud83dc", 4), max_tokens=5, seed=3)
    assert request.template == (Fixed("a\nb"), Hole(max_tokens=5), Fixed("\ufffdc"))
    assert (request.seed, request.budget_s) == (3, None)


@pytest.mark.parametrize(
    ("uri", "language_id", "line"),
    [
        ("file:///work/tracker.py", "python", "# tracker.py\n"),
        ("file:///work/a%20b.PYI", "python", "# a b.PYI\n"),
        ("untitled:Untitled-1", "python", "# Untitled-1.py\n"),
        ("file:///bin/deploy", "python", "# deploy.py\n"),
        ("file:///work/app.tsx", "typescriptreact", "// app.tsx\n"),
        ("file:///work/a.css", "css", "/* a.css */\n"),
        ("file:///work/*%2Fa.css", "css", "/* a.css */\n"),
        ("file:///work/index.html", "html", "<!-- index.html -->\n"),
        ("file:///work/.github/ci.yml", "yaml", "# ci.yml\n"),
        ("file:///work/a%0Ab.py", "python", "# ab.py\n"),
        ("file:///work/a.json", "json", ""),
        ("file:///work/notes.md", "markdown", ""),
        ("", "python", ""),
    ],
)
def test_the_engine_is_told_what_file_it_is(uri: str, language_id: str, line: str) -> None:
    whole = Text.of("x = 1\n")
    cursor = whole.point(3)
    snapshot = DocumentSnapshot(uri, 1, language_id, whole, cursor, cursor)
    assert fill_request(snapshot, None, 0).title == line
    assert fill_request(replace(snapshot, cells_before=(whole,)), None, 0).title == ""


def test_it_is_not_told_so_in_the_middle_of_a_file() -> None:
    assert fill_request(at("x" * 200_000, 100_000), None, 0).title == ""


# ---- cells of a notebook ----


def in_a_notebook(before: list[str], own: str, offset: int, after: list[str]) -> DocumentSnapshot:
    whole = Text.of(own)
    point = whole.point(offset)
    cells = [tuple(map(Text.of, texts)) for texts in (before, after)]
    return DocumentSnapshot("u", 1, "python", whole, point, point, *cells)


@cases(300)
@given(
    st.lists(st.tuples(st.integers(1, 300), st.integers(0, 1_500)), max_size=6),
    st.lists(st.tuples(st.integers(1, 300), st.integers(0, 300)), max_size=6),
    st.integers(0, 60_000),
    st.floats(0, 1),
)
def test_the_budget_is_that_of_a_file(
    sizes: list[tuple[int, int]], sizes_after: list[tuple[int, int]], own: int, at: float
) -> None:
    def code(sizes: list[tuple[int, int]]) -> list[str]:
        return ["\n".join(["x" * width] * lines) for width, lines in sizes]

    text = ("y" * 49 + "\n") * (own // 50)
    offset = round(len(text) * at)
    before, after = code(sizes), code(sizes_after)
    snapshot = in_a_notebook(before, text, offset, after)
    whole_before = "".join(f"{cell}\n\n" for cell in before if cell) + text[:offset]
    whole_after = text[offset:] + "".join(f"\n\n{cell}" for cell in after if cell)
    prefix, suffix = prefix_of(snapshot), suffix_of(snapshot)
    assert whole_before.endswith(prefix)
    assert whole_after.startswith(suffix)
    left, right = len(whole_before) - len(prefix), len(suffix)
    assert left == 0 or whole_before[left - 1] == "\n"
    assert right == len(whole_after) or whole_after[right - 1] == "\n"
    assert len(prefix) <= PREFIX_CHARS
    assert len(suffix) <= SUFFIX_CHARS
    assert left == 0 or len(prefix) > PREFIX_CHARS * 3 // 4 - 301
    assert right == len(whole_after) or len(suffix) > SUFFIX_CHARS - 301


def test_the_left_edge_stands_still_while_typing_in_a_cell() -> None:
    before = ["some line of code\n" * 100] * 30
    edges = set()
    for size in range(0, 2_000, 7):
        own = "z" * size
        edges.add(len(prefix_of(in_a_notebook(before, own, size, []))) - size)
    assert len(edges) <= 2
