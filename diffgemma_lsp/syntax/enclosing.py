"""The definition around a selection by itself, where something else in the document is broken.

What is wrong further up, such as an open bracket, makes a parser lose its way in all that follows.
"""

from __future__ import annotations

import re

from diffgemma_lsp.syntax.indentation import indentation

_DEFINITION = re.compile(r"[ \t]*(?:async[ \t]+def|def|class)\b")
_HEAD_ENDS = re.compile(r":[ \t]*(?:#.*)?\Z")
_DECORATOR = re.compile(r"[ \t]*@")
_GOES_ON = re.compile(r"[ \t]*[)\]}#]")
_SEEN = re.compile(r"\S")


def by_itself(piece: str, low: int, high: int) -> str | None:
    """`piece` with blanks in place of all that is neither the innermost definition around `low`,
    up to where that ends behind `high`, nor the head of one around it; None without any.

    What stands there keeps its place. Lines end in "\\n".
    """
    lines = piece.split("\n")
    own, last = piece.count("\n", 0, low), piece.count("\n", 0, high)
    while own < len(lines) - 1 and _DECORATOR.match(lines[own]):
        own += 1
    heads = _heads(lines, own)
    if not heads:
        return None
    inner, depth = heads[0], len(indentation(lines[heads[0]]))
    kept = {line for head in heads[1:] for line in _head(lines, head)}
    end = max(inner, last) + 1
    while end < len(lines) and not _ends(lines[end], depth):
        end += 1
    while inner and _DECORATOR.match(lines[inner - 1]):
        inner -= 1
    kept.update(range(inner, end))
    return "\n".join(
        line if number in kept else _SEEN.sub(" ", line) for number, line in enumerate(lines)
    )


def _heads(lines: list[str], own: int) -> list[int]:
    """The lines in which the definitions around a line begin, the innermost one first."""
    found: list[int] = []
    line = lines[own]
    deep = len(indentation(line)) + bool(_DEFINITION.match(line)) if line.strip() else 1 << 30
    for number in range(own, -1, -1):
        line = lines[number]
        depth = len(indentation(line))
        if _DEFINITION.match(line) and depth < deep:
            found.append(number)
            deep = depth
    return found


def _head(lines: list[str], first: int) -> range:
    """The lines of a definition's head."""
    last = first
    while last < len(lines) - 1 and not _HEAD_ENDS.search(lines[last]):
        last += 1
    return range(first, last + 1)


def _ends(line: str, depth: int) -> bool:
    """Whether a definition that is indented by `depth` is over with this line."""
    return bool(line.strip()) and len(indentation(line)) <= depth and not _GOES_ON.match(line)
