"""What could be written at a selection, by the syntax around it.

A docstring that is missing, type hints that are missing, a body that is yet to be written: each is
an `Offer` with the exact gaps to fill. A language gets offers by a function in `_OFFERS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from diffgemma_lsp.syntax.check import excerpt
from diffgemma_lsp.syntax.enclosing import by_itself
from diffgemma_lsp.syntax.indentation import DEFAULT_UNIT, indentation, unit_of
from diffgemma_lsp.syntax.languages import language_of, parse
from diffgemma_lsp.syntax.placeholders import Gap, class_around, decorators, is_bodiless
from diffgemma_lsp.text.text import Point, Text, with_line_ends

if TYPE_CHECKING:
    from tree_sitter import Node

Kind = Literal["docstring", "hints", "body"]

_TODO = re.compile(r"#\W*TODO\b")
# Most nodes of a file are in these.
_WITHOUT_DEFINITIONS = frozenset(
    {
        "assert_statement",
        "comment",
        "delete_statement",
        "expression_statement",
        "import_from_statement",
        "import_statement",
        "parameters",
        "raise_statement",
        "return_statement",
    }
)
_NOT_IMPLEMENTED = re.compile(r"raise\s+NotImplementedError\b")


@dataclass(frozen=True, slots=True)
class Offer:
    """Something that is missing in the function or class `name`, and the gaps to fill."""

    kind: Kind
    name: str
    gaps: tuple[Gap, ...]


def offers(
    text: Text, start: Point, end: Point, language_id: str, stub: bool = False
) -> list[Offer]:
    """What is missing in the definitions at the selection, or around it if it is within one.

    Of definitions around the selection only the innermost counts. Nothing without a grammar, and no
    body in a stub.
    """
    find = _OFFERS.get(language_id)
    piece, offset = excerpt(text, start, end)
    if find is None or (tree := parse(piece, language_of(language_id))) is None:
        return []
    first, last = text.content(start.line), text.content(end.line)
    low = text.offset(Point(start.line, len(indentation(first)))) - offset
    high = text.offset(Point(end.line, len(last.rstrip()))) - offset
    if tree.root_node.has_error and (alone := by_itself(piece, low, high)) is not None:
        tree = parse(alone, language_of(language_id)) or tree
    source = _Source(text, piece, offset, stub)
    return [
        offer
        for definition in _definitions(tree.root_node, low, high)
        for offer in find(source, definition)
    ]


@dataclass(frozen=True, slots=True)
class _Source:
    """A piece of a text that was parsed. Its nodes speak of offsets into the piece.

    stub: nothing is to be written there but what things are.
    """

    text: Text
    piece: str
    offset: int
    stub: bool

    def gap(self, start: int, end: int, before: str = "", after: str = "") -> Gap:
        first, last = self.text.point(self.offset + start), self.text.point(self.offset + end)
        return Gap(first, last, before, after)

    def of(self, node: Node) -> str:
        return self.piece[node.start_byte : node.end_byte]

    def line_start(self, at: int) -> int:
        return max(self.piece.rfind("\n", 0, at), self.piece.rfind("\r", 0, at)) + 1

    def line_end(self, at: int) -> int:
        found = re.compile(r"[^\r\n]*").match(self.piece, at)
        return found.end() if found else at

    def indentation(self, node: Node) -> str:
        """That of the line in which `node` begins."""
        start = self.line_start(node.start_byte)
        return indentation(self.piece[start : self.line_end(start)])


def _definitions(root: Node, low: int, high: int) -> list[Node]:
    """The functions and classes that touch what is between `low` and `high`, in order."""
    found: list[Node] = []
    around: list[Node] = []
    nodes = [root]
    while nodes:
        node = nodes.pop()
        if node.end_byte < low or node.start_byte > high:
            continue
        inner = node.child_by_field_name("definition") or node  # without its decorators
        if inner.type in ("function_definition", "class_definition"):
            covers = node.start_byte <= low and high <= node.end_byte
            (around if covers else found).append(inner)
        if inner.type not in _WITHOUT_DEFINITIONS:
            nodes += reversed(inner.named_children)
    return [*around[-1:], *found]


# ---- Python ----


def _python(source: _Source, definition: Node) -> Iterator[Offer]:
    name = definition.child_by_field_name("name")
    part = _Definition.of(source, definition)
    if name is None or part is None:
        return
    is_function = definition.type == "function_definition"
    found: tuple[tuple[Kind, list[Gap]], ...] = (
        ("docstring", _missing_docstring(part)),
        ("hints", _missing_hints(part) if is_function else []),
        ("body", _missing_body(part) if is_function else []),
    )
    for kind, gaps in found:
        if gaps:
            yield Offer(kind, source.of(name), tuple(gaps))


@dataclass(frozen=True, slots=True)
class _Definition:
    """A function or class whose head is whole.

    head: where its colon ends. indentation: that of its body's lines.
    """

    source: _Source
    node: Node
    body: Node
    head: int
    indentation: str

    @classmethod
    def of(cls, source: _Source, node: Node) -> _Definition | None:
        body = node.child_by_field_name("body")
        colon = next((child for child in node.children if child.type == ":"), None)
        if body is None or colon is None:
            return None
        if any(child.has_error for child in node.children if child != body):
            return None
        if body.named_children and body.start_point.row > colon.start_point.row:
            inner = source.indentation(body)
        else:
            inner = source.indentation(node) + (unit_of(source.piece) or DEFAULT_UNIT)
        return cls(source, node, body, colon.end_byte, inner)

    @property
    def one_line(self) -> bool:
        """Whether the body stands in the line of the head."""
        return bool(self.body.named_children) and (
            self.source.line_start(self.body.start_byte) <= self.head
        )

    @property
    def statements(self) -> list[Node]:
        """The body, without a docstring and without comments."""
        found = [child for child in self.body.named_children if child.type != "comment"]
        return found[1:] if self.docstring is not None else found

    @property
    def docstring(self) -> Node | None:
        found = [child for child in self.body.named_children if child.type != "comment"]
        if found and found[0].type == "expression_statement":
            (value, *others) = found[0].children
            if not others and value.type in ("string", "concatenated_string"):
                return found[0]
        return None


def _missing_docstring(part: _Definition) -> list[Gap]:
    if part.docstring is not None:
        return []
    line = "\n" + part.indentation
    if part.one_line:
        return [part.source.gap(part.head, part.body.start_byte, f'{line}"""', f'"""{line}')]
    end = part.source.line_end(part.head)  # behind a comment, if there is one
    return [part.source.gap(end, end, f'{line}"""', '"""')]


def _missing_hints(part: _Definition) -> list[Gap]:
    parameters = part.node.child_by_field_name("parameters")
    if parameters is None or parameters.has_error:
        return []
    gaps: list[Gap] = []
    for number, parameter in enumerate(
        child for child in parameters.named_children if child.type != "comment"
    ):
        match parameter.type:
            case "identifier" if number == 0 and _has_receiver(part):
                continue
            case "identifier" | "list_splat_pattern" | "dictionary_splat_pattern":
                gaps.append(part.source.gap(parameter.end_byte, parameter.end_byte, ": "))
            case "default_parameter":
                name = parameter.child_by_field_name("name")
                value = parameter.child_by_field_name("value")
                if name is not None and value is not None:
                    # The blanks that belong around the "=" of a parameter with a type.
                    gaps.append(part.source.gap(name.end_byte, value.start_byte, ": ", " = "))
            case _:
                continue
    if part.node.child_by_field_name("return_type") is None:
        gaps.append(part.source.gap(parameters.end_byte, parameters.end_byte, " -> "))
    return gaps


def _missing_body(part: _Definition) -> list[Gap]:
    source, statements = part.source, part.statements
    if source.stub or is_bodiless(part.node, source.piece):
        return []
    if not all(_is_nothing(source, child) for child in statements):
        return []
    todos = _todos(part)
    start = min((start for start, _ in todos), default=-1)
    end = max((end for _, end in todos), default=-1)
    line = "\n" + part.indentation
    if part.one_line:
        # The docstring, if there is one, gets a line of its own.
        said = "" if part.docstring is None else with_line_ends(source.of(part.docstring))
        last = max(part.body.end_byte, end)
        return [source.gap(part.head, last, line + said + line if said else line)]
    if statements:
        first, last = statements[0].start_byte, statements[-1].end_byte
        return [source.gap(first if start < 0 else min(first, start), max(last, end))]
    if todos:
        return [source.gap(start, end)]
    end = part.docstring.end_byte if part.docstring is not None else part.head
    end = source.line_end(end)
    return [source.gap(end, end, line)]


def _todos(part: _Definition) -> list[tuple[int, int]]:
    """The comments TODO of the body. Some lie outside of it for the grammar, in front or behind."""
    source, node = part.source, part.node
    comments = [child for child in (*node.children, *part.body.children) if child.type == "comment"]
    behind = node.next_named_sibling
    while behind is not None and behind.type == "comment":
        deep = source.indentation(behind).startswith(part.indentation)
        if not deep and source.line_start(behind.start_byte) > node.end_byte:
            break
        comments.append(behind)
        behind = behind.next_named_sibling
    after_head = source.line_end(part.head)
    return [
        (comment.start_byte, comment.end_byte)
        for comment in comments
        if comment.start_byte > after_head and _TODO.match(source.of(comment))
    ]


def _is_nothing(source: _Source, statement: Node) -> bool:
    """Whether a statement only stands for what is yet to be written."""
    match statement.type:
        case "pass_statement":
            return True
        case "expression_statement":
            return [child.type for child in statement.children] == ["ellipsis"]
        case "raise_statement":
            return _NOT_IMPLEMENTED.match(source.of(statement)) is not None
        case _:
            return False


def _has_receiver(part: _Definition) -> bool:
    """Whether the function's first parameter is the object, or the class, that it belongs to."""
    static = "@staticmethod" in decorators(part.node, part.source.piece)
    return class_around(part.node) is not None and not static


_Find = Callable[[_Source, "Node"], Iterator[Offer]]

_OFFERS: dict[str, _Find] = {"python": _python}
