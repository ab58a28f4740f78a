"""From what the engine filled in to what is shown: pure functions of texts.

A suggestion is only ever shortened, and its line ends made those of the document. "" means that
nothing of it is worth showing.
"""

from __future__ import annotations

import re

# An overlap this long is no coincidence.
_CERTAIN = 8

_CLOSES = {")": "(", "]": "[", "}": "{"}
_LINE_END = re.compile(r"\r\n|\r|\n")


def polish(text: str, suffix: str, newline: str, max_lines: int | None = None) -> str:
    """What to show of `text`, which is to stand before `suffix`, or ""."""
    text = _LINE_END.sub("\n", text)
    suffix = _LINE_END.sub("\n", suffix)
    text = without_overlap(text, suffix)
    if max_lines is not None:
        text = without_overlap("\n".join(text.split("\n")[:max_lines]), suffix)
    return text.replace("\n", newline) if text.strip() else ""


def without_overlap(text: str, suffix: str) -> str:
    """`text` without the tail that repeats the start of `suffix`."""
    ends_line = suffix[:1] in ("", "\n")
    while True:
        if ends_line:
            text = text.rstrip(" \t")  # blanks that nobody wants at the end of a line
        size = _overlap(text, suffix)
        if not size:
            return text
        text = text[:-size]


def _overlap(text: str, suffix: str) -> int:
    """How many characters at the end of `text` repeat the start of `suffix`.

    Counted if they are many, or a whole line of the suffix or more, or all that is left of the
    cursor's line. Of a short one that could be a coincidence, only what does not belong to the
    text itself: the ")" of `bar()` is its own, that of `x)` repeats.
    """
    rest = suffix.find("\n") if "\n" in suffix else len(suffix)
    for size in range(min(len(text), len(suffix)), 0, -1):
        if not text.endswith(suffix[:size]):
            continue
        whole = size == rest or (size > rest and suffix[size : size + 1] in ("", "\n"))
        if size >= _CERTAIN or ((whole or suffix[:size].endswith("\n")) and _repeats(text, size)):
            return size
    return 0


def _repeats(text: str, size: int) -> bool:
    """Whether the last `size` characters can go without leaving a bracket or a quote open."""
    kept, whole = text[:-size], text
    return _open_brackets(kept) <= _open_brackets(whole) and all(
        kept.count(quote) % 2 <= whole.count(quote) % 2 for quote in "\"'`"
    )


def _open_brackets(text: str) -> int:
    """How many brackets the text opens and does not close. Strings are not looked into."""
    stack: list[str] = []
    for char in text:
        if char in "([{":
            stack.append(char)
        elif stack and _CLOSES.get(char) == stack[-1]:
            stack.pop()
    return len(stack)
