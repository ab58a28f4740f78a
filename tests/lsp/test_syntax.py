"""Whether a filling breaks the syntax."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffgemma_lsp import languages
from diffgemma_lsp.documents import Point, Text
from diffgemma_lsp.languages import Grammar, Language, in_ascii, language_of, parse
from diffgemma_lsp.syntax import CHARS, LINES_AFTER, LINES_BEFORE, Place, breaks, excerpt


def check(marked: str, middle: str) -> bool | None:
    before, _, after = marked.partition("|")
    return breaks(before, middle, after, "python")


@pytest.mark.parametrize(
    ("marked", "middle"),
    [
        ("x = |\n", "3"),
        ("x = foo(|)\ny = 2\n", "a, b"),
        ("x = '|'\n", "abc"),
        ("x = [\n    1,\n    |\n]\n", "2,\n    3,"),
        ("x = 1|\n", " # ünïcödé 😀"),
        # A line that is not finished, and goes on well.
        ("x = foo(|\ny = 2\n", "a, b"),
        ("for i in ra|\n", "nge(10)"),
        ("for i in ra|\n", "nge(10):"),
        ("def f():\n    |\n", "if x:"),
        ("def |\n", "foo(a"),
        ("class A:\n    |\n    def f(self): pass\n", "@property"),
        ("|", "def f(a,"),
        # What is broken anyway is not to blame on it.
        ("x = = =\nif a b c\n|\n", "y = 1"),
        ("x = foo(a b, |\n", "c)"),
        ("def def\n    |\n", "x"),
    ],
)
def test_what_fits(marked: str, middle: str) -> None:
    assert check(marked, middle) is False


@pytest.mark.parametrize(
    ("marked", "middle"),
    [
        ("x = |\n", "= 3"),
        ("x = |\n", "3 4"),
        ("x = |\n", "foo +"),
        ("x = foo(|)\ny = 2\n", "a, b)"),
        ("x = foo(|\ny = 2\n", "a b"),
        ("x = '|'\n", "a'bc"),
        ("for i in ra|\n", "nge(10)):"),
        ("def |\n", "foo(a b):"),
        ("x = = =\nif a b c\n|\n", "y = = 1"),
        # Indentation is syntax too.
        ("def f():\n    |\n", "return x\n  y = 2"),
        ("def f():\n    |\n", "x = 1\n        y = 2"),
        ("if x:\n    y\n    |\n    z\n", "if a:\n    b"),
    ],
)
def test_what_breaks(marked: str, middle: str) -> None:
    assert check(marked, middle) is True
    assert check(marked.replace("\n", "\r\n"), middle) is True
    assert check(marked.replace("\n", "\r"), middle) is True


def test_nobody_knows_without_a_grammar(monkeypatch: pytest.MonkeyPatch) -> None:
    assert breaks("x", "(((", "y", "klingon") is None
    missing = Language(grammar=Grammar("tree_sitter_klingon"))
    monkeypatch.setitem(languages._LANGUAGES, "klingon", missing)
    assert breaks("x", "(((", "y", "klingon") is None
    assert parse("x", missing) is None


FUNCTION = "def f{}(a, b):\n    x = [\n        a,\n    ]\n    return x\n\n\n"


@pytest.mark.parametrize("at", [0, 5_000, 9_999])
def test_only_a_part_of_a_large_document_is_looked_at(at: int) -> None:
    functions = [FUNCTION.format(n) for n in range(10_000)]
    before, after = "".join(functions[:at]), "".join(functions[at:])
    place = Place(before, after, language_of("python"))
    assert place.before.count("\n") < LINES_BEFORE
    assert place.after.count("\n") <= LINES_AFTER
    assert before.endswith(place.before)
    assert after.startswith(place.after)
    assert place.before.startswith("def ") or not at
    assert breaks(before, "x = 1\n", after, "python") is False
    assert breaks(before, "x = = 1\n", after, "python") is True


def test_a_hole_in_a_string_hides_what_is_filled_in() -> None:
    assert check('"""|\n"""\n', "= = (") is False
    assert check("x = 1  # |\n", "= = (") is False
    assert check("x = '|'\n", "a' b 'c") is True


def test_nobody_knows_within_a_table_that_has_no_end_in_sight() -> None:
    rows = "    'a': 1,\n" * LINES_BEFORE
    assert breaks("x = {\n" + rows, "    = = =\n", rows + "}\n", "python") is None


def test_long_lines_are_looked_at_in_part() -> None:
    place = Place("x = 1; " * 100_000, " + 1" * 100_000, language_of("python"))
    assert len(place.before) <= CHARS
    assert len(place.after) <= CHARS


def test_a_place_deep_in_a_class() -> None:
    before = "class A:\n" + "    def f(self):\n        return 1\n\n" * 500
    after = "\n" + "    def f(self):\n        return 1\n\n" * 500
    assert breaks(before, "    def g(self):\n        return 2\n", after, "python") is False
    assert breaks(before, "    def g(self)\n        return 2\n", after, "python") is True


@settings(max_examples=500, deadline=None)
@given(st.text("ab:(\n\r\té'", max_size=60), st.data())
def test_an_excerpt_is_a_part(string: str, data: st.DataObject) -> None:
    text = Text.of(string)
    first, last = sorted(data.draw(st.tuples(*[st.integers(0, len(string))] * 2)))
    piece, offset = excerpt(text, text.point(first), text.point(last))
    assert string[offset : offset + len(piece)] == piece
    assert offset <= first
    assert last <= offset + len(piece)


def test_an_excerpt_of_a_large_document() -> None:
    text = Text.of("".join(FUNCTION.format(n) for n in range(10_000)))
    piece, offset = excerpt(text, Point(35_003, 2), Point(35_010, 0))
    assert piece.startswith("def ")
    assert piece.endswith("\n\n\n")
    assert 3_900 < piece.count("\n") < 4_100
    assert str(text)[offset : offset + len(piece)] == piece


@settings(max_examples=1_000, deadline=None)
@given(st.text(max_size=40))
def test_a_byte_of_the_tree_is_a_character(string: str) -> None:
    plain = in_ascii(string)
    assert len(plain) == len(plain.encode()) == len(string)
    tree = parse(string, language_of("python"))
    assert tree is not None
    assert tree.root_node.end_byte <= len(string)


@settings(max_examples=1_000, deadline=None)
@given(*[st.text("ab:(])='\" \n\r\té\\@#", max_size=30)] * 3)
def test_any_text_has_an_answer(before: str, middle: str, after: str) -> None:
    assert breaks(before, middle, after, "python") in (True, False)
    assert breaks(before, " ", after, "python") is False
