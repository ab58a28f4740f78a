"""What is shown of a filling."""

from __future__ import annotations

import random
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffgemma_lsp.polish.confidence import doubt, measured
from diffgemma_lsp.polish.polish import Around, balanced, harmless, offers, polish, unbroken
from diffgemma_lsp.polish.repeats import (
    without_lines_before,
    without_loops,
    without_next_lines,
    without_overlap,
)
from diffgemma_lsp.session.engine import Answer
from diffgemma_lsp.syntax.brackets import BracketState
from diffgemma_lsp.syntax.check import Site
from diffgemma_lsp.syntax.languages import language_of
from engine.types import Other
from tests.cases import cases

PACKAGE = Path(__file__).resolve().parents[2] / "diffgemma_lsp"

texts = st.text("ab ()[]\"':,\n\r\tdéf😀", max_size=30)
PIECES = ["x", "foo", "(", ")", "[", "]", ":", ",", " = ", " ", "    ", "\t", "\n", "\r\n"]
PIECES += ['"', "'", '"""', "# ", "def f", "class A", "if x", "return ", "pass", "@", "\\", "é"]
code = st.lists(st.sampled_from(PIECES), max_size=20).map("".join)
languages = st.sampled_from(["python", "rust", "typescript", "klingon"])


def around(marked: str, language_id: str = "python", newline: str = "\n") -> Around:
    """What stands around the "|" in `marked`."""
    before, _, after = marked.partition("|")
    return Around(before, after, language_id, newline)


def place(marked: str, language_id: str = "python") -> Site:
    before, _, after = marked.partition("|")
    return Site(before, after, language_of(language_id))


def shown(marked: str, text: str, automatic: bool = True, language_id: str = "python") -> str:
    """What is shown of `text`; what keeps it from being shown, if that is nothing."""
    polished = polish(text, around(marked, language_id), automatic=automatic)
    assert bool(polished.text) == (polished.reason is None)
    return polished.text or f"NOTHING: {polished.reason}"


@pytest.mark.parametrize(
    ("text", "suffix", "expected"),
    [
        # What repeats what follows goes.
        ("a + b\n    return a", "\n    return a\n", "a + b"),
        ("a + b\n    return a", "\n    return a", "a + b"),
        ("one\ntwo\nthree", "\ntwo\nthree\nfour", "one"),
        ("x)", ")", "x"),
        ("x)):", ")):\n    pass", "x"),
        ("text'", "'", "text"),
        ('Doc."""', '"""\n', "Doc."),
        ("value = 3", "value = 3\n", ""),
        ("nt", "nt('x')\n", ""),  # what is left of the word
        ("x.count", "count(3)\n", "x."),
        ("recount", "count(3)\n", "recount"),
        ("not ready", "ready and x\n", "not "),
        ("n: int, total_size", " total_size = 1)", "n: int,"),
        ("done\n", "\nnext", "done"),
        ("done\n\n\n", "\nnext", "done"),
        ("done  \n    ", "\nnext", "done"),
        # What only looks like it stays.
        ("bar()", ")", "bar()"),
        ("[1, 2]", "]", "[1, 2]"),
        ("d['k']", "']", "d['k']"),
        ("a, b", "b2, c", "a, b"),
        ("if x:\n    y()", "\n\nz()", "if x:\n    y()"),
        ("f(a)\n}", "\n}x", "f(a)\n}"),
        # Nothing is worth nothing.
        ("", "x", ""),
        ("  \n\t", "x", ""),
        ("\u3000", "", ""),
    ],
)
def test_overlap(text: str, suffix: str, expected: str) -> None:
    assert polish(text, Around("", suffix)).text == expected


@pytest.mark.parametrize(
    ("marked", "text", "expected"),
    [
        ("    |\n    return x\n", "y = 1\n    return x", "y = 1"),
        ("    |\n\n    return x\n    z = 3\n", "y = 1\n    return x\n    z = 3\n    a", "y = 1"),
        ("    |\n    return x\n", "return x", ""),
        ("|\na\nb\n", "c\na\nb\nd", "c"),  # two short ones
        ("|\na\nb\n", "c\na\nd", "c\na\nd"),  # one short one
        ("    |\n    return x\n", "if y:\n        return x", "if y:\n        return x"),
        # Somebody who goes on otherwise does not repeat.
        ("    |\n        return x\n    a\n", *["if y:\n        return x\n    if z:"] * 2),
        ("f(|)\ng(value)\nh", "a)\ng(value)\nh)", "a)\ng(value)\nh)"),
        ("f(|)\ng(value)\nh)", "a)\ng(value)\nh", "a)"),
    ],
)
def test_next_lines(marked: str, text: str, expected: str) -> None:
    here = place(marked)
    assert without_next_lines(text, here.line, here.after) == expected


@pytest.mark.parametrize(
    ("before", "text", "expected"),
    [
        ("    return ", "return x", "x"),
        ("x = ", "x = 3", "3"),
        ("f(", "f(x)", "f(x)"),
        ("def f():\n    a = load()\n    ", "a = load()\n    return a", "return a"),
        ("    a = load()\n    b = a\n    ", "    a = load()\n    b = a\n    c", "c"),
        ("    a = load()\n\n    ", "a = load()", ""),
        ("i += 1\n", "i += 1", "i += 1"),  # too short to be sure
        ("a = load()\n", "b = load()\n", "b = load()\n"),
    ],
)
def test_lines_before(before: str, text: str, expected: str) -> None:
    assert without_lines_before(text, before) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("go()\n    go()\n    go()\n    stop()", "go()"),
        ("go()\n    go()\n    stop()", "go()\n    go()\n    stop()"),
        ("a\nb\n" * 5, "a\nb"),
        ("self self self", "self"),
        ("foo.bar(" + "x.y, " * 9, "foo.bar(x.y,"),
        ("[0, 0, 0, 0, 0, 0, 0, 0]", "[0, 0, 0, 0, 0, 0, 0, 0]"),
        ("}\n}\n}\n}", "}\n}\n}\n}"),
        ("1 + 1 + 1 + 1 + 1 + 1 + ", "1 +"),
        (r"x}\n{x}\n{x}\n{x}\n{x}\n{x}\n{x}", r"x}\n{"),
        ("-1, -1, -1, -1, -1, -1", "-1, -1, -1, -1, -1, -1"),
        # Letters of one word, and rows of signs.
        ("x = hahahahahahaha", "x = "),
        ("foo(self_self_self_self_self)", "foo("),
        ("aaaaaaaaaaaaaaaa", ""),
        ("x = ________________", "x = "),
        ("# " + "-" * 70, "# "),
        ("====" * 5, ""),
        ("x = =-=-=-=-=-=-=-=-", "x = "),
        ("etc. . . . . . . . . . .", "etc"),
        ("0xffffffffffffffff, 1000000000", "0xffffffffffffffff, 1000000000"),
        ("banana, Mississippi, test_test_a", "banana, Mississippi, test_test_a"),
        ("# ---- so ----", "# ---- so ----"),
    ],
)
def test_loops(text: str, expected: str) -> None:
    assert without_loops(text) == expected


def test_of_a_loop_one_round_is_shown() -> None:
    assert shown("x = |\n", "a.b + a.b + a.b + a.b + a.b + a.b") == "a.b"
    assert shown("|\n", "go()\ngo()\ngo()\ngo()") == "go()"


@pytest.mark.parametrize(
    ("marked", "text", "expected"),
    [
        ("foo(|)", "a, b)", "a, b"),
        ("foo(|\nx", "a, b))", "a, b)"),
        ("foo(|\nx", "a, b", "a, b"),
        ("x = |\ny", "foo(a, b", "foo"),
        ("|\ny", "a = 1\nb = foo(a,\n    b", "a = 1"),
        ("x = |", "f(')', \"]\")  # )", "f(')', \"]\")  # )"),
        ("x = |", "foo(a]", "foo"),
        ("x = '|'", "abc)", "abc)"),
        ("x = '|'", "abc' + 'd", "abc' + 'd"),
        ("x = |", "'abc", ""),
        ('"""|\n"""\nx', "see (1), a) and b)", "see (1), a) and b)"),
        ('"""|\n"""\nx', 'so."""', "so."),
        ("x = [\n|\n]", "    1,\n]", "    1,\n"),
        ("x = |", r"'\'(' + f('\\')", r"'\'(' + f('\\')"),
        # Nothing behind a string's hole is made something else by what stands in front of it.
        (r"x = 'a\|n'", "\\", ""),
        (r"x = 'a\|n'", r"b\\", "b\\"),
        ("x = 'a|b'", "c\\", "c"),
        ("x = 'a|b'", r"c\\", r"c\\"),
        ("x = 1 + |\n2", "\\", "\\"),
    ],
)
def test_brackets(marked: str, text: str, expected: str) -> None:
    assert balanced(text, place(marked)) == expected


@pytest.mark.parametrize(
    ("language_id", "text", "expected"),
    [
        ("rust", "&'a str, ')', x)", "&'a str, ')', x"),
        ("javascript", "')', `)\n)`, // )\n /* ) */ x)", "')', `)\n)`, // )\n /* ) */ x"),
        ("markdown", "it's so :)", "it's so :)"),  # nothing is known of it
    ],
)
def test_brackets_elsewhere(language_id: str, text: str, expected: str) -> None:
    assert balanced(text, place("f(|)", language_id)) == expected


@pytest.mark.parametrize(
    ("marked", "text", "expected"),
    [
        # The first line at the cursor.
        ("def f():\n    |\n", "    return x", "return x"),
        ("def f():\n|\n", "    return x", "    return x"),
        ("def f():\n    if x:\n    |\n", "    return 1", "    return 1"),
        ("def f():\n  |\n", "  return 1", "  return 1"),
        ("def f():\n    x\n  |\n", "  y", "  y"),
        ("def f():\n    |\n", "# so:\n    x = 1", "# so:\n    x = 1"),
        ("x = [\n  |\n]\n", "    1", "    1"),
        ("x = |", "  3", "3"),
        ("x =|", " 3", " 3"),
        # The others as far from it as they were.
        ("def f():\n    |\n", "    if x:\n        return 1", "if x:\n        return 1"),
        ("def f():\n    |\n", "if x:\n        return 1", "if x:\n        return 1"),
        ("def f():\n    |\n", "if x:\n    y()\nreturn 2", "if x:\n        y()\n    return 2"),
        ("if a:\n    if b:\n        |", "    if x:\n        y", "if x:\n            y"),
        # In the document's units.
        ("if a:\n\tif b:\n\t\t|\n", "if x:\n            y", "if x:\n\t\t\ty"),
        ("if a:\n\tif b:\n\t\t|\n", "x\n        y", "x\n\t\ty"),
        ("if a:\n  if b:\n    |\n", "if x:\n\t\t\ty", "if x:\n      y"),
        ("if a:\n\t|\n", 'x = """\n    y"""', 'x = """\n    y"""'),
    ],
)
def test_indentation(marked: str, text: str, expected: str) -> None:
    assert shown(marked, text) == expected


@pytest.mark.parametrize(
    ("marked", "text", "expected"),
    [
        ("def f():\n    |\n", "x = 1\n    return x\n\ndef g():\n    pass", "x = 1\n    return x"),
        ("if x:\n    |\n", "y = 1\nelse:\n    z = 2", "y = 1"),
        ("if x:\n|\n", "    y = 1\nz = 2", "    y = 1"),
        ("x = |\n", "[\n    1,\n]\ny = 2", "[\n    1,\n]\ny = 2"),
        ("if x:\n    |\n", 'y = """\ntext\n"""\n    z = 1', 'y = """\ntext\n"""\n    z = 1'),
    ],
)
def test_the_scope_is_left_only_if_somebody_asked(marked: str, text: str, expected: str) -> None:
    assert shown(marked, text, automatic=True).rstrip() == expected
    assert shown(marked, text, automatic=False) == text


@pytest.mark.parametrize(
    ("marked", "text", "expected"),
    [
        ("x = |\n", "3 4 5", "3"),
        ("x = |\n", "foo +", "foo"),
        ("|\n", "y = 2\nz = = 3\nw = 3", "y = 2"),
        ("|\n", "y = = 2\nz = 3", ""),
        ("x = |\n", "= 3", ""),
        ("if x:\n    |\n", "y = 1\n        z = 2", "y = 1"),
        ("if x:\n    |\n", "if y:", "if y:"),
        ("x = = 2\n|\n", "y = 1", "y = 1"),
        ("x = |\n", "1\n" * 30 + "= = 2", ("1\n" * 30).rstrip()),
    ],
)
def test_syntax(marked: str, text: str, expected: str) -> None:
    assert unbroken(text, place(marked)) == expected
    assert unbroken(text, place(marked, "klingon")) == text


@pytest.mark.parametrize(
    ("marked", "text", "expected"),
    [
        # Of a single line its whole words.
        ("x = |\n", "config", ""),
        ("x = |\n", "a + config", "a"),
        ("x = |\nconfig = 1\n", "a + config", "a + config"),
        ("config = 1\nx = con|\n", "fig", "fig"),
        ("config = 1\nx = con|\n", "figure", ""),
        ("x = f|\n", "oo(a)", "oo(a)"),
        ("# What |\n", "is don", "is"),
        # No string is left open.
        ("x = |\n", "open('na", "open"),
        ("x = |\nopen\n", "open + 'na", "open"),
        # Of several lines the whole ones.
        ("|\n", "x = 1\ny = 2\nz = 3", "x = 1\ny = 2"),
        ("x = |\n", '"""Some.\n\nMore', ""),
        ("|\n", "\n    config", ""),
    ],
)
def test_what_stops_in_the_middle(marked: str, text: str, expected: str) -> None:
    polished = polish(text, around(marked), automatic=True, whole=False)
    assert polished.text == expected
    assert bool(polished.text) == (polished.reason is None)


@pytest.mark.parametrize(
    ("marked", "text", "expected"),
    [
        ("x = |", "1" + "\n" * 26, "1"),
        ("x = |\n", "1\n    \n\t\n", "1"),
        ("x = |\n\n\ny = 2\n", "1\n\n\n\n\n", "1"),
        ("x = |   \ny = 2\n", "1  \n\n", "1"),
        ("def f():\n    |", "return 1\n\n\n    ", "return 1"),
        # Where the line goes on it may begin a line of its own, but leaves no blank ones.
        ("x = [\n|]\n", "    1,\n\n\n", "    1,\n"),
        ("x = f(a, |b)\n", "c, ", "c, "),
    ],
)
@pytest.mark.parametrize("automatic", [True, False])
def test_what_is_inserted_ends_with_its_last_line(
    marked: str, text: str, expected: str, automatic: bool
) -> None:
    assert shown(marked, text, automatic) == expected


@pytest.mark.parametrize(
    ("marked", "text", "expected"),
    [
        ("|", "    x = 1", "x = 1"),
        ("|", "    if x:\n        y()\n    z()", "if x:\n    y()\nz()"),
        ("\n\n\n|", "        x = 1", "x = 1"),
        ("\n|\n\nx = 1\n", "    y = 1", "y = 1"),
        ("|x = 1\n", "    y = ", "y = "),
        ("# Comment.\n|\n", "    y = 1", "y = 1"),
        ('"""Doc."""\n\n|\n', "    y = 1", "y = 1"),
        ("import x\n|", "\ty = 1\n\tz = 2", "y = 1\nz = 2"),
        ("def f():\n    x = 1\n|\n", "        y = 1\n        z = 2", "    y = 1\n    z = 2"),
        ("def f():\n    x = 1\n\n# so\n|\n", "    y = 1", "    y = 1"),
        ("def f():\n|\n", "        y = 1\n        z = 2", "    y = 1\n    z = 2"),
    ],
)
def test_what_begins_at_the_start_of_a_line_is_no_deeper_than_it_can_be(
    marked: str, text: str, expected: str
) -> None:
    assert shown(marked, text, automatic=False) == expected


@pytest.mark.parametrize(
    ("marked", "text", "why"),
    [
        ("x = |\n", " \n", "nothing to add"),
        ("x = load()\n|\n", "x = load()", "repeats what comes before"),
        ("|\nx = load()\n", "x = load()", "repeats what follows"),
        ("f(|)\n", ")))))))", "repeats what follows"),
        ("x = |\n", "]", "brackets"),
        ("x = |\n", "= 3", "break the syntax"),
        ("if x:\n    |\n", "\ny = 2", "outside of the block"),
    ],
)
def test_the_reason_for_showing_nothing(marked: str, text: str, why: str) -> None:
    assert why in shown(marked, text).partition("NOTHING: ")[2]


@pytest.mark.parametrize(
    ("max_lines", "expected"), [(None, "a\nb\nc"), (1, "a"), (2, "a\nb"), (3, "a\nb\nc")]
)
def test_lines(max_lines: int | None, expected: str) -> None:
    assert polish("a\nb\nc", Around("", "\nd"), max_lines=max_lines).text == expected
    reason = polish("\nb", Around("if x:", "\n"), max_lines=1).reason
    assert reason is not None
    assert "max_lines" in reason


def test_what_a_person_wrote_is_shown_as_it_is() -> None:
    draw = random.Random(0)
    sources = [path.read_text("utf-8") for path in sorted(PACKAGE.glob("*.py"))]
    tried = shown_whole = 0
    while tried < 300:
        lines = draw.choice(sources).split("\n")
        first, count = draw.randrange(len(lines)), draw.choice([1, 1, 2, 4])
        line = lines[first]
        column = draw.choice([len(line) - len(line.lstrip()), draw.randrange(len(line) + 1)])
        middle = "\n".join([line[column:], *lines[first + 1 : first + count]]).rstrip()
        if not middle.strip():
            continue
        before = "\n".join([*lines[:first], line[:column]])
        after = "\n".join(["", *lines[first + count :]])
        tried += 1
        shown_whole += polish(middle, Around(before, after, "python")).text == middle
    assert shown_whole >= 0.97 * tried


# ---- for any text ----


def visible(text: str) -> str:
    return "".join(text.split())


@cases(1_500)
@given(
    texts | code,
    texts | code,
    texts | code,
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.none() | st.integers(1, 3),
    st.booleans(),
    languages,
)
def test_a_filling_is_only_ever_shortened_or_indented(
    before: str,
    text: str,
    after: str,
    newline: str,
    max_lines: int | None,
    automatic: bool,
    language_id: str,
) -> None:
    here = Around(before, after, language_id, newline)
    polished = polish(text, here, automatic=automatic, max_lines=max_lines)
    assert visible(polished.text) in visible(text)
    assert bool(polished.text) == bool(polished.text.strip()) == (polished.reason is None)
    rest = polished.text.replace(newline, "")
    assert rest.count("\n") == rest.count("\r") == 0
    if max_lines is not None:
        assert polished.text.count(newline) < max_lines


@cases(1_500)
@given(code, code, code, st.booleans(), languages)
def test_nothing_gets_worse(
    before: str, text: str, after: str, automatic: bool, language_id: str
) -> None:
    polished = polish(text, Around(before, after, language_id), automatic=automatic).text
    assert not Around(before, after, language_id).site.broken_by(polished)
    if polished and language_id != "klingon":
        here = Site(before, after, language_of(language_id))
        assert balanced(polished, here) == polished


@cases(2_000)
@given(texts, texts)
def test_once_is_enough(text: str, suffix: str) -> None:
    once = without_overlap(text, suffix)
    assert without_overlap(once, suffix) == once


@cases(1_000)
@given(texts, st.text("abc(", min_size=8, max_size=30), texts)
def test_a_long_repetition_never_stays(text: str, repeated: str, more: str) -> None:
    assert not without_overlap(text + repeated, repeated + more).endswith(repeated)


@cases(1_000)
@given(texts, st.text("xyz", min_size=1, max_size=30))
def test_what_repeats_nothing_stays_whole(text: str, suffix: str) -> None:
    assert without_overlap(text, suffix) == text


@cases(1_000)
@given(code, code, languages)
def test_a_text_can_be_read_in_parts(first: str, second: str, language_id: str) -> None:
    language = language_of(language_id)
    marks = [*language.strings, *(mark for pair in language.comments for mark in pair), "\\"]
    seam = first[-2:] + second[:2]
    if any(len(mark) > 1 and mark[0] in seam for mark in marks) or "\\" in seam or "'" in seam:
        return  # something that counts lies across the seam
    if "'" in first.rpartition("\n")[2] and "'" in second.partition("\n")[0]:
        return  # as a character in quotes may do, however it is written
    parts = BracketState().over(first, language).over(second, language)
    assert parts == BracketState().over(first + second, language)


@settings(deadline=None)
@given(
    st.text(
        st.sampled_from("ab \n\x00\x07\x0c\x1b\x7f\x9b\u061c\u200e\u202e\u2066\u2069é🎈"),
        max_size=30,
    )
)
def test_nothing_unseen_comes_out_of_a_suggestion(middle: str) -> None:
    text, _ = polish(f"name = '{middle}'\n", Around("", ""))
    allowed = "\n\t"
    assert not [c for c in text if unicodedata.category(c) in ("Cc", "Cf") and c not in allowed]


def test_what_is_seen_comes_out_of_it() -> None:
    text, _ = polish("name = 'a\u202e\x1b[1mé🎈'", Around("", ""))
    assert text == "name = 'a[1mé🎈'"


def test_what_is_rewritten_keeps_the_unseen_that_it_had() -> None:
    assert harmless("a\x0cb\u202e\x1b", "x\x0cy") == "a\x0cb"


@pytest.mark.parametrize(
    ("line", "text", "kept"),
    [
        ("        for ", "ride in", "ride in"),
        ("        for ", "ride", "ride"),
        ("    ", "def __init__", "def __init__"),
        ("    def total(self, bike: str", " = 'road') ->", " = 'road')"),
        ("        return sum(", "ride.km for ride in", "ride.km for ride in"),
        ("        with ", "open(path) as", "open(path) as"),
        ("        x = ", "self.rides +", "self.rides"),
        ("        x = ", "self.rides and not", "self.rides and not"),
        ("        x = a if ", "b", "b"),
        ("        x = ", "lambda row", "lambda row"),
        ("from ", "csv", "csv"),
        ("        ", "def def", ""),
        ("        x = ", "1 +* 2", "1"),
    ],
)
def test_what_was_cut_off_breaks_nothing_that_it_may_yet_keep(
    line: str, text: str, kept: str
) -> None:
    above = "class Log:\n    def __init__(self):\n        pass\n\n"
    site = Around(f"{above}{line}", "\n", "python").site
    assert unbroken(text, site, whole=False) == kept
    assert len(unbroken(text, site)) <= len(kept), "of what is whole no more is kept"


def test_what_is_less_likely_than_nothing_does_not_come_by_itself() -> None:
    around = Around("x = ", "\n", "python")
    others = (Other("", 0.3), Other("2", 0.2))
    for automatic, shown in ((True, ["1", ""]), (False, ["1", "", "2"])):
        answers = Answer(("1",), 0.4, others=others).for_the_hole(automatic)
        found = offers(answers, around, automatic=automatic)
        assert [one.polished.text for one in found] == shown
    # An answer that was cut off before its first word says nothing of what is likely.
    cut_off = Answer(("",), None, finished=False, others=others, whole=False)
    assert len([*cut_off.for_the_hole(automatic=True)]) == 2


@pytest.mark.parametrize(
    ("confidence", "least", "invoked", "finished", "why"),
    [
        (0.5, 0.5, False, True, None),
        (0.49, 0.5, True, True, "only 49% sure"),
        (0.0, 0.0, False, True, None),
        (None, 0.0, False, False, None),
        (None, 0.5, True, False, None),
        (None, 0.5, False, False, "time was up before it was known how sure"),
        (None, 0.5, False, True, "does not say how sure it is of this: min_confidence 0"),
    ],
)
def test_why_what_the_model_is_less_sure_of_is_not_shown(
    confidence: float | None, least: float, invoked: bool, finished: bool, why: str | None
) -> None:
    said = doubt(confidence, least, invoked, finished)
    assert said is None if why is None else why in (said or "")


def test_how_sure_the_model_is_was_measured_of_one_line() -> None:
    assert measured(0.5, "x = 1") == measured(0.5, "\n    x = 1\n") == 0.5
    assert measured(0.5, "x = 1\ny = 2") is None
    assert measured(None, "x") is None
