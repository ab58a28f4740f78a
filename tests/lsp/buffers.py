"""What an editor knows of its documents and requests, and what each answer may be.

From the texts alone, in the most obvious way. What is wrong is an AssertionError.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from fake_engine import filling
from lsp_client import position
from naive import cursors, naive_offset, naive_position, plain

from diffgemma_lsp.context.window import as_learned
from diffgemma_lsp.polish.polish import Around, polish
from engine.types import Fixed

CLOSING = set(" \t\n\f\u2028)]}>\"'`:,;\v\x1c\x1d\x1e\x1f\x85\u2029\u3000\xa0")


@dataclass(eq=False)
class Buffer:
    """A document as the editor has it. region: of an order, moved along with the text."""

    uri: str
    text: str = "x = \n"
    version: int = 0
    open: bool = False
    undo: list[str] = field(default_factory=list)
    redo: list[str] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    last: tuple[int, str, str] | None = None
    """The last change: where it ended, what it removed, what it wrote."""

    def replace(self, start: int, end: int, text: str) -> None:
        """Writes `text` over what stands from `start` to `end`."""
        removed, self.text = self.text[start:end], self.text[:start] + text + self.text[end:]
        self.last = start + len(text), removed, text
        for order in self.orders:
            order.follow(start, end, len(text))


@dataclass(eq=False)
class Asked:
    """A request for a suggestion. undisturbed: nothing that ends it has happened since."""

    buffer: Buffer
    cursor: int
    automatic: bool
    on: bool
    encoding: str
    answer: asyncio.Future[Any]
    text: str = ""
    version: int = 0
    known: bool = False
    undisturbed: bool = True
    may_be_silent: bool = False

    def __post_init__(self) -> None:
        buffer = self.buffer
        self.text, self.version, self.known = buffer.text, buffer.version, buffer.open
        if self.automatic and buffer.last is not None:
            # What was deleted or brought back a moment ago is left alone.
            end, removed, written = buffer.last
            self.may_be_silent = end == self.cursor and bool(removed or len(written) > 1)

    @property
    def before(self) -> str:
        return self.text[: self.cursor]

    @property
    def after(self) -> str:
        return self.text[self.cursor :]

    @property
    def lead(self) -> str:
        line = plain(self.before).split("\n")[-1]
        size = 0
        while size < len(line) and ("a" + line[len(line) - size - 1]).isidentifier():
            size += 1
        return line[len(line) - size :]

    def possible(self) -> Iterator[str]:
        """What may be suggested: what the engine makes of this place, or the rest of what it made
        of a place before, where the user has typed so far."""
        for typed in range(min(10, len(self.before)) + 1):
            before = self.before[: len(self.before) - typed]
            written = self.before[len(before) :]
            for automatic in (True, False):
                whole = _polished(before, self.after, automatic)
                if whole.startswith(written):
                    yield whole[typed:]

    def check(self, outcome: Any) -> str | None:
        """Looks at the answer. The text that it would insert, or None."""
        items = outcome["items"] if isinstance(outcome, dict) else outcome
        rest = plain(self.after).split("\n")[0]
        wanted = self.known and self.on and not (self.automatic and set(rest) - CLOSING)
        if not items:
            expected = wanted and self.undisturbed and not self.may_be_silent
            assert not (expected and _polished(self.before, self.after, self.automatic)), self
            return None
        assert wanted, self
        (item,) = items
        edit = item.get("textEdit") or {"range": item["range"], "newText": item["insertText"]}
        place = [
            position(*naive_position(self.text, offset, self.encoding))
            for offset in (self.cursor - len(self.lead), self.cursor)
        ]
        assert edit["range"] == {"start": place[0], "end": place[1]}, self
        assert edit["newText"].startswith(self.lead)
        suggested = edit["newText"][len(self.lead) :]
        assert suggested in set(self.possible()), (self, suggested)
        return suggested


def _polished(before: str, after: str, automatic: bool) -> str:
    around = Around(plain(before), plain(after), "python")
    if automatic and around.site.at_a_whole_line:
        return ""
    return polish(_filling(around.before, around.after), around, automatic=automatic).text


def _filling(before: str, after: str) -> str:
    """What the engine answers, by what it gets to see."""
    seen = as_learned((Fixed(before), Fixed(after)), "python")
    return filling(*(part.text for part in seen if isinstance(part, Fixed)))


@dataclass(eq=False)
class Order:
    """Work on a buffer. start, end: where its place is by now. touched: it is gone."""

    buffer: Buffer
    start: int
    end: int
    wanted: str | None
    """What will stand there, if only one thing can."""
    answer: asyncio.Future[Any]
    touched: bool = False

    @classmethod
    def of(cls, buffer: Buffer, start: int, end: int, kind: str, answer: Any) -> Order:
        chosen = buffer.text[start:end]
        if kind == "rewrite":
            start += len(chosen) - len(chosen.lstrip())
            end = start + len(chosen.strip())
        elif kind == "fill":
            end = start
        before, after = plain(buffer.text[:start]), plain(buffer.text[end:])
        wanted = _filling(before, after) if kind in ("rewrite", "fill") else None
        order = cls(buffer, start, end, wanted, answer)
        if buffer.open:
            buffer.orders.append(order)
        return order

    def follow(self, start: int, end: int, size: int) -> None:
        """The buffer changed: `size` characters in place of `start` to `end`."""
        if end < self.start:
            growth = size - (end - start)
            self.start, self.end = self.start + growth, self.end + growth
        elif start <= self.end:
            self.touched = True

    def changes(self, edit: dict[str, Any], encoding: str) -> list[tuple[int, int, str]] | None:
        """An edit as changes of the buffer, the last one first; None if it is of another version.

        Fails where it changes what it must not.
        """
        (document,) = edit["documentChanges"]
        buffer = self.buffer
        assert document["textDocument"]["uri"] == buffer.uri
        if not buffer.open or document["textDocument"]["version"] != buffer.version:
            return None
        assert not self.touched, "an edit of a place that is not there any more"
        found = []
        for one in document["edits"]:
            sides = (one["range"][side] for side in ("start", "end"))
            places = (naive_offset(buffer.text, *side.values(), encoding) for side in sides)
            found.append((*places, one["newText"]))
        found.sort(key=lambda change: change[:2], reverse=True)
        text, reach = buffer.text, len(buffer.text)
        for start, end, new in found:
            assert self.start <= start <= end <= self.end, "it changes what is outside"
            assert end <= reach, "edits overlap"
            text, reach = text[:start] + new + text[end:], start
        if self.wanted is not None:
            before, after = buffer.text[: self.start], buffer.text[self.end :]
            assert text == before + self.wanted + after
        return found


def difference(old: str, new: str, whole: bool = False) -> tuple[int, int, str]:
    """What differs, as one change; between places where a cursor can stand, if it is to be sent."""
    start, most = 0, min(len(old), len(new))
    while start < most and old[start] == new[start]:
        start += 1
    tail = 0
    while tail < most - start and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    if not whole:
        places, others = set(cursors(old)), set(cursors(new))
        while start not in places or start not in others:
            start -= 1
        while len(old) - tail not in places or len(new) - tail not in others:
            tail -= 1
    return start, len(old) - tail, new[start : len(new) - tail]
