"""What is wrong with a parsed text: errors, empty blocks, statements out of their block."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from diffgemma_lsp.syntax.languages import Grammar, load

if TYPE_CHECKING:
    from tree_sitter import Node, Query


def count_faults(root: Node, grammar: Grammar) -> int:
    """How many errors there are, empty blocks, and statements that don't stand in their block."""
    from tree_sitter import QueryCursor

    found = QueryCursor(_query(grammar)).captures(root)
    blocks = [_statements_of(block) for block in found.get("block", ())]
    empty = sum(not block for block in blocks)
    misplaced = sum(map(_misplaced, [_statements_of(root), *blocks] if grammar.blocks else []))
    return len(found.get("error", ())) + empty + misplaced


@cache
def _query(grammar: Grammar) -> Query:
    from tree_sitter import Query

    loaded = load(grammar.package)
    assert loaded is not None, "asked only where there is a tree"
    blocks = "".join(f"({block}) @block " for block in grammar.blocks)
    return Query(loaded, f"(ERROR) @error (MISSING) @error {blocks}")


def _statements_of(block: Node) -> list[Node]:
    return [child for child in block.named_children if not child.is_extra and not child.is_error]


def _misplaced(statements: Sequence[Node]) -> int:
    """How many statements of a block begin in another column than its first one."""
    column, row, count = None, -1, 0
    for statement in statements:
        start = statement.start_point
        if column is None:
            column = start.column
        elif start.row != row:  # else behind a semicolon
            count += start.column != column
        row = statement.end_point.row
    return count
