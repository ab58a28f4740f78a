"""A part of a file as it will be after the next edit: with the line in it that must follow the last
edits (next_edit/), else with what belongs at the cursor, else as it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from difflib import SequenceMatcher

from diffgemma_lsp.context.window import plain
from diffgemma_lsp.next_edit.parts import Region
from diffgemma_lsp.next_edit.places import LONGEST, places_after
from diffgemma_lsp.next_edit.weigh import gains_of, likeliest, request_for, sound
from diffgemma_lsp.serve.ask import Ask, Reply, Rewrite
from diffgemma_lsp.serve.filler import Filler
from diffgemma_lsp.syntax.check import CLOSING, Site
from diffgemma_lsp.syntax.languages import language_of
from diffgemma_lsp.text.history import MOST_CHARS, MOST_EDITS, MOST_LINES
from engine.errors import BadRequest, DeadlineExceeded

SHARE = 0.6
"""Of its time a request has so much for what must follow; the rest is for what belongs at the
cursor."""

REACH = (MOST_LINES, 3, 1, 0)
"""So many lines around a change are looked for with it, fewer where they are not there any more."""


async def rewritten(filler: Filler, ask: Ask, rewrite: Rewrite) -> Reply:
    """The part. Raises what `Filler.fill` raises."""
    began, budget_s = time.monotonic(), filler.budget_s(ask)
    text = ask.prefix + ask.suffix
    found = await _next_edit(filler, ask, rewrite, began + SHARE * budget_s)
    if found is not None:
        start, end, line = found
        return filler.reply((_answer(rewrite, text, start, end, line),))
    reason = _not_here(ask) if rewrite.cursor else "nothing has to follow the last edits"
    if reason is not None:
        return filler.reply((_unchanged(rewrite, text),), reason=reason)
    left_ms = max(1, round(1000 * (began + budget_s - time.monotonic())))
    # The client's tokens are for the whole part, and its stops are the marks around that.
    fill = replace(ask, rewrite=None, max_tokens=None, stop=(), answers=1, budget_ms=left_ms)
    reply = await filler.fill(fill)
    if not (new := reply.texts[0]):
        return replace(reply, texts=(_unchanged(rewrite, text),))
    at = len(ask.prefix)
    return replace(reply, texts=(_answer(rewrite, text, at, at, new),))


async def _next_edit(
    filler: Filler, ask: Ask, rewrite: Rewrite, until: float
) -> tuple[int, int, str] | None:
    """What must follow the last edits within the part, as a text and its place in characters."""
    text, cursor = ask.prefix + ask.suffix, ask.prefix.count("\n")
    if len(text) > LONGEST or "\r" in text or await filler.silent(ask.language_id) is not None:
        return None
    regions = await asyncio.to_thread(regions_of, text, rewrite.edits)
    found = asyncio.to_thread(places_after, plain(text), ask.language_id, cursor, regions)
    for place, edit, source in await found:
        start = source.start_of(place.line)
        end = start + len(source.lines[place.line])
        if not (rewrite.start <= start and end <= rewrite.end):
            continue
        fits = await asyncio.to_thread(sound, source, place)
        if not any(fits):
            continue
        try:
            request = request_for(source, place, edit)
            scores = await filler.weigh(request, until - time.monotonic())
        except (BadRequest, DeadlineExceeded):
            return None  # it can't weigh, or not so fast
        if (best := likeliest(place, gains_of(scores, fits))) is not None:
            return start, end, best.text
    return None


def regions_of(text: str, edits: Sequence[tuple[str, str]]) -> list[Region]:
    """Where the text now has what was changed, the newest first; nothing of what it has not any
    more, has more than once, or is too long to be followed up. edits: as in Rewrite."""
    lines, found = text.split("\n"), dict[Region, None]()
    for old, new in list(reversed(edits))[:MOST_EDITS]:
        was, now = old.split("\n"), new.split("\n")
        if max(len(was), len(now)) > MOST_LINES or max(len(old), len(new)) > MOST_CHARS:
            continue
        matcher = SequenceMatcher(None, was, now, autojunk=False)
        for tag, low, high, first, end in matcher.get_opcodes():
            if tag != "equal" and (at := _found(lines, now, first, end)) is not None:
                replaced = "".join(f"{line}\n" for line in was[low:high])
                found[Region(replaced, at, at + end - first - 1)] = None
    return list(found)


def _found(lines: list[str], new: list[str], first: int, end: int) -> int | None:
    """The line where the lines `first` to `end` of a change stand now, by what is around them."""
    if first == end:
        return None  # nothing is left of it
    for reach in REACH:
        low = max(0, first - reach)
        piece = new[low : end + reach]
        last = len(lines) - len(piece)
        places = [
            at
            for at in range(last + 1)
            if lines[at] == piece[0] and lines[at : at + len(piece)] == piece
        ]
        if places:
            return places[0] + first - low if len(places) == 1 else None
    return None


def _not_here(ask: Ask) -> str | None:
    """Why nothing is put in at the cursor, as an editor would not ask for it there either."""
    if not CLOSING.fullmatch(ask.suffix.partition("\n")[0]):
        return "there is code right of the cursor"
    site = Site(ask.prefix, ask.suffix, language_of(ask.language_id))
    return "the line is complete" if site.at_a_whole_line else None


def _answer(rewrite: Rewrite, text: str, start: int, end: int, new: str) -> str:
    """The part with `new` in place of what stands from `start` to `end`."""
    part = text[rewrite.start : start] + new + text[end : rewrite.end]
    return f"{rewrite.lead}{part}{rewrite.tail}"


def _unchanged(rewrite: Rewrite, text: str) -> str:
    if rewrite.unchanged is not None:
        return rewrite.unchanged
    return _answer(rewrite, text, rewrite.end, rewrite.end, "")
