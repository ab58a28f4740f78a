"""Where an edit may have to be followed, and with what."""

from __future__ import annotations

import difflib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffgemma_lsp.next_edit.parts import Place, Region
from diffgemma_lsp.next_edit.places import places
from diffgemma_lsp.next_edit.source import Source
from diffgemma_lsp.next_edit.tokens import tokens_of
from diffgemma_lsp.next_edit.weigh import NextEdit, gains_of, likeliest, request_for, sound
from diffgemma_lsp.syntax.languages import language_of
from engine.types import MOST_CHOICES
from tests.cases import cases

PYTHON = language_of("python")


def followers(
    text: str, old: str, new: str, language: str = "python", cursor: int | None = None
) -> dict[int, tuple[str, ...]]:
    """What may follow the edit that made `new` of the line `old`, by its line, in their order."""
    lines = text.split("\n")
    line = lines.index(old)
    lines[line] = new
    source = Source("\n".join(lines), language_of(language))
    found = places(source, Region(old + "\n", line, line), line if cursor is None else cursor)
    return {place.line: place.choices for place in found}


LOCALS = '''\
def area(width, height):
    """The area of width."""
    print(f"{width} by {height:{width}}", "width")  # width
    if width < 0:
        return shape.width(width=width)
    return width * height


def other(width):
    return width
'''


def test_uses_of_a_parameter_follow_within_its_function_and_in_code() -> None:
    found = followers(LOCALS, "def area(width, height):", "def area(w, height):")
    assert found == {
        2: ('    print(f"{w} by {height:{w}}", "width")  # width',),
        3: ("    if w < 0:",),
        4: ("        return shape.width(width=w)",),
        5: ("    return w * height",),
    }


def test_those_below_the_cursor_come_first_then_those_above() -> None:
    old, new = "def area(width, height):", "def area(w, height):"
    assert list(followers(LOCALS, old, new, cursor=3)) == [3, 4, 5, 2]


def test_a_use_that_is_another_now_is_no_renaming() -> None:
    assert followers(LOCALS, "    if width < 0:", "    if w < 0:") == {}
    loop = "for a, b in c:\n    print(a)\n    a = b\n    print(a)\n"
    assert list(followers(loop, "for a, b in c:", "for x, b in c:")) == [1, 2, 3]
    assert followers(loop, "    print(a)", "    print(x)") == {}


def test_a_name_that_is_there_already_was_meant_as_it_is() -> None:
    assert followers(LOCALS, "    return width * height", "    return height * height") == {}


CLASS = """\
class Box:
    def __init__(self, size):
        self.size = size
        self.lid = size

    def grow(self, other):
        self.size += other.size
        size = self.lid.size
        return self.grow(size)


def size_of(box):
    return box.grow(1)
"""


def test_attributes_follow_attributes_of_the_same_owner() -> None:
    found = followers(CLASS, "        self.size = size", "        self.width = size")
    assert found == {6: ("        self.width += other.size",)}


def test_calls_follow_a_method() -> None:
    found = followers(CLASS, "    def grow(self, other):", "    def swell(self, other):")
    assert found == {
        8: ("        return self.swell(size)",),
        12: ("    return box.swell(1)",),
    }


def test_another_method_of_what_is_not_defined_here_is_no_renaming() -> None:
    text = "a = name.lower()\nb = other.lower()\nc = name.lower()\n"
    assert followers(text, "a = name.lower()", "a = name.upper()") == {}


def test_types_and_words_of_the_language_are_no_names() -> None:
    text = "a: int = 1\nb: int = 2\n"
    assert followers(text, "a: int = 1", "a: float = 1") == {}


def test_the_same_string_follows_a_string_and_nothing_follows_in_prose() -> None:
    text = 'a = "first"\nb = get("first", "firsts")\n# "first"\nc = """\n"first"\n"""\n'
    assert followers(text, 'a = "first"', 'a = "last"') == {1: ('b = get("last", "firsts")',)}
    assert followers(text, '# "first"', '# "last"') == {}
    assert followers(text, '"first"', '"last"') == {}


CALLS = """\
def load(path, mode):
    return open(path, mode)


a = load("a", "r")
b = load(
    "b", "w"
)
c = load("c", "r", strict=True)
d = other.load("r")
"""


def test_calls_follow_a_new_argument() -> None:
    found = followers(CALLS, 'a = load("a", "r")', 'a = load("a", "r", strict=True)')
    assert found == {9: ('d = other.load("r", strict=True)',)}


def test_calls_follow_a_new_parameter_without_a_default() -> None:
    found = followers(CALLS, "def load(path, mode):", "def load(path, mode, strict):")
    assert found[4] == ('a = load("a", "r", strict)', 'a = load("a", "r", strict=strict)')
    assert 8 not in found, "it is given there"
    assert followers(CALLS, "def load(path, mode):", "def load(path, mode, strict=1):") == {}


def test_calls_follow_a_changed_and_a_removed_argument() -> None:
    text = "a = get(x, key=-n)\nb = get(y, key=-n)\nc = put(y, key=-n)\nd = get(n)\n"
    changed = followers(text, "a = get(x, key=-n)", "a = get(x, key=+n)")
    assert changed[1] == ("b = get(y, key=+n)",)
    removed = followers(text, "a = get(x, key=-n)", "a = get(x)")
    assert removed[1] == ("b = get(y)",)


@pytest.mark.parametrize(("old", "new"), [("5", "9"), ("True", "False"), ("None", "4")])
def test_calls_follow_a_changed_value_once_it_was_changed_twice(old: str, new: str) -> None:
    text = "".join(f"{name} = get({name}, keep={old})\n" for name in "xyz")
    first, second, third = text.splitlines()
    assert followers(text, first, f"x = get(x, keep={new})") == {}
    text = text.replace(first, f"x = get(x, keep={new})").replace(second, f"y = get(y, keep={new})")
    edits = [Region(second + "\n", 1, 1), Region(first + "\n", 0, 0)]
    (place,) = places(Source(text, PYTHON), edits[0], 1, edits)
    assert place.choices == (third.replace(old, new),)


def test_a_default_of_another_name_does_not_follow() -> None:
    text = "def f(\n    a: bool = True,\n    b: bool = True,\n):\n    pass\n"
    assert followers(text, "    a: bool = True,", "    a: bool = False,") == {}


def test_a_name_within_a_string_is_that_of_its_own_place() -> None:
    text = 'z = 1\na = f"{x.y()}: {y}"\nb = g(f"{x.y()}: {y}")\n'
    assert followers(text, 'a = f"{x.y()}: {y}"', 'a = f"{x.y()}: {z}"') == {}
    found = followers(text, 'a = f"{x.y()}: {y}"', 'a = f"{x.y()} = {y}"')
    assert found == {2: ('b = g(f"{x.y()} = {y}")',)}


def test_a_word_that_is_a_constant_elsewhere_is_an_attribute_behind_a_dot() -> None:
    text = "a.b = Style.null()\na.c = Other.null()\na.d = Style.null()\n"
    assert followers(text, "a.b = Style.null()", "a.b = Style.bold()") == {}


def test_other_definitions_follow_a_changed_default() -> None:
    text = "def get(url, timeout=5):\n    pass\n\n\ndef put(data, timeout=5, times=5):\n    pass\n"
    found = followers(text, "def get(url, timeout=5):", "def get(url, timeout=9):")
    assert found == {4: ("def put(data, timeout=9, times=5):",)}


def test_lines_that_look_alike_follow() -> None:
    text = "if a < 3:\n    x = 1\nif b < 3:\n    y = 2\nif not c:\n    z = 3\n"
    assert followers(text, "if a < 3:", "if a <= 3:") == {2: ("if b <= 3:",)}
    assert followers(text, "    x = 1", "    x = 1 + 4") == {}, "too short to look like anything"


def test_what_is_new_has_no_follower() -> None:
    assert followers("a = 1\n\nb = a\n", "", "c = a + b") == {}


def test_javascript() -> None:
    text = (
        "function total(price, count) {\n  // price\n  return price * count;\n}\nlet price = 1;\n"
    )
    found = followers(
        text, "function total(price, count) {", "function total(cost, count) {", "javascript"
    )
    assert found == {2: ("  return cost * count;",)}


def test_windows_line_ends_and_no_last_one() -> None:
    assert followers("a = 'xy'\nb = 'xy'", "a = 'xy'", "a = 'z'") == {1: ("b = 'z'",)}


code = st.lists(st.sampled_from([*"ab.=(),:'\"#{}[]\n ", "def ", "self.", "x = ", "f'{a}'"]))


@cases(400)
@given(lines=code.map("".join), old=code.map("".join), language=st.sampled_from(["python", "c"]))
def test_whatever_stands_there_a_place_is_a_line_and_differs(
    lines: str, old: str, language: str
) -> None:
    source = Source(lines, language_of(language))
    last = len(source.lines) - 1
    for first in range(last + 1):
        for place in places(source, Region(old, first, min(last, first + 1)), first):
            assert 0 <= place.line <= last
            assert source.lines[place.line] not in place.choices
            assert place.choices


@cases(400)
@given(code.map("".join))
def test_tokens_cover_all_that_is_not_blank(text: str) -> None:
    covered = [" "] * len(text)
    for token in tokens_of(text, PYTHON):
        assert text[token.start : token.end] == token.text
        covered[token.start : token.end] = token.text
    assert "".join(covered).split() == text.split(), difflib.ndiff(text, "".join(covered))


@pytest.mark.parametrize("text", ['"""', "f'{", "'\\", "#", "f'{{a}}'", '"""\\"""'])
def test_what_is_not_finished_is_read_all_the_same(text: str) -> None:
    assert tokens_of(text, PYTHON)


def test_more_choices_than_are_weighed() -> None:
    """The likeliest come first, and the others are left out wherever they are counted."""
    source = Source("value = old\nprint(old)\n", PYTHON)
    place = Place(1, tuple(f"print(new{n})" for n in range(40)))
    request = request_for(source, place, Region("value = older\n", 0, 0))
    fits = sound(source, place)
    assert len(request.choices) == MOST_CHOICES
    gains = gains_of([-9.0, *map(float, range(-len(fits), 0))], fits)
    assert likeliest(place, gains) == NextEdit(1, f"print(new{len(fits) - 1})", gains[-1])
