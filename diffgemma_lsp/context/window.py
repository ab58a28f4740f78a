"""What of a document the engine gets to see around the hole."""

from __future__ import annotations

import re
from dataclasses import replace
from urllib.parse import unquote

from diffgemma_lsp.syntax.brackets import BracketState
from diffgemma_lsp.syntax.indentation import DEFAULT_UNIT, by_spaces, in_units, unit_of
from diffgemma_lsp.syntax.languages import language_of, title
from diffgemma_lsp.text.snapshot import DocumentSnapshot
from diffgemma_lsp.text.text import Point, Text, with_line_ends
from engine.types import (
    Fixed,
    InfillRequest,
    Segment,
    Snippet,
    Template,
    fill_in_the_middle,
)

# Characters, not tokens: this bounds what is sent, the engine fits it to the model's context.
PREFIX_CHARS = 32_768
SUFFIX_CHARS = 8_192

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def fill_request(
    snapshot: DocumentSnapshot,
    max_tokens: int | None,
    seed: int,
    neighbours: tuple[Snippet, ...] = (),
) -> InfillRequest:
    """The request for what belongs at the cursor."""
    template = fill_in_the_middle(prefix_of(snapshot), suffix_of(snapshot), max_tokens)
    learned = as_learned(template, snapshot.language_id)
    return InfillRequest(learned, seed=seed, context=neighbours, title=title_of(snapshot))


def as_learned(template: Template, language_id: str) -> Template:
    """The template in the form that models have learned: Python is indented by spaces.

    What is filled in is indented as the document is when it comes back (`in_units`).
    """
    language = language_of(language_id)
    fixed = "".join(part.text for part in template if isinstance(part, Fixed))
    if not language.compiled or unit_of(fixed) != "\t":
        return template
    segments: list[Segment] = []
    before = BracketState()
    for part in template:
        if isinstance(part, Fixed):
            segments.append(Fixed(by_spaces(part.text)))
            before.over(part.text, language)
        elif part.draft is None:
            segments.append(part)
        else:  # its strings stay what they are
            draft = in_units(part.draft, DEFAULT_UNIT, before, language)
            segments.append(replace(part, draft=draft))
            before.over(part.draft, language)
    return tuple(segments)


def prefix_of(snapshot: DocumentSnapshot) -> str:
    """What the engine sees before the hole."""
    edge = _left_edge(snapshot.text, snapshot.start)
    own = plain(snapshot.text.between(edge, snapshot.start))
    return own if edge > Point(0, 0) else _in_front(snapshot.cells_before, len(own)) + own


def title_of(snapshot: DocumentSnapshot) -> str:
    """What the engine is told of the document's name, if the prefix begins where it does. Nothing
    in a notebook, whose cells are one text."""
    begins = _left_edge(snapshot.text, snapshot.start) == Point(0, 0)
    if not begins or not snapshot.uri or snapshot.cells_before or snapshot.cells_after:
        return ""
    return plain(title(unquote(snapshot.uri.partition(":")[2]), snapshot.language_id))


def suffix_of(snapshot: DocumentSnapshot) -> str:
    """What the engine sees behind the hole."""
    edge = _right_edge(snapshot.text, snapshot.end)
    own = plain(snapshot.text.between(snapshot.end, edge))
    return own if edge < snapshot.text.end else own + _behind(snapshot.cells_after, len(own))


def _left_edge(text: Text, cursor: Point) -> Point:
    """Where the prefix begins: a line start at most PREFIX_CHARS before the cursor.

    It moves in jumps of a quarter of the budget: as long as it stands still, what is typed is
    appended to the prefix, and the engine's cache of the prefix keeps its worth.
    """
    excess = text.offset(cursor) - PREFIX_CHARS
    if excess <= 0:
        return Point(0, 0)
    edge = text.point(_in_jumps(excess))
    if edge.column == 0 or edge.line == cursor.line:
        return edge  # one line longer than the budget is cut where the budget ends
    return Point(edge.line + 1, 0)


def _in_jumps(excess: int) -> int:
    """How many characters to leave away of a prefix that is too long by `excess`."""
    jump = PREFIX_CHARS // 4
    return -(-excess // jump) * jump


def _right_edge(text: Text, cursor: Point) -> Point:
    """Where the suffix ends: a line start at most SUFFIX_CHARS behind the cursor."""
    limit = text.offset(cursor) + SUFFIX_CHARS
    if limit >= len(text):
        return text.end
    edge = text.point(limit)
    return edge if edge.line == cursor.line else Point(edge.line, 0)


def _in_front(cells: tuple[Text, ...], own: int) -> str:
    """A notebook's cells, in front of one of which `own` characters are in the prefix.

    They are one text with it: the budget and its jumps count from the notebook's beginning.
    """
    joined = "".join(f"{code}\n\n" for cell in cells if (code := plain(str(cell)).rstrip("\n")))
    excess = len(joined) + own - PREFIX_CHARS
    if excess <= 0:
        return joined
    cut = _in_jumps(excess)
    return joined[joined.index("\n", cut - 1) + 1 :] if cut < len(joined) else ""


def _behind(cells: tuple[Text, ...], own: int) -> str:
    """A notebook's cells, behind one of which `own` characters are in the suffix."""
    joined = "".join(f"\n\n{code}" for cell in cells if (code := plain(str(cell)).rstrip("\n")))
    room = SUFFIX_CHARS - own
    return joined if len(joined) <= room else joined[: joined.rfind("\n", 0, room) + 1]


def plain(text: str) -> str:
    """The text as models know it: lines end with "\\n", and every character can be encoded."""
    return _LONE_SURROGATE.sub("\ufffd", with_line_ends(text))
