"""What a filling repeats of itself and of the text around it: pure functions that cut that off.

Lines end in "\\n".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice

from diffgemma_lsp.syntax.brackets import BracketState
from diffgemma_lsp.syntax.languages import Language, language_of

# An overlap this long is no coincidence.
_CERTAIN = 8
# How many lines, and how many tokens, can be what is said over and over.
_LONGEST_LOOP = 8

# A word that says the same over and over. What begins with a digit is a number, and may.
_WORD = re.compile(r"\b(?=[^\W\d])\w*?(?:(\w)\1{7,}|(\w{2,12}?)\2{3,})")
# A row of the same signs, or of a few. Brackets and quotes are looked at elsewhere.
_ROW = re.compile(r"((?:[^\w\s()\[\]{}\"'] ?){1,4}?)\1{7,}")

_TOKEN = re.compile(r"\w+|[^\w\s]")
_NAME = re.compile(r"\w+")
# What says something: a letter, or a sign that computes.
_SAYS = re.compile(r"[^\W\d]|[+*/%&|^]")
_UNKNOWN = language_of("")


# ---- of what follows ----


def without_overlap(text: str, suffix: str, language: Language = _UNKNOWN) -> str:
    """`text` without the tail that repeats the start of `suffix`."""
    ends_line = suffix[:1] in ("", "\n")
    while True:
        if ends_line:
            text = text.rstrip(" \t")  # blanks that nobody wants at the end of a line
        size = _overlap(text, suffix, language)
        if not size:
            return text
        text = text[:-size]


def _overlap(text: str, suffix: str, language: Language) -> int:
    """How many characters at the end of `text` repeat the start of `suffix`.

    Counted if they are many, or a whole line of the suffix or more, or all that is left of the
    cursor's line or of the word that it stands in. Of a short one that could be a coincidence, only
    what does not belong to the text itself: the ")" of `bar()` is its own, that of `x)` repeats.
    """
    rest = suffix.find("\n") if "\n" in suffix else len(suffix)
    begun = _NAME.match(suffix)
    word = begun.end() if begun else 0
    for size in range(min(len(text), len(suffix)), 0, -1):
        if not text.endswith(suffix[:size]):
            continue
        whole = size == rest or (size > rest and suffix[size : size + 1] in ("", "\n"))
        whole = whole or (size == word and not _NAME.match(text[-size - 1 : -size]))
        if size >= _CERTAIN or (
            (whole or suffix[:size].endswith("\n")) and _can_go(text, size, language)
        ):
            return size
    return 0


def _can_go(text: str, size: int, language: Language) -> bool:
    """Whether the last `size` characters can go without leaving a bracket or a string open."""
    kept = BracketState().over(text[:-size], language)
    whole = kept.copy().over(text[-size:], language)
    return len(kept.open) <= len(whole.open) and not (kept.in_string and not whole.in_string)


def without_next_lines(text: str, line: str, suffix: str) -> str:
    """`text` up to where it goes on with the lines that come next; `line` is before the cursor.

    Two lines that are the same are enough, or a last one that is too long to be a coincidence.
    """
    rest, _, below = suffix.partition("\n")
    following = _some_lines(below.split("\n"))
    lines = text.split("\n")
    whole = [*lines]
    whole[0] = line + whole[0]
    whole[-1] += rest
    for number, content in enumerate(whole):
        if not content.strip() or content.rstrip() not in following[:1]:
            continue
        here = _some_lines(whole[number:])
        enough = len(here) == 2 or len(content.strip()) >= _CERTAIN
        if enough and here == following[: len(here)]:
            return "\n".join(lines[:number])
    return text


def _some_lines(lines: Sequence[str]) -> list[str]:
    """The first two lines that are not blank."""
    return list(islice((line.rstrip() for line in lines if line.strip()), 2))


# ---- of what comes before ----


def without_lines_before(text: str, before: str) -> str:
    """`text` without a head that repeats the cursor's line, or the lines above it."""
    *above, line = before.split("\n")
    if line.strip():
        said = line.lstrip()
        # More than one word: `f(` may well be followed by another `f(`.
        starts = " " in said and text.lstrip(" \t").startswith(said)
        return text.lstrip(" \t")[len(said) :] if starts else text
    lines = text.split("\n")
    for size in range(min(len(lines), 8), 0, -1):
        if _same_lines(lines[:size], above):
            rest = "\n".join(lines[size:])
            return rest[len(line) :] if rest.startswith(line) else rest.lstrip(" \t")
    return text


def _same_lines(lines: Sequence[str], above: Sequence[str]) -> bool:
    """Whether `above` ends with `lines`, and there is enough of them to be no coincidence."""
    said = [line.strip() for line in lines if line.strip()]
    if not said or len("".join(said)) < _CERTAIN or not lines[-1].strip():
        return False
    heard: list[str] = []
    for line in reversed(above):
        if line.strip():
            heard.insert(0, line.strip())
        if len(heard) == len(said):
            return heard == said
    return False


# ---- of itself ----


def without_loops(text: str) -> str:
    """`text` up to where it says the same lines, words, letters or signs over and over."""
    for pattern in (_WORD, _ROW):
        if found := pattern.search(text):
            text = text[: found.start()]
    lines = text.split("\n")
    if (end := _loop([line.strip() for line in lines], 3, 3)) is not None:
        text = "\n".join(lines[:end])
    tokens = list(_TOKEN.finditer(text))
    if (end := _loop([token[0] for token in tokens], 3, 5)) is not None:
        text = text[: tokens[end - 1].end()]
    return text


def _loop(things: Sequence[str], times: int, times_of_many: int) -> int | None:
    """Where the first round ends of what is said so many times in a row; None without such.

    Numbers and most signs by themselves may repeat: there are tables, and rows of brackets.
    """
    for start in range(len(things)):
        for size in range(1, _LONGEST_LOOP + 1):
            rounds = times if size == 1 else times_of_many
            once = list(things[start : start + size])
            if not any(map(_SAYS.search, once)):
                continue
            if list(things[start : start + size * rounds]) == once * rounds:
                return start + size
    return None
