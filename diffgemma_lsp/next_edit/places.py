"""Where an edit may have to be followed, and by what: the same substitution elsewhere.

What was replaced says what kind of follower there may be:

a name        other uses of it, as far as the names mean the same
a string      the same string
an argument   calls of the same function
a part of     lines that look as the edited one had looked
a line

All of it is decided by the text alone. It is only a guess, which a model has to agree with.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import SequenceMatcher

from diffgemma_lsp.next_edit.calls import call_changes
from diffgemma_lsp.next_edit.parts import Change, Op, Place, Region
from diffgemma_lsp.next_edit.renames import renamed
from diffgemma_lsp.next_edit.source import Source
from diffgemma_lsp.next_edit.tokens import (
    Token,
    is_name,
    is_value,
    may_name,
    outside_fields,
    tokens_of,
)
from diffgemma_lsp.syntax.languages import language_of

FOLLOWED = 3
"""So many edits are followed up, the newest first."""

LONGEST = 300_000
"""Characters of the longest document in which places are looked for."""

MOST_OPS = 4
"""An edit in more parts is no substitution."""

MOST_PLACES = 24

_LEAST_ALIKE = 4
"""Tokens that a line must have to look like another one."""

_DIFFERENT = 0.34
"""The share of its tokens in which a line may differ that looks like the edited one."""


def places_after(
    text: str, language_id: str, cursor: int, edits: list[Region]
) -> list[tuple[Place, Region, Source]]:
    """Places, each with the edit that it may have to follow. edits: the newest first."""
    source = Source(text, language_of(language_id))
    return [
        (place, edit, source)
        for edit in edits[:FOLLOWED]
        for place in places(source, edit, cursor, edits)
    ]


def places(source: Source, edit: Region, cursor: int, others: Iterable[Region] = ()) -> list[Place]:
    """Places in which an edit may have to be followed, the nearest below the line `cursor` first,
    then those above. others: more edits of the document, which say what is new in it."""
    if source.in_one_token(source.start_of(edit.first)):
        return []
    old = tokens_of(edit.old, source.language)
    new = source.within(edit.first, edit.last)
    ops = list(_ops(old, [source.tokens[i] for i in new], new.start))
    if not 0 < len(ops) <= MOST_OPS or not old:
        return []
    regions = [edit, *others]
    found: dict[int, dict[str, None]] = {}
    for changes in _followers(source, edit, old, ops, regions):
        for line, text in _applied(source, changes):
            found.setdefault(line, {})[text] = None
    own = range(edit.first, edit.last + 1)
    order = sorted(found, key=lambda line: (line < cursor, abs(line - cursor), line in own))
    return [Place(line, tuple(found[line])) for line in order[:MOST_PLACES]]


def _ops(old: list[Token], new: list[Token], begin: int) -> Iterator[Op]:
    """What differs; where as many tokens stand for as many, each by itself."""
    matcher = SequenceMatcher(
        None, [token.text for token in old], [token.text for token in new], autojunk=False
    )
    for tag, low, high, start, end in matcher.get_opcodes():
        if tag == "equal":
            continue
        if high - low == end - start:
            for offset in range(high - low):
                at = begin + start + offset
                yield Op(low + offset, low + offset + 1, at, at + 1)
        else:
            yield Op(low, high, begin + start, begin + end)


def _followers(
    source: Source, edit: Region, old: list[Token], ops: list[Op], regions: list[Region]
) -> Iterator[list[Change]]:
    """What may follow each part of an edit, by kinds; each list holds all changes of one kind."""
    rest: list[Op] = []
    for op in ops:
        was, now = old[op.low : op.high], source.tokens[op.start : op.end]
        kinds = {token.kind for token in (*was, *now)}
        if "comment" in kinds:
            continue
        if len(was) == len(now) == 1 and kinds == {"string"}:
            yield _strings(source, was[0].text, now[0].text)
        elif len(was) == len(now) == 1 and kinds == {"name"} and not source.is_keyword(op.start):
            if is_name(was[0].text) and may_name(now[0].text):
                yield renamed(source, was[0].text, op.start, regions)
        else:
            rest.append(op)
    for op in rest:
        # A value means something else elsewhere, unless it was changed elsewhere, too.
        was = [token.text for token in old[op.low : op.high]]
        sure = not any(map(is_value, was)) or _repeated(source, was, op, edit, regions)
        yield from call_changes(source, old, op, edit, sure)
    if rest and len(rest) == len(ops):
        yield _alike(source, edit, old, ops)


def _repeated(source: Source, was: list[str], op: Op, edit: Region, regions: list[Region]) -> bool:
    """Whether another edit replaced the same by the same."""
    now = [token.text for token in source.tokens[op.start : op.end]]
    for other in regions:
        if other != edit:
            before = [token.text for token in tokens_of(other.old, source.language)]
            after = [source.tokens[i].text for i in source.within(other.first, other.last)]
            if _holds(before, was) and _holds(after, now) and not _holds(after, was):
                return True
    return False


def _holds(texts: list[str], some: list[str]) -> bool:
    return any(texts[at : at + len(some)] == some for at in range(len(texts) - len(some) + 1))


def _applied(source: Source, changes: list[Change]) -> Iterator[tuple[int, str]]:
    """The lines that changes touch, as they would be."""
    by_line: dict[int, list[Change]] = {}
    for change in changes:
        line = source.line_of(change.start)
        if change.end <= source.start_of(line) + len(source.lines[line]):
            by_line.setdefault(line, []).append(change)
    for line, those in by_line.items():
        text, start = source.lines[line], source.start_of(line)
        for change in sorted(set(those), reverse=True):
            text = text[: change.start - start] + change.new + text[change.end - start :]
        if text != source.lines[line]:
            yield line, text


# ---- strings, and lines that look alike ----


def _strings(source: Source, old: str, new: str) -> list[Change]:
    """The same string elsewhere."""
    if "\n" in old or not old.strip("\"'`"):
        return []
    if outside_fields(old) == outside_fields(new):
        return []  # it says the same, of something else
    found = (source.tokens[index] for index in source.by_text.get(old, ()))
    return [Change(token.start, token.end, new) for token in found]


def _alike(source: Source, edit: Region, old: list[Token], ops: list[Op]) -> list[Change]:
    """The same change in lines that look as the edited one had looked."""
    if edit.old.count("\n") > 1 or edit.last > edit.first or len(old) < _LEAST_ALIKE:
        return []
    if all(is_value(token.text) for op in ops for token in old[op.low : op.high]):
        return []
    texts = [token.text for token in old]
    changed = {index for op in ops for index in range(op.low, op.high)}
    found: list[Change] = []
    for line in range(len(source.lines)):
        if line == edit.first:
            continue
        indexes = source.within(line, line)
        if len(indexes) != len(texts):
            continue
        there = [source.tokens[index] for index in indexes]
        different = [n for n, token in enumerate(there) if token.text != texts[n]]
        if len(different) > _DIFFERENT * len(texts) or changed & set(different):
            continue
        if any(there[n].kind != old[n].kind for n in different):
            continue
        found += [_moved(source, there, op) for op in ops]
    return found


def _moved(source: Source, there: list[Token], op: Op) -> Change:
    """What `op` does, in a line with as many tokens as the edited one had."""
    now = source.tokens[op.start : op.end]
    new = source.text[now[0].start : now[-1].end] if now else ""
    if op.low < op.high:
        return Change(there[op.low].start, there[op.high - 1].end, new)
    # Put in: with the blanks that stand around it in the edited line.
    before = source.tokens[op.start - 1].end if op.low else now[0].start
    lead = source.text[before : now[0].start]
    at = there[op.low - 1].end if op.low else there[0].start
    behind = "" if op.low else source.text[now[-1].end : source.tokens[op.end].start]
    return Change(at, at, lead + new + behind)
