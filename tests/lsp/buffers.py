"""What an editor knows of its documents and requests, and what each answer may be.

From the texts alone, in the most obvious way. What is wrong is an AssertionError.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from fake_engine import varied
from lsp_client import position
from naive import cursors, naive_offset, naive_position, plain

from diffgemma_lsp.context.window import as_learned
from diffgemma_lsp.polish.polish import Around, polish
from engine.types import Fixed

LONGEST = 40
"""Characters of the longest suggestion of them all, with its indentation."""

CANDIDATES = 3
"""Suggestions to choose from, and seeds that an order tries."""

CLOSING = set(" \t\n\f\u2028)]}>\"'`:,;\v\x1c\x1d\x1e\x1f\x85\u2029\u3000\xa0")


@dataclass(eq=False)
class Buffer:
    """A document as the editor has it. region: of an order, moved along with the text."""

    uri: str
    text: str = "x = \n"
    language: str = "python"
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


@dataclass(frozen=True)
class Holds:
    """The settings that hold for a buffer, and what its model knows."""

    enable: bool = True
    seed: int = 0
    max_lines: int | None = None
    known: bool = True
    """Whether the model suggests by itself in the buffer's language."""

    @classmethod
    def of(
        cls, buffer: Buffer, settings: dict[str, Any], languages: tuple[str, ...] | None
    ) -> Holds:
        """Of what was said for all, for a language and for a path the last one holds."""
        said: dict[str, Any] = {
            **settings,
            **settings.get("languages", {}).get(buffer.language, {}),
        }
        for glob, more in settings.get("globs", {}).items():
            said |= more if buffer.uri.endswith(f"/{glob}") else {}
        known = languages is None or buffer.language in languages
        return cls(said.get("enable", True), said.get("seed", 0), said.get("max_lines"), known)


@dataclass(eq=False)
class Asked:
    """A request for a suggestion. undisturbed: nothing that ends it has happened since.

    holds: the settings that it may be answered by. language: of the buffer, when it was asked.
    """

    buffer: Buffer
    cursor: int
    automatic: bool
    holds: list[Holds]
    encoding: str
    answer: asyncio.Future[Any]
    text: str = ""
    language: str = ""
    version: int = 0
    known: bool = False
    undisturbed: bool = True
    may_be_silent: bool = False

    def __post_init__(self) -> None:
        buffer = self.buffer
        self.text, self.version, self.known = buffer.text, buffer.version, buffer.open
        self.language = buffer.language
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

    def possible(self, holds: Holds) -> Iterator[str]:
        """What may be suggested: what the engine makes of this place, or the rest of what it made
        of a place before, where the user has typed so far."""
        text, after = plain(self.before), plain(self.after)
        for typed in range(min(LONGEST, len(text)) + 1):
            before, written = text[: len(text) - typed], text[len(text) - typed :]
            for automatic in (True, False):
                if self.automatic and not holds.known and (automatic or not typed):
                    continue  # what was asked for goes on while it is typed, and only then
                for whole in self._made(before, after, automatic, holds):
                    if whole.startswith(written):
                        rest = whole[typed:]
                        yield _first_lines(rest, holds.max_lines) if self.automatic else rest

    def _made(self, before: str, after: str, automatic: bool, holds: Holds) -> Iterator[str]:
        """What is made of a place; of what nobody asked for there is one answer."""
        for more in range(1 if automatic else CANDIDATES):
            limit = holds.max_lines if automatic else None
            seed = holds.seed + more
            yield _polished(before, after, self.language, automatic, seed, limit)

    def check(self, outcome: Any) -> str | None:
        """Looks at the answer. The text that it would insert first, or None."""
        items = outcome["items"] if isinstance(outcome, dict) else outcome
        rest = plain(self.after).split("\n")[0]
        # Whether to answer is looked at later than how.
        on = self.holds if self.known and any(one.enable for one in self.holds) else []
        if self.automatic and set(rest) - CLOSING:
            on = []
        if not items:
            for holds in on if self.undisturbed and not self.may_be_silent else ():
                if holds.known or not self.automatic:
                    made = self._made(plain(self.before), plain(self.after), self.automatic, holds)
                    assert not any(made), self
            return None
        assert on, self
        assert len(items) <= (1 if self.automatic else CANDIDATES), self
        place = [
            position(*naive_position(self.text, offset, self.encoding))
            for offset in (self.cursor - len(self.lead), self.cursor)
        ]
        possible = {text for holds in on for text in self.possible(holds)}
        suggested: list[str] = []
        for item in items:
            edit = item.get("textEdit") or {"range": item["range"], "newText": item["insertText"]}
            assert edit["range"] == {"start": place[0], "end": place[1]}, self
            assert edit["newText"].startswith(self.lead)
            suggested.append(edit["newText"][len(self.lead) :])
            assert plain(suggested[-1]) in possible, (self, suggested)
        assert len({*suggested}) == len(suggested), (self, suggested)
        return suggested[0]


def _first_lines(text: str, most: int | None) -> str:
    return text if most is None else "\n".join(text.split("\n")[:most])


def _polished(
    before: str, after: str, language: str, automatic: bool, seed: int, max_lines: int | None
) -> str:
    around = Around(before, after, language)
    if automatic and around.site.at_a_whole_line:
        return ""
    text = _filling(before, after, language, seed)
    return polish(text, around, automatic=automatic, max_lines=max_lines).text


def _filling(before: str, after: str, language: str, seed: int) -> str:
    """What the engine answers, by what it gets to see."""
    seen = as_learned((Fixed(before), Fixed(after)), language)
    first, last = (part.text for part in seen if isinstance(part, Fixed))
    return varied(first, last, seed)


@dataclass(eq=False)
class Order:
    """Work on a buffer. start, end: where its place is by now. touched: it is gone."""

    buffer: Buffer
    start: int
    end: int
    wanted: list[str]
    """What may come to stand there; empty if anything can."""
    answer: asyncio.Future[Any]
    touched: bool = False

    @classmethod
    def of(
        cls, buffer: Buffer, start: int, end: int, kind: str, holds: Holds, answer: Any
    ) -> Order:
        chosen = buffer.text[start:end]
        if kind == "rewrite":
            start += len(chosen) - len(chosen.lstrip())
            end = start + len(chosen.strip())
        elif kind == "fill":
            end = start
        before, after = plain(buffer.text[:start]), plain(buffer.text[end:])
        seeds = range(holds.seed, holds.seed + CANDIDATES) if kind in ("rewrite", "fill") else ()
        wanted = [_filling(before, after, buffer.language, seed) for seed in seeds]
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
        if self.wanted:
            before, after = buffer.text[: self.start], buffer.text[self.end :]
            assert text.startswith(before)
            assert text.endswith(after)
            written = text[len(before) : len(text) - len(after)]
            assert any(_is_of(written, wanted) for wanted in self.wanted), (written, self.wanted)
        return found


def _is_of(written: str, wanted: str) -> bool:
    """Whether it is what was wanted, or its first line; a second one may be indented anew."""
    if "\n" not in wanted:
        return written == wanted
    return wanted.split()[: len(written.split())] == written.split()


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
