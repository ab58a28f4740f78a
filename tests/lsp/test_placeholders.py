"""Holes are found where the text says so; a walk over the whole tree finds the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffgemma_lsp.syntax import missing, placeholders
from diffgemma_lsp.syntax.languages import language_of, parse
from diffgemma_lsp.syntax.placeholders import holes_in
from diffgemma_lsp.text.text import Text
from tests.cases import cases

if TYPE_CHECKING:
    from tree_sitter import Node

ROOT = Path(__file__).resolve().parents[2]
IN_TYPES = {
    "type",
    "generic_type",
    "type_parameter",
    "subscript",
    "default_parameter",
    "typed_default_parameter",
}
PIECES = [
    *("...", "....", "___", "____x", "# TODO", "#", "# ... TODO: x", " ", "\n", "\r\n", '"', "'"),
    *("(", ")", "[", "]", "x", "é", ": ", ", ", " = ", "def f(a", "):", "class A:", "    "),
    *("-> int: ...", "f'{...}'", "x[...]", "\n    ..."),
]


def walked(piece: str) -> Iterator[tuple[int, int]]:
    """The holes of a whole text, by looking at every node. Of dots all, meant or not."""
    tree = parse(piece, language_of("python"))
    assert tree is not None
    nodes: list[Node] = [tree.root_node]
    while nodes:
        node = nodes.pop()
        text = piece[node.start_byte : node.end_byte]
        line = piece[: node.start_byte].replace("\r", "\n").rpartition("\n")[2]
        if (
            node.type == "ellipsis"
            or (node.type == "identifier" and re.fullmatch(r"_{3,}", text))
            or (node.type == "comment" and re.match(r"\W*TODO\b", text) and not line.strip(" \t"))
        ):
            yield node.start_byte, node.end_byte
        else:
            nodes += [child for child in node.children if child.type not in IN_TYPES]


def found(source: str, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    def never(ellipsis: Node, piece: str) -> bool:
        return False

    monkeypatch.setattr(placeholders, "_is_meant", never)
    text = Text.of(source)
    gaps = holes_in(text, text.point(0), text.end, "python")
    return [(text.offset(gap.start), text.offset(gap.end)) for gap in gaps]


@cases(3_000)
@given(st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
def test_no_hole_is_passed_over(source: str) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert found(source, monkeypatch) == sorted(walked(source))


def test_definitions_are_where_they_were_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for path in sorted((ROOT / "engine").rglob("*.py")):
        text = Text.of(path.read_text(encoding="utf-8"))
        quick = missing.offers(text, text.point(0), text.end, "python")
        with monkeypatch.context() as context:
            context.setattr(missing, "_WITHOUT_DEFINITIONS", frozenset[str]())
            assert missing.offers(text, text.point(0), text.end, "python") == quick
