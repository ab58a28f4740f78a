"""Whether a filling breaks the syntax."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffgemma_lsp.syntax import languages
from diffgemma_lsp.syntax.check import CHARS, LINES_AFTER, LINES_BEFORE, Site, excerpt
from diffgemma_lsp.syntax.languages import (
    Grammar,
    Language,
    in_ascii,
    language_id_of,
    language_of,
    parse,
    without_magics,
)
from diffgemma_lsp.syntax.python_check import LONGEST, compiles, pieces
from diffgemma_lsp.text.text import Point, Text
from engine.models import languages_of
from tests.cases import cases


def breaks(before: str, middle: str, after: str, language_id: str) -> bool | None:
    return Site(before, after, language_of(language_id)).broken_by(middle)


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
    place = Site(before, after, language_of("python"))
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
    rows = "    'a': 1,\n" * 10 * LINES_BEFORE
    assert breaks("x = {\n" + rows, "    = = =\n", rows + "}\n", "python") is None


def test_long_lines_are_looked_at_in_part() -> None:
    place = Site("x = 1; " * 100_000, " + 1" * 100_000, language_of("python"))
    assert len(place.before) <= CHARS
    assert len(place.after) <= CHARS


def test_a_place_deep_in_a_class() -> None:
    before = "class A:\n" + "    def f(self):\n        return 1\n\n" * 500
    after = "\n" + "    def f(self):\n        return 1\n\n" * 500
    assert breaks(before, "    def g(self):\n        return 2\n", after, "python") is False
    assert breaks(before, "    def g(self)\n        return 2\n", after, "python") is True


@cases(500)
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


@cases(1_000)
@given(st.text(max_size=40))
def test_a_byte_of_the_tree_is_a_character(string: str) -> None:
    plain = in_ascii(string)
    assert len(plain) == len(plain.encode()) == len(string)
    tree = parse(string, language_of("python"))
    assert tree is not None
    assert tree.root_node.end_byte <= len(string)


@cases(1_000)
@given(*[st.text("ab:(])='\" \n\r\té\\@#", max_size=30)] * 3)
def test_any_text_has_an_answer(before: str, middle: str, after: str) -> None:
    assert breaks(before, middle, after, "python") in (True, False)
    assert breaks(before, " ", after, "python") is False


# ---- what Python says ----

SOUND = "def f(a):\n    x = |\n    return x\n"
ABOVE = [
    "x = sys.\n\n",
    "foo(\n\n",
    "%matplotlib inline\n!pip install it's\n\n",
    "<<<<<<< HEAD\nx = 1\n=======\nx = 2\n>>>>>>> theirs\n",
    "def g(:\n    return\n\n",
    "x = [1, 2\ny = {3: \n\n",
    "    unexpected = 1\n",
    "class A(\n    def f(self) return\n",
]


@pytest.mark.parametrize("above", ABOVE)
@pytest.mark.parametrize("filling", ["= 3", "3 4", "foo(a", "a\n      b", "foo(b=1, a)"])
def test_what_is_broken_above_is_no_excuse(above: str, filling: str) -> None:
    marked = above + SOUND
    assert check(marked, "a + 1") is False
    before, _, after = marked.partition("|")
    place = Site(before, after, language_of("python"))
    assert place.worsened_by(filling, None)
    assert place.worsened_by(filling, "a + 1"), "a rewrite"
    assert not place.worsened_by("a + 1", None)
    assert not place.worsened_by("a + 1", "= 3"), "what was broken may stay so, or get better"


def test_a_method_of_a_class_that_is_broken_elsewhere() -> None:
    marked = (
        "class A:\n    x = = 1\n\n    def f(self):\n        y = |\n        return y\n\n    def g("
    )
    assert check(marked, "self.x") is False
    assert check(marked, "3 4") is True
    assert check(marked.replace("        y", "        async with a: await b\n        y"), "3 4")


@pytest.mark.parametrize(
    ("marked", "middle"),
    [
        ("def f(a, |): pass\n", "a"),
        ("x = 1\n|\n", "return x"),
        ("class A:\n    x = 1\n    |\n", "return x"),
        ("def f():\n    |\n", "self.name =\n    value"),
        ("f(a=1, |)\n", "b"),
        ("f(height=height, |)\n", "height=height"),
        ("x = open(p)|\n", " as file"),
        ("def f():\n    |\n", "break"),
        ("|\n", "nonlocal x"),
        ("x = 1\n|\n", "def f():\nx = 2"),
        # In strings, and where they meet what is filled in.
        ('x = f"{sum(args|)}"\n', "args)): {sum(args"),
        ('x = f"{x:{width|}}"\n', "+"),
        ("x = f\"{f'{sum(a|)}'}\"\n", "b)) {"),
        ('x = f"""\n{x|}\n"""\n', ")"),
        ('x = "====|"\n', "\\"),
        ('x = "|"\n', '"'),
        ("x = f'{{{a|}}}'\n", "}"),
        ("x = f'{a|!r}'\n", "b c"),
        # What begins on this side of the hole, and goes on as a magic only looks like one.
        ("x = a |%b\n", "c d"),
        # Strings that are only begun, as in an editor that closes none.
        ("x = 'ab |\n", "'c'"),
        ("x = f'ab {|\n", "}"),
        ("print(f'ab {n|\n", "+"),
        ("print(f'ab {n|')\n", "a"),
        ("x = f\"{d['a|\n", "']]"),
        ("from __future__ import |\n", "nothing"),
    ],
)
def test_what_python_refuses(marked: str, middle: str) -> None:
    assert check(marked, middle) is True
    assert check("y = 2\n\n" + marked + "\nz = 3\n", middle) is True


@pytest.mark.parametrize(
    ("marked", "middle"),
    [
        ("def f():\n    |\n", "return x"),
        ("async def f():\n    async with x:\n        y = |\n", "await z"),
        ("x = |\n", "await y"),  # a notebook may
        ("while x:\n    |\n", "break"),
        ('x = f"{x|}"\n', ".y!r:>{width}"),
        ('"""|"""\n', "f(\n= = x"),
        ("def f():\n    |\n", "try:"),
        ("def f():\n    |\n", "try:\n        x = 1"),
        ("def f():\n    |\n    y()\n", "try:\n        x = 1\n    except E:\n        pass"),
        ("x = f'{{{a|}}}'\n", "!r"),
        ("x = f'{a|!r}'\n", ".b"),
        ("x = a |%b\n", "%c"),
        ("x = 'ab |\n", "c"),
        ("x = 'ab |\n", "c'"),
        ("x = ('ab |\n", "c'"),
        ("x = f'ab {|\n", "n"),
        ("x = f'ab {n|\n", "}"),
        ("x = f'ab {n:>{w|\n", "}"),
        ("print(f'ab {n|')\n", "}"),
        ("x = f\"{d['a|\n", "']"),
        ('x = """ab |\n', "c"),
        ("from __future__ import |\n", "annotations"),
        ("from __future__ import |\n", "annotations, division"),
        # Another Python: nothing that it knows is refused, since nothing is sound for this one.
        ("print 'a'\nx = |\n", "1"),
        ("print 'a', |\n", "x"),
        ("exec 'a'; x = |\n", "1"),
    ],
)
def test_what_python_takes(marked: str, middle: str) -> None:
    assert check(marked, middle) is False


@pytest.mark.parametrize(
    "line",
    [
        "%matplotlib inline",
        "%%time",
        "!pip install it's",
        "files = !ls '",
        "x = %who",
        "foo?",
        "?x",
    ],
)
def test_magics_are_no_errors(line: str) -> None:
    assert len(without_magics(line)) == len(line)
    assert compiles(without_magics(f"{line}\nif x:\n    {line}\n"))
    assert check(f"{line}\nx = |\n{line}\n", "3") is False
    assert check(f"{line}\nx = |\n{line}\n", "3 4") is True


@pytest.mark.parametrize(
    ("marked", "middle", "wrong"),
    [
        ("x = (1 if y |)\n", "else 2", "2"),
        ("x = [a if |]\n", "b else c", "b"),
        ("[x for x |]\n", "in y", "y"),
        ("for x |:\n    pass\n", "in y", "y"),
        ("x = a not |\n", "in b", "b"),
        ("from os |\n", "import x", "x"),
        ("async |\n", "def f():", "f():"),
        ("try:\n    x = 1\n|\n", "except E as e:\n    pass", "x = 2"),
        ("def f():\n    try:\n        x = 1\n    |\n    return x\n", "finally:\n        y", "y"),
        ("match x:\n    |\n", "case 1:", "x = 2"),
        ("def f(x):\n    |\n    y()\n", "match x:\n        case 1:", "match x:\n        y = 2"),
        ("def f(x):\n    match |\n", "x:", "x: y"),
        ("@x\n|\n", "class A:", "y = 2"),
        ("class A:\n    @x\n    |\n\n    def g(self): pass\n", "def f(self): pass", "y = 2"),
    ],
)
def test_what_a_place_waits_for(marked: str, middle: str, wrong: str) -> None:
    assert check(marked, middle) is False
    assert check(marked, wrong) is True


@pytest.mark.parametrize("above", ["   \n", "\n\t\n\n", "\ufeff", "\ufeff# so\n"])
def test_what_nobody_sees_above_the_first_statement(above: str) -> None:
    assert check(above + "|", "x = 1") is False
    assert check(above + "|", "return x") is True


def test_what_only_looks_like_a_magic_stays() -> None:
    text = "x = (a\n    % b)\ny = a % b\nif a != b: pass\n'%s' % x\n# ====\n"
    assert without_magics(text) == text


def test_what_is_compiled_is_never_long() -> None:
    function = FUNCTION.format("") * 20
    for piece in pieces(function * 20 + "x = ", "\n" + function * 20):
        assert len(piece.before + piece.after) <= LONGEST


@pytest.mark.parametrize(
    ("name", "language"),
    [
        ("a/style.CSS", "css"),
        ("index.html", "html"),
        ("index.htm", "html"),
        (".github/workflows/test.yml", "yaml"),
        ("values.yaml", "yaml"),
        ("pyproject.toml", "toml"),
        ("a.py", "python"),
        ("css", ""),
    ],
)
def test_the_language_of_a_file(name: str, language: str) -> None:
    assert language_id_of(name) == language


@pytest.mark.parametrize("model", ["nano", "mini"])
def test_what_a_model_has_learned_has_a_suffix(model: str) -> None:
    suffixes = "py c cpp css go html java js jsx rs toml ts tsx yaml".split()  # noqa: SIM905
    known = {language_id_of(f"a.{suffix}") for suffix in suffixes}
    learned = languages_of(model)
    assert learned
    assert set(learned) <= known
