"""What differs between two texts, as the smallest edits and as one change.

Offsets and lengths are in characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

from diffgemma_lsp.text.documents import Change
from diffgemma_lsp.text.text import LINE

# Lines or tokens that are still compared with each other. Of many, difflib takes no pairs from
# among the commonest ones; else the time would grow with the third power.
MOST_LINES, MOST_TOKENS = 20_000, 2_000

_TOKEN = re.compile(r"\r\n|\w+|[ \t]+|[\s\S]")
_BLANK = re.compile(r"[ \t]*")


class Edit(NamedTuple):
    """`text` in place of what stands from `start` to `end`."""

    start: int
    end: int
    text: str


def minimal(old: str, new: str) -> list[Edit]:
    """What makes `new` of `old`: in order, never overlapping, and no more than needed.

    All are meant for `old` as it is, as those of LSP are. No edit parts a "\\r\\n" of `old`.
    """
    edits: list[Edit] = []
    for lines in _changes(LINE.findall(old), LINE.findall(new), MOST_LINES):
        part = old[lines.start : lines.end]
        for tokens in _changes(_TOKEN.findall(part), _TOKEN.findall(lines.text), MOST_TOKENS):
            edit = Edit(lines.start + tokens.start, lines.start + tokens.end, tokens.text)
            if edits and _BLANK.fullmatch(between := old[edits[-1].end : edit.start]):
                last = edits.pop()  # two words and the blank between them read better as one
                edit = Edit(last.start, edit.end, last.text + between + edit.text)
            edits.append(edit)
    return edits


def difference(old: str, new: str) -> Change:
    """All that differs between two texts, as one change."""
    head = _same_start(old, new, min(len(old), len(new)))
    most = min(len(old), len(new)) - head
    low, high = 0, most
    while low < high:  # how much of the rest is the same at the end
        middle = (low + high + 1) // 2
        if old[len(old) - middle : len(old) - low] == new[len(new) - middle : len(new) - low]:
            low = middle
        else:
            high = middle - 1
    end = len(old) - low
    return Change(head, end, old[head:end], new[head : len(new) - low])


def _same_start(old: str, new: str, most: int) -> int:
    """How many characters at the start are the same: found by halves, compared in one go each."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if old[low:middle] == new[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _changes(old: Sequence[str], new: Sequence[str], most: int) -> Iterator[Edit]:
    """The stretches of `old` that differ, as offsets into the text that it makes up."""
    head = 0
    while head < min(len(old), len(new)) and old[head] == new[head]:
        head += 1
    tail = 0
    while tail < min(len(old), len(new)) - head and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    old, new, offset = (
        old[head : len(old) - tail],
        new[head : len(new) - tail],
        sum(map(len, old[:head])),
    )
    if not old and not new:
        return
    if max(len(old), len(new)) > most:
        yield Edit(offset, offset + sum(map(len, old)), "".join(new))
        return
    at = 0
    for tag, first, stop, new_first, new_stop in SequenceMatcher(None, old, new).get_opcodes():
        size = sum(map(len, old[first:stop]))
        if tag != "equal":
            yield Edit(offset + at, offset + at + size, "".join(new[new_first:new_stop]))
        at += size
