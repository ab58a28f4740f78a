"""What goes in front of the canvas: pieces of other files, then the text before the first hole.

What changes least comes first: a person who types changes the end of the prefix with every key, and
what lies in other files hardly ever, so that a prefix cache stays good for nearly all of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.profile import Profile
from engine.text.tokenizer import TextTokenizer
from engine.types import Snippet

_CHARS_PER_TOKEN = 3
"""Fewer than most tokens have, so that the cut text is seldom longer than the budget."""

_LEAST_SNIPPET = 16
"""A piece of another file that has room for fewer tokens is left out."""


def prompt_ids(
    text: str,
    context: Sequence[Snippet],
    tokenizer: TextTokenizer,
    bos_id: int | None,
    profile: Profile,
) -> list[int]:
    """The ids in front of the canvas, all of `prompt_parts`."""
    front, own = prompt_parts(text, context, tokenizer, bos_id, profile)
    return front + own


def prompt_parts(
    text: str,
    context: Sequence[Snippet],
    tokenizer: TextTokenizer,
    bos_id: int | None,
    profile: Profile,
) -> tuple[list[int], list[int]]:
    """What begins the prompt, with `context` in at most half of the room; and `text` in the rest.

    How much room is left for the context must not depend on the text, or each key that is typed
    would move what stands before it.
    """
    separator = tokenizer.id_of(profile.separator) if profile.separator else None
    start = [] if bos_id in (None, separator) else [bos_id]
    front: list[int] = []
    if context and profile.neighbours:
        room = profile.context // 2 - len(start)
        if separator is None:
            front = _titled(context, tokenizer, room)
        else:
            front = _separated(context, tokenizer, separator, room)
    if not front:
        ids = prefix_ids(text, tokenizer, bos_id, profile.context)
        begun = 0 if bos_id is None else 1
        return ids[:begun], ids[begun:]
    left = profile.context - len(start) - len(front)
    return start + front, prefix_ids(text, tokenizer, separator, left)


def prefix_ids(text: str, tokenizer: TextTokenizer, bos_id: int | None, budget: int) -> list[int]:
    """The ids of the end of `text`, at most `budget` of them with the one that begins a text.

    The left edge moves in jumps of a quarter of the budget and to the start of a line: with every
    key that is typed the ids stay the same but for the last few, and so does a prefix cache.
    """
    start = [] if bos_id is None else [bos_id]
    jump = max(1, budget * _CHARS_PER_TOKEN // 4)
    edge = max(0, -(-(len(text) - 4 * jump) // jump) * jump)
    while True:
        ids = tokenizer.encode(text[_line_start(text, edge) :])
        if len(ids) + len(start) <= budget:
            return start + ids
        if edge + jump >= len(text):
            return start + ids[len(ids) - budget + len(start) :]
        edge += jump


def _separated(
    context: Sequence[Snippet], tokenizer: TextTokenizer, separator: int, room: int
) -> list[int]:
    """The pieces as documents of their own, as in training; at most `room` ids."""
    ids: list[int] = []
    for snippet in context:
        if room - len(ids) <= _LEAST_SNIPPET:
            break
        own = tokenizer.encode(_whole_lines(snippet.text))
        ids += [separator, *_cut(own, tokenizer, room - len(ids) - 1)]
    return ids


def _titled(context: Sequence[Snippet], tokenizer: TextTokenizer, room: int) -> list[int]:
    """The pieces under their paths, and a title for the text that follows; at most `room` ids."""
    last = tokenizer.encode("# The current file:\n")
    ids: list[int] = []
    for snippet in context:
        left = room - len(last) - len(ids)
        own = tokenizer.encode(f"# {snippet.path}\n{_whole_lines(snippet.text)}\n")
        title = tokenizer.encode(f"# {snippet.path}\n")
        if left < len(title) + _LEAST_SNIPPET:
            break
        ids += _cut(own, tokenizer, left)
    return ids + last if ids else []


def _cut(ids: list[int], tokenizer: TextTokenizer, room: int) -> list[int]:
    """At most `room` ids, and whole lines if that leaves any."""
    if len(ids) <= room:
        return ids
    ends = [i + 1 for i in range(room) if tokenizer.bytes_of(ids[i : i + 1]).endswith(b"\n")]
    return ids[: ends[-1] if ends else room]


def _whole_lines(text: str) -> str:
    text = text.replace("\r\n", "\n")
    return text if text.endswith("\n") else text + "\n"


def _line_start(text: str, offset: int) -> int:
    """The start of the first line that begins at or after `offset`; `offset` if there is none."""
    if offset == 0:
        return 0
    newline = text.find("\n", offset - 1)
    return offset if newline < 0 else newline + 1
