"""What could be written at a selection, and what a user left open in it."""

from __future__ import annotations

import ast

import pytest
from applying import edited
from hypothesis import given
from hypothesis import strategies as st

from diffgemma_lsp.syntax.missing import Offer, offers
from diffgemma_lsp.syntax.placeholders import Gap, holes_in
from diffgemma_lsp.text.diff import Edit
from diffgemma_lsp.text.text import Point, Text
from tests.cases import cases

SOURCE = '''import x

def plain(a, b=1, *args, c: int, d: str = "x", **more):  # comment
    # TODO: do it
    pass

class Shape(Base):
    size = 3

    def area(self, unit): ...

    @staticmethod
    def of(size) -> int:
        """Doc."""
        raise NotImplementedError("soon")

    @abstractmethod
    def name(self) -> str:
        ...

    def done(self) -> int:
        """Doc."""
        return self.size

class Named(Protocol):
    """Doc."""

    def name(self) -> str: ...

def later():
    # TODO

def told() -> None:
    """Doc."""
'''


def around(source: str, gaps: tuple[Gap, ...] | list[Gap], word: str = "_") -> str:
    """The source with `word` filled into all gaps."""
    text = Text.of(source)
    return edited(
        source,
        [
            Edit(text.offset(gap.start), text.offset(gap.end), gap.before + word + gap.after)
            for gap in gaps
        ],
    )


def found(source: str, first: str = "", last: str = "") -> dict[tuple[str, str], Offer]:
    """The offers from where `first` stands to where `last` does."""
    text = Text.of(source)
    start = text.point(source.index(first)) if first else Point(0, 0)
    end = text.point(source.index(last) + len(last)) if last else start if first else text.end
    return {(offer.name, offer.kind): offer for offer in offers(text, start, end, "python")}


def test_all_that_is_missing() -> None:
    assert set(found(SOURCE)) == {
        ("plain", "docstring"),
        ("plain", "hints"),
        ("plain", "body"),
        ("Shape", "docstring"),
        ("area", "docstring"),
        ("area", "hints"),
        ("area", "body"),
        ("of", "hints"),
        ("of", "body"),
        ("name", "docstring"),
        ("done", "docstring"),
        ("later", "docstring"),
        ("later", "hints"),
        ("later", "body"),
        ("told", "body"),
    } - {("done", "docstring")}


@pytest.mark.parametrize(
    ("first", "last", "names"),
    [
        ("import", "", set()),
        ("unit", "", {"area"}),
        ("size = 3", "", {"Shape"}),
        ("@staticmethod", "", {"of"}),
        ("class Shape", "", {"Shape"}),
        ("unit", "@static", {"Shape", "area", "of"}),
        ("return self.size", "", set()),
        ("# TODO\n", "", set()),  # the blank line above already belongs to no function
        ("def later", "", {"later"}),
    ],
)
def test_only_what_is_selected(first: str, last: str, names: set[str]) -> None:
    assert {name for name, _ in found(SOURCE, first, last)} == names


def test_hints_go_where_they_belong() -> None:
    here = found(SOURCE)
    filled = around(SOURCE, here["plain", "hints"].gaps)
    head = 'def plain(a: _, b: _ = 1, *args: _, c: int, d: str = "x", **more: _) -> _:  # comment'
    assert head in filled
    assert "def area(self, unit: _) -> _: ..." in around(SOURCE, here["area", "hints"].gaps)
    assert "def of(size: _) -> int:" in around(SOURCE, here["of", "hints"].gaps)


def test_docstrings_go_where_they_belong() -> None:
    here = found(SOURCE)
    for name in ("plain", "Shape", "area", "name"):
        tree = ast.parse(around(SOURCE.replace("# TODO\n", "pass\n"), here[name, "docstring"].gaps))
        documented = [
            node.name
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) == "_"
        ]
        assert documented == [name]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain", "  # comment\n    _\n\nclass"),
        ("area", "def area(self, unit):\n        _\n\n"),
        ("of", '        """Doc."""\n        _\n\n'),
        ("later", "def later():\n    _\n\n"),
        ("told", 'def told() -> None:\n    """Doc."""\n    _\n'),
    ],
)
def test_bodies_go_where_they_belong(name: str, expected: str) -> None:
    assert expected in around(SOURCE, found(SOURCE)[name, "body"].gaps)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f() -> int:", "def f() -> int:\n    _"),
        ("def f() -> int:\n\n\nx = 1\n", "def f() -> int:\n    _\n\n\nx = 1\n"),
        ("class A:\n\tdef f(self) -> int: pass\n", "class A:\n\tdef f(self) -> int:\n\t\t_\n"),
        ("def f():\r\n    pass\r\n", "def f():\r\n    _\r\n"),
        ("def f():\r    pass\r", "def f():\r    _\r"),
        ("def f():\n    pass\n    # TODO more\n", "def f():\n    _\n"),
        ("def f():\n    pass  # TODO\n\nx = 1", "def f():\n    _\n\nx = 1"),
        ('def f(): """Doc."""\n', 'def f():\n    """Doc."""\n    _\n'),
        ('def f(): """Doc."""; ...\n', 'def f():\n    """Doc."""\n    _\n'),
        ('def f(): """Doc."""', 'def f():\n    """Doc."""\n    _'),
        ("class A:\n\tdef f(self): 'Doc.'\n", "class A:\n\tdef f(self):\n\t\t'Doc.'\n\t\t_\n"),
        ("é = '😀'\ndef f(ä):\n    pass\n", "é = '😀'\ndef f(ä):\n    _\n"),
    ],
)
def test_bodies(source: str, expected: str) -> None:
    assert around(source, found(source)["f", "body"].gaps) == expected


@pytest.mark.parametrize(
    "source", ["def f(a, b\n    pass\n", "def f(a b):\n    pass\n", "lambda a: ...", "def"]
)
def test_what_is_broken_gets_no_offer(source: str) -> None:
    assert found(source) == {}


@pytest.mark.parametrize(
    "above",
    [
        "x = sys.\n",
        "x = foo(1,\n",
        "s = 'abc\n",
        "class B(\n",
        "<<<<<<< a\nx = [\n=======\nx = (\n>>>>>>> b\n",
        "if x\n    y\n",
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_what_is_broken_above_keeps_no_offer_back(above: str, newline: str) -> None:
    source = (
        "\n@a\nclass A(\n    C,\n):\n    é = 1\n\n    @b\n    def f(self, a):\n        pass\n\n"
    )
    source = (above + source + "z = [\n\ny = (\n").replace("\n", newline)
    offered = found(source, "pass")
    assert {*offered} == {("f", "docstring"), ("f", "hints"), ("f", "body")}
    assert around(source, offered["f", "body"].gaps) == source.replace("pass", "_")
    hinted = around(source, offered["f", "hints"].gaps)
    assert hinted == source.replace("(self, a):", "(self, a: _) -> _:")
    assert {*found(source, "@a", "é")} == {("A", "docstring")}


def test_nothing_without_a_grammar() -> None:
    text = Text.of(SOURCE)
    assert offers(text, Point(0, 0), text.end, "klingon") == []


HOLES = """x: tuple[int, ...] = ...
def f(a: Callable[..., int], b: int = ...) -> int: ...
y = foo(..., ___) + a[..., 1]  # ... ___
s = "... ___ TODO"
    # TODO: more
z = 1  # TODO: not alone
_ = __ + ____x
A = Callable[..., int]
<fill me>
return ____
"""


def holes(source: str, language_id: str, *markers: str) -> list[str]:
    text = Text.of(source)
    gaps = holes_in(text, Point(0, 0), text.end, language_id, markers)
    return [f"{gap.start.line}:{text.between(gap.start, gap.end)}" for gap in gaps]


def test_holes() -> None:
    expected = ["0:...", "1:...", "2:...", "2:___", "4:# TODO: more", "9:____"]
    assert holes(HOLES, "python") == expected
    assert holes(HOLES, "python", "<fill me>", "", "me")[5:] == ["8:<fill me>", "9:____"]


def test_holes_without_a_grammar() -> None:
    source = "f(...args, ...)\n  // TODO: this\n  # TODO that\r___ = [...a]; x = y ? ... : ___;\n"
    expected = ["0:...", "1:// TODO: this", "2:# TODO that", "3:___", "3:...", "3:___"]
    assert holes(source, "klingon") == expected


MEANT = """class A(Protocol[T]):
    def f(self): ...
    def g(self):
        \"\"\"Doc.\"\"\"
        ...
class B:
    @property
    @abc.abstractmethod
    def f(self): ...
    @overload
    async def g(self, a: int): ...
    def h(self): ...
def of(x=...): ...
x = f(...)
if typing.TYPE_CHECKING:
    def read(x): ...
class M(BaseModel):
    a: int = Field(..., gt=0)
    b: int = pydantic.Field(...)
    c: int = Fielder(...)
"""


def test_dots_that_are_meant_are_no_holes() -> None:
    assert holes(MEANT, "python") == ["11:...", "12:...", "13:...", "19:..."]
    text = Text.of(MEANT)
    assert holes_in(text, Point(0, 0), text.end, "python", stub=True) == []
    marked = Text.of(MEANT + "<m>")
    assert len(holes_in(marked, Point(0, 0), marked.end, "python", ["<m>"], stub=True)) == 1
    found = offers(text, Point(0, 0), text.end, "python")
    assert [offer.name for offer in found if offer.kind == "body"] == ["h", "of"]
    found = offers(text, Point(0, 0), text.end, "python", stub=True)
    assert [offer for offer in found if offer.kind == "body"] == []


def test_only_the_holes_that_are_selected() -> None:
    text = Text.of("... + ... + ...\n")
    assert holes_in(text, Point(0, 1), Point(0, 14), "python") == [Gap(Point(0, 6), Point(0, 9))]
    assert holes_in(text, Point(0, 1), Point(0, 14), "klingon") == [Gap(Point(0, 6), Point(0, 9))]
    assert holes_in(text, Point(0, 6), Point(0, 6), "python") == []


PIECES = ["...", "___", "# TODO", "<m>", "m", " ", "\n", "\r\n", "\r", '"', "(", ")", "[", "x", "é"]
PIECES += ["def f(a):", "class A:", "pass", "    ", ": ", "@", "x = ", "raise NotImplementedError"]
sources = st.lists(st.sampled_from(PIECES), max_size=25).map("".join)


@cases(1_500)
@given(sources, st.sampled_from(["python", "klingon"]), st.data())
def test_ranges_are_in_order_and_within(source: str, language_id: str, data: st.DataObject) -> None:
    text = Text.of(source)
    first, last = sorted(data.draw(st.tuples(*[st.integers(0, len(source))] * 2)))
    start, end = text.point(first), text.point(last)
    gaps = holes_in(text, start, end, language_id, ["<m>", "m"])
    places = [start, *(point for gap in gaps for point in (gap.start, gap.end)), end]
    assert places == sorted(places)
    for gap in gaps:
        hole = text.between(gap.start, gap.end)
        assert hole in ("...", "<m>", "m") or set(hole) == {"_"} or "TODO" in hole
    for offer in offers(text, start, end, language_id):
        places = [point for gap in offer.gaps for point in (gap.start, gap.end)]
        assert places == sorted(places)
        assert offer.gaps
