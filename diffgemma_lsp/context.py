"""What of a document the engine gets to see around the hole."""

from __future__ import annotations

import re

from diffgemma_lsp.documents import Point, Text
from diffgemma_lsp.snapshot import DocumentSnapshot
from engine.types import InfillRequest, Snippet, fill_in_the_middle

# Characters, not tokens: this bounds what is sent, the engine fits it to the model's context.
PREFIX_CHARS = 32_768
SUFFIX_CHARS = 8_192

_LINE_END = re.compile(r"\r\n|\r")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def fill_request(
    snapshot: DocumentSnapshot,
    max_tokens: int | None,
    seed: int,
    neighbours: tuple[Snippet, ...] = (),
) -> InfillRequest:
    """The request for what belongs at the cursor."""
    template = fill_in_the_middle(prefix_of(snapshot), suffix_of(snapshot), max_tokens)
    return InfillRequest(template, seed=seed, context=neighbours)


def prefix_of(snapshot: DocumentSnapshot) -> str:
    """What the engine sees before the hole."""
    edge = _left_edge(snapshot.text, snapshot.start)
    return plain(snapshot.text.between(edge, snapshot.start))


def suffix_of(snapshot: DocumentSnapshot) -> str:
    """What the engine sees behind the hole."""
    edge = _right_edge(snapshot.text, snapshot.end)
    return plain(snapshot.text.between(snapshot.end, edge))


def _left_edge(text: Text, cursor: Point) -> Point:
    """Where the prefix begins: a line start at most PREFIX_CHARS before the cursor.

    It moves in jumps of a quarter of the budget: as long as it stands still, what is typed is
    appended to the prefix, and the engine's cache of the prefix keeps its worth.
    """
    excess = text.offset(cursor) - PREFIX_CHARS
    if excess <= 0:
        return Point(0, 0)
    jump = PREFIX_CHARS // 4
    edge = text.point(-(-excess // jump) * jump)
    if edge.column == 0 or edge.line == cursor.line:
        return edge  # one line longer than the budget is cut where the budget ends
    return Point(edge.line + 1, 0)


def _right_edge(text: Text, cursor: Point) -> Point:
    """Where the suffix ends: a line start at most SUFFIX_CHARS behind the cursor."""
    limit = text.offset(cursor) + SUFFIX_CHARS
    if limit >= len(text):
        return text.end
    edge = text.point(limit)
    return edge if edge.line == cursor.line else Point(edge.line, 0)


def plain(text: str) -> str:
    """The text as models know it: lines end with "\\n", and every character can be encoded."""
    return _LONE_SURROGATE.sub("\ufffd", _LINE_END.sub("\n", text))
