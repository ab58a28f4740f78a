"""From an order to blanks: which places of the document are to be filled, and with what around.

Pure functions of a snapshot. What each action means for the text is written here and nowhere else.
"""

from __future__ import annotations

import ast
import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple

from diffgemma_lsp.actions.order import Order
from diffgemma_lsp.context.window import prefix_of, suffix_of
from diffgemma_lsp.polish.polish import TRIES, Around, first_of_its_lines, polish
from diffgemma_lsp.settings.schema import Settings
from diffgemma_lsp.syntax.check import Place
from diffgemma_lsp.syntax.indentation import in_units, placed, unit_of
from diffgemma_lsp.syntax.languages import language_of
from diffgemma_lsp.syntax.missing import offers
from diffgemma_lsp.syntax.placeholders import Gap, holes_in
from diffgemma_lsp.text.snapshot import DocumentSnapshot
from diffgemma_lsp.text.text import Point, Text

Shape = Callable[[str], "str | None"]
"""Makes what the model filled in what is put into the document, or None to leave it as it was."""


LONGEST_HINT = 16
"""Tokens of a type hint. For nano, 95 of 100 hints in typed packages have no more."""

AROUND = 32_768
"""Characters on either side of a blank that are looked at, to see if an edit fits."""


class NoPlan(Exception):
    """There is nothing to do at this place; the text says why."""


@dataclass(frozen=True, slots=True)
class Blank:
    """A place to be filled: what stands from `start` to `end` becomes before + filling + after.

    draft, strength: what to start from, and how much of it may change, from 0 to 1.
    max_tokens: the most tokens of the filling; None leaves it to the model.
    """

    start: Point
    end: Point
    before: str = ""
    after: str = ""
    draft: str | None = None
    strength: float = 1.0
    max_tokens: int | None = None
    shape: Shape = str.rstrip

    def texts(self, filling: str) -> Iterator[str]:
        """What can be put in the place of what stands there, the best first; nothing leaves it."""
        shaped = self.shape(filling)
        if shaped is None:
            return
        yield self.before + shaped + self.after
        if self.draft is None:  # of a rewrite, a part would lose what was selected
            for part in first_of_its_lines(shaped):
                yield self.before + part + self.after


@dataclass(frozen=True, slots=True)
class Plan:
    """Blanks in their order in the text, never overlapping, and what the model is told to do."""

    blanks: tuple[Blank, ...]
    instruction: str | None = None


def plan(order: Order, snapshot: DocumentSnapshot, settings: Settings) -> Plan:
    """What `order` means for the document. Raises NoPlan."""
    return _MAKERS[order.kind.name](order, snapshot, settings)


def fitting(snapshot: DocumentSnapshot, settings: Settings) -> Iterator[str]:
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
    around = Around(prefix_of(snapshot), suffix_of(snapshot), snapshot.language_id)

    def shape(filling: str) -> str | None:
        return polish(filling, around).text or None

    return Plan((Blank(snapshot.start, snapshot.start, shape=shape),), order.instruction)


def _rewrite(order: Order, snapshot: DocumentSnapshot, settings: Settings) -> Plan:
    blank = _selected(order, snapshot, settings)
    if order.instruction is None:  # nobody has said that it may go
        blank = replace(blank, shape=_something)
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
    return Blank(start, end, draft=draft, strength=strength)


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
    return _something if alone else _part_of_a_line


def _offered(order: Order, snapshot: DocumentSnapshot, settings: Settings) -> Plan:
    shape = _SHAPES[order.kind.name]
    text, start, end = snapshot.text, snapshot.start, snapshot.end
    found = offers(text, start, end, snapshot.language_id, snapshot.stub)
    gaps = [gap for offer in found if offer.kind == order.kind.name for gap in offer.gaps]
    if not gaps:
        missing = _LACKS[order.kind.name]
        raise NoPlan(f"{missing}; put the cursor into one that begins with a whole line")
    most = LONGEST_HINT if order.kind.name == "hints" else None
    return Plan(tuple(_blank(gap, shape, most) for gap in gaps), order.instruction)


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

_LACKS = {
    "docstring": "no function or class without a docstring is here",
    "hints": "no function without type hints is here",
    "body": "no function whose body is yet to be written is here",
}
"""What was looked for by actions that put in what is missing."""


# ---- what is made of a filling ----


class Fit(NamedTuple):
    """What of a model's answer goes into a document.

    texts: what is put in the place of each blank; None leaves what stands there. broken: how many
    blanks are left because whatever was written there would break the syntax.
    """

    texts: tuple[str | None, ...]
    broken: int


def fitted(
    blanks: Sequence[Blank],
    answers: Sequence[str],
    snapshot: DocumentSnapshot,
    until: float = math.inf,
) -> Fit:
    """For each blank what fits of its answer: nothing that brings an error of syntax.

    until: when to leave what is not looked at yet as it is, by time.monotonic().
    """
    text = snapshot.text
    unit = unit_of(prefix_of(snapshot) + suffix_of(snapshot))
    found: list[str | None] = []
    broken = 0
    for blank, answer in reversed(list(zip(blanks, answers, strict=True))):
        if time.monotonic() > until:
            found.insert(0, None)
            continue
        place = _place_of(blank, text, snapshot.language_id)
        texts = islice(blank.texts(_indented(answer, blank, place, unit)), TRIES)
        ways = [way.replace("\n", snapshot.newline) for way in texts]
        # What is rewritten is held to what stood there; of what is missing nothing can be said.
        old = None if blank.draft is None else text.between(blank.start, blank.end)
        new = next((way for way in ways if not place.worsened_by(way, old)), None)
        if new is not None:
            text = text.edit(blank.start, blank.end, new)
        elif ways:
            broken += 1
        found.insert(0, new)
    return Fit(tuple(found), broken)


def _place_of(blank: Blank, text: Text, language_id: str) -> Place:
    """A blank and what is around it, as far as that is looked at."""
    first = Point(text.point(max(0, text.offset(blank.start) - AROUND)).line, 0)
    last = text.point(min(len(text), text.offset(blank.end) + AROUND))
    before, after = text.between(first, blank.start), text.between(blank.end, last)
    return Place(before, after, language_of(language_id))


def _indented(answer: str, blank: Blank, place: Place, unit: str | None) -> str:
    """An answer indented as the document is; one that is no rewrite begins where the blank does."""
    if "\n" not in answer and blank.draft is not None:
        return answer
    reading = place.reading().over(blank.before, place.language)
    text = in_units(answer, unit, reading, place.language)
    if blank.draft is not None:
        return text
    return placed(text, place.before + blank.before, reading, place.language)


def _something(filling: str) -> str | None:
    return filling.rstrip() or None


def _part_of_a_line(filling: str) -> str | None:
    return filling.partition("\n")[0].strip() or None


def _in_docstring(filling: str) -> str | None:
    """The text of a docstring, which must not end it."""
    said = filling.partition('"""')[0].strip().rstrip('\\"')
    return said or None


def _as_hint(filling: str) -> str | None:
    """A type, if it is one: an expression that could not do anything but name things."""
    hint = filling.partition("\n")[0].strip().rstrip(":,= ")
    try:
        tree = ast.parse(hint, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    plain = all(isinstance(node, _TYPE_NODES) for node in ast.walk(tree))
    return hint if plain else None


_TYPE_NODES = (
    ast.Expression,
    ast.Name,
    ast.Attribute,
    ast.Subscript,
    ast.Tuple,
    ast.List,
    ast.Constant,
    ast.BinOp,
    ast.BitOr,
    ast.Load,
)


_SHAPES: dict[str, Shape] = {"docstring": _in_docstring, "hints": _as_hint, "body": _something}


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
