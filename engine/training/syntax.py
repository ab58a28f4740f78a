"""What of Python's syntax makes a hole: arguments, bodies, docstrings, imports, expressions.

A window is cut out of documents anywhere; the parser makes the best of what it sees, and a node
with an error in it makes no hole.
"""

from __future__ import annotations

import numpy as np
import tree_sitter_python
from tree_sitter import Language, Node, Parser, Query, QueryCursor

from engine.training.vocab import IntArray, Vocabulary
from engine.training.windows import Window

SYNTAX_KINDS = ("arguments", "body", "docstring", "import", "expression")

Spans = dict[str, tuple[IntArray, IntArray]]
"""Starts and ends in bytes of a window, ascending by start, by kind."""

_LANGUAGE = Language(tree_sitter_python.language())
_QUERY = Query(
    _LANGUAGE,
    """
    (call arguments: (argument_list) @arguments)
    (parameters) @arguments
    (function_definition body: (block) @body)
    (class_definition body: (block) @body)
    (if_statement consequence: (block) @body)
    (else_clause body: (block) @body)
    (for_statement body: (block) @body)
    (while_statement body: (block) @body)
    (with_statement body: (block) @body)
    (try_statement body: (block) @body)
    (block . (expression_statement (string) @docstring))
    (block . (expression_statement (string (string_content) @docstring)))
    (module . (expression_statement (string) @docstring))
    (import_statement) @import
    (import_from_statement) @import
    (assignment right: (_) @expression)
    (augmented_assignment right: (_) @expression)
    (return_statement (_) @expression)
    (if_statement condition: (_) @expression)
    (while_statement condition: (_) @expression)
    (for_statement right: (_) @expression)
    (argument_list (_) @expression)
    (keyword_argument value: (_) @expression)
    (comparison_operator (_) @expression)
    (boolean_operator (_) @expression)
    (binary_operator) @expression
    (subscript subscript: (_) @expression)
    (call) @expression
    """,
)
_QUOTES = b'"""'


class SyntaxSpans:
    """Finds the nodes of the window that it was asked about last, and their tokens."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._sizes = np.array([len(raw) for raw in vocabulary.raw], np.int64)
        self._parser = Parser(_LANGUAGE)
        self._window: Window | None = None
        self._found: Spans = {}
        self._bytes = b""
        self._at: IntArray = np.zeros(1, np.int64)

    def of(self, window: Window) -> Spans:
        """All holes of each kind in a window. The other methods speak of this window then."""
        if window is not self._window:
            self._window = window
            self._bytes = self._vocabulary.bytes_of(window.ids)
            self._at = np.concatenate(([0], np.cumsum(self._sizes[window.ids])))
            self._found = self._find(window)
        return self._found

    def byte_at(self, position: int) -> int:
        """Where a token begins, in bytes of the window."""
        return int(self._at[min(position, len(self._at) - 1)])

    def token_at(self, byte: int) -> int | None:
        """The token that begins at a byte, but for blanks; None where a token would be torn."""
        token = int(np.searchsorted(self._at, byte, "right")) - 1
        return token if not self._bytes[self._at[token] : byte].strip(b" \t") else None

    def place_of(self, byte: int) -> tuple[int, int]:
        """A byte as a token and an offset in it; 0 where a token begins."""
        token = int(np.searchsorted(self._at, byte, "left"))
        return (
            (token, 0) if self._at[token] == byte else (token - 1, byte - int(self._at[token - 1]))
        )

    def _find(self, window: Window) -> Spans:
        found: dict[str, set[tuple[int, int]]] = {kind: set() for kind in SYNTAX_KINDS}
        last = int(self._at[window.size])
        edges = [*self._at[window.begins].tolist(), len(self._bytes)]
        for index, quoted in enumerate(window.open_quotes.tolist()):
            head = _QUOTES if quoted else b""
            text = head + self._bytes[edges[index] : edges[index + 1]]
            base = edges[index] - len(head)
            captures = QueryCursor(_QUERY).captures(self._parser.parse(text).root_node)
            for kind, nodes in captures.items():
                for node in nodes:
                    low, high = _inside(kind, node)
                    inside = len(head) <= low < high and low + base <= last
                    if inside and not node.has_error and not node.is_extra:  # a comment is extra
                        found[kind].add((low + base, high + base))
        return {kind: _arrays(sorted(spans)) for kind, spans in found.items()}


def _inside(kind: str, node: Node) -> tuple[int, int]:
    """What of a node is the hole, in bytes: of arguments, what is between the brackets."""
    inset = 1 if kind == "arguments" else 0
    return node.start_byte + inset, node.end_byte - inset


def _arrays(spans: list[tuple[int, int]]) -> tuple[IntArray, IntArray]:
    both = np.array(spans, np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]
