"""What each action means for the text: which places are filled, and what the model is told.

Pure functions of a snapshot. A new action is an `ActionKind` in `kinds.py` and its maker here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

from diffgemma_lsp.actions.blank import (
    Blank,
    Shape,
    as_hint,
    in_docstring,
    part_of_a_line,
    something,
)
from diffgemma_lsp.actions.order import Order
from diffgemma_lsp.context.window import as_learned, plain, prefix_of, suffix_of
from diffgemma_lsp.polish.confidence import measured
from diffgemma_lsp.polish.polish import Around, polish
from diffgemma_lsp.settings.schema import Settings
from diffgemma_lsp.syntax.missing import offers
from diffgemma_lsp.syntax.placeholders import Gap, holes_in
from diffgemma_lsp.text.snapshot import DocumentSnapshot
from diffgemma_lsp.text.text import Point, Text
from engine.types import Fixed, Hole, Segment, Template

LONGEST_HINT = 16
"""Tokens of a type hint. For nano, 95 of 100 hints in typed packages have no more."""


DRAFT_CHARS_PER_S = 2_000
"""A draft with more characters than that for each second of the budget is refused: it is some 500
tokens a second, and each of them takes part in several passes."""


class NoPlan(Exception):
    """There is nothing to do at this place; the text says why."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Blanks in their order in the text, never overlapping, and what the model is told to do."""

    blanks: tuple[Blank, ...]
    instruction: str | None = None

    def template(self, snapshot: DocumentSnapshot) -> Template:
        """The text with a hole at each blank: as much of it around them as the engine gets to
        see."""
        blanks, segments = self.blanks, list[Segment]()
        before = prefix_of(replace(snapshot, start=blanks[0].start))
        for blank, following in zip_longest(blanks, blanks[1:]):
            draft = None if blank.draft is None else plain(blank.draft)
            segments.append(Fixed(before + blank.before))
            segments.append(Hole(draft, blank.strength, blank.max_tokens))
            if following is not None:
                before = blank.after + plain(snapshot.text.between(blank.end, following.start))
        behind = suffix_of(replace(snapshot, end=blanks[-1].end))
        segments.append(Fixed(blanks[-1].after + behind))
        return as_learned(tuple(segments), snapshot.language_id)

    def confidence(self, confidence: float | None, texts: Sequence[str]) -> float | None:
        """The confidence of an answer, which fills the blanks with `texts`, as it is told: None of
        several, of several lines and of prose, for which it was not measured."""
        (blank, *others), (text, *_) = self.blanks, texts
        return None if others or blank.is_prose else measured(confidence, text)


def plan(order: Order, snapshot: DocumentSnapshot, settings: Settings) -> Plan:
    """What `order` means for the document. Raises NoPlan."""
    return _MAKERS[order.kind.name](order, snapshot, settings)


def possible(snapshot: DocumentSnapshot, settings: Settings) -> Iterator[str]:
    """The names of the orders that make sense at the snapshot's cursor or selection."""
    text, start, end = snapshot.text, snapshot.start, snapshot.end
    if start == end:
        yield "fill"
    elif text.between(start, end).strip():
        yield "rewrite"
        if comment_above(snapshot):
            yield "instruct"
        if _gaps(snapshot, settings):
            yield "holes"
    found = offers(text, start, end, snapshot.language_id, snapshot.stub)
    yield from dict.fromkeys(offer.kind for offer in found)


def _gaps(snapshot: DocumentSnapshot, settings: Settings) -> list[Gap]:
    text, start, end = snapshot.text, snapshot.start, snapshot.end
    return holes_in(text, start, end, snapshot.language_id, settings.markers, snapshot.stub)


def _fill(order: Order, snapshot: DocumentSnapshot, settings: Settings) -> Plan:
    behind = suffix_of(replace(snapshot, end=snapshot.start))  # selected blanks stay
    around = Around(prefix_of(snapshot), behind, snapshot.language_id)

    def shape(filling: str) -> str | None:
        return polish(filling, around).text or None

    return Plan((Blank(snapshot.start, snapshot.start, shape=shape),), order.instruction)


def _rewrite(order: Order, snapshot: DocumentSnapshot, settings: Settings) -> Plan:
    blank = _selected(order, snapshot, settings)
    if order.instruction is None:  # nobody has said that it may go
        blank = replace(blank, shape=something)
    return Plan((blank,), order.instruction)


def _instruct(order: Order, snapshot: DocumentSnapshot, settings: Settings) -> Plan:
    instruction = order.instruction or comment_above(snapshot)
    if not instruction:
        raise NoPlan("there is no comment above the selection that says what to do")
    return Plan((_selected(order, snapshot, settings),), instruction)


def _fix(order: Order, snapshot: DocumentSnapshot, settings: Settings) -> Plan:
    if not order.instruction:
        raise NoPlan("there is no message that says what is wrong")
    text, last = snapshot.text, snapshot.end.line
    start, end = Point(snapshot.start.line, 0), Point(last, len(text.content(last)))
    return Plan((_draft(order, text, start, end, settings),), f"Fix: {order.instruction}")


def _selected(order: Order, snapshot: DocumentSnapshot, settings: Settings) -> Blank:
    blank = _draft(order, snapshot.text, snapshot.start, snapshot.end, settings)
    if blank.start == blank.end:
        raise NoPlan("there is no text in the selection")
    return blank


def _draft(order: Order, text: Text, start: Point, end: Point, settings: Settings) -> Blank:
    """What is written from `start` to `end`, to be changed as much as the order says."""
    start, end = inner(text, start, end)
    strength = settings.rewrite_strength if order.strength is None else order.strength
    draft = text.between(start, end)
    _must_be_feasible(draft, settings.action_budget_ms)
    return Blank(start, end, draft=draft, strength=strength)


def _must_be_feasible(draft: str, budget_ms: int) -> None:
    """Raises NoPlan for a draft that no engine gets to the end of in time."""
    most = DRAFT_CHARS_PER_S * budget_ms // 1000
    if len(draft) > most:
        lines = (draft.count("\n") + 1) * most // len(draft)
        limit = f"{lines} lines" if lines > 1 else f"{most} characters"
        raise NoPlan(f"too long for {budget_ms / 1000:g} s: select {limit} at most")


def _holes(order: Order, snapshot: DocumentSnapshot, settings: Settings) -> Plan:
    text, gaps = snapshot.text, _gaps(snapshot, settings)
    if not gaps:
        raise NoPlan("there is no hole here: `...`, `___`, a TODO line or a marker")
    return Plan(tuple(_blank(gap, _shape_in(text, gap)) for gap in gaps), order.instruction)


def _shape_in(text: Text, gap: Gap) -> Shape:
    """What has a line for itself may become several lines; the rest is a part of one."""
    alone = gap.start.line == gap.end.line and text.content(gap.start.line).strip() == text.between(
        gap.start, gap.end
    )
    return something if alone else part_of_a_line


def _offered(order: Order, snapshot: DocumentSnapshot, settings: Settings) -> Plan:
    shape = _SHAPES[order.kind.name]
    text, start, end = snapshot.text, snapshot.start, snapshot.end
    found = offers(text, start, end, snapshot.language_id, snapshot.stub)
    gaps = [gap for offer in found if offer.kind == order.kind.name for gap in offer.gaps]
    if not gaps:
        missing = _LACKS[order.kind.name]
        raise NoPlan(f"{missing}; put the cursor into one that begins with a whole line")
    most = LONGEST_HINT if order.kind.name == "hints" else None
    inside = order.kind.name == "body"
    blanks = (replace(_blank(gap, shape, most), inside=inside) for gap in gaps)
    return Plan(tuple(blanks), order.instruction)


def _blank(gap: Gap, shape: Shape, most: int | None = None) -> Blank:
    return Blank(gap.start, gap.end, gap.before, gap.after, max_tokens=most, shape=shape)


_MAKERS: dict[str, Callable[[Order, DocumentSnapshot, Settings], Plan]] = {
    "fill": _fill,
    "rewrite": _rewrite,
    "instruct": _instruct,
    "fix": _fix,
    "holes": _holes,
    "docstring": _offered,
    "hints": _offered,
    "body": _offered,
}

_SHAPES: dict[str, Shape] = {"docstring": in_docstring, "hints": as_hint, "body": something}

_LACKS = {
    "docstring": "no function or class without a docstring is here",
    "hints": "no function without type hints is here",
    "body": "no function whose body is yet to be written is here",
}
"""What was looked for by actions that put in what is missing."""


# ---- what is around a selection ----


def inner(text: Text, start: Point, end: Point) -> tuple[Point, Point]:
    """The range without white space at its ends: that stays as it is."""
    chosen = text.between(start, end)
    left = len(chosen) - len(chosen.lstrip())
    right = len(chosen.rstrip())
    if left >= right:
        return start, start
    offset = text.offset(start)
    return text.point(offset + left), text.point(offset + right)


_COMMENT = re.compile(r"\s*+(?:#|//|--|;|%|\"|'|REM\b)++\s*+(.*)", re.IGNORECASE)


def comment_above(snapshot: DocumentSnapshot) -> str | None:
    """What the comment lines right above the selection, or at its start, say; None without any."""
    text = snapshot.text
    start, _ = inner(text, snapshot.start, snapshot.end)
    said: list[str] = []
    for number in range(start.line - 1, -1, -1):
        found = _COMMENT.match(text.content(number).rstrip())
        if found is None or not found[1]:
            break
        said.insert(0, found[1])
    return " ".join(said) or None
