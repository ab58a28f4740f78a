"""What goes in front of the canvas: the text before the first hole, as much as the model reads."""

from __future__ import annotations

from engine.tokenizer import TextTokenizer

_CHARS_PER_TOKEN = 3
"""Fewer than most tokens have, so that the cut text is seldom longer than the budget."""


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


def _line_start(text: str, offset: int) -> int:
    """The start of the first line that begins at or after `offset`; `offset` if there is none."""
    if offset == 0:
        return 0
    newline = text.find("\n", offset - 1)
    return offset if newline < 0 else newline + 1
