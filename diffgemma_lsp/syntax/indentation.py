"""How lines are indented: pure functions of texts whose lines end in "\\n"."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from diffgemma_lsp.syntax.brackets import BracketState
from diffgemma_lsp.syntax.languages import Language

DEFAULT_UNIT = "    "

_INDENTED = re.compile(r"^([ \t]+)\S", re.MULTILINE)
_TABS = re.compile(r"^\t+", re.MULTILINE)
_OPENS_BLOCK = re.compile(r"[:({\[]\s*\Z")
_CLOSES = re.compile(r"\s*[)\]}]")


def indentation(line: str) -> str:
    """The blanks that `line` begins with."""
    return line[: len(line) - len(line.lstrip(" \t"))]


def unit_of(text: str) -> str | None:
    """What one more level of indentation looks like in `text`; None if nothing is indented."""
    indents = _INDENTED.findall(text)
    if not indents:
        return None
    if 2 * sum(indent[0] == "\t" for indent in indents) > len(indents):
        return "\t"
    widths = [0, *(len(indent) for indent in indents if indent[0] == " ")]
    steps = Counter(b - a for a, b in pairwise(widths) if 1 < b - a <= 8)
    return " " * steps.most_common(1)[0][0] if steps else DEFAULT_UNIT


def in_units(text: str, unit: str | None, state: BracketState, language: Language) -> str:
    """`text` indented by tabs or by spaces, as the document is. `state` is what comes before."""
    own = unit_of(text)
    if unit is None or own is None or ("\t" in own) == ("\t" in unit):
        return text
    if own != "\t" and (language.compiled or len(own) % len(DEFAULT_UNIT) == 0):
        # A filling that begins two levels deep shows no single one, and what a model of Python
        # reads is always indented like that.
        own = DEFAULT_UNIT

    def converted(line: str) -> str:
        blanks = indentation(line)
        return blanks.replace(own, unit) + line[len(blanks) :]

    lines = _lines(text, state, language)
    return "\n".join(line if quoted else converted(line) for line, quoted, _ in lines)


def by_spaces(text: str) -> str:
    """`text` with each tab that a line begins with made a level of spaces."""
    return _TABS.sub(lambda found: DEFAULT_UNIT * len(found[0]), text)


def placed(text: str, before: str, state: BracketState, language: Language) -> str:
    """`text` with its first line right at the cursor, and the others as far from it as they were.

    What is filled in often begins with the blanks that stand before the cursor already, or is
    written as if the cursor stood at the start of its line.
    """
    head, _, line = before.rpartition("\n")
    lead = indentation(text)
    if line.strip():
        return text[len(lead) :] if line[-1] in " \t" else text
    if state.open or state.in_string:
        return text  # what looks right there only the author knows
    if lead and not line:
        most = deepest(head, language)
        if len(lead) > len(most):
            return _shifted(most + text[len(lead) :], most, lead, state, language)
    elif lead and _too_deep(head, line, lead):
        return _shifted(text[len(lead) :], line, lead, state, language)
    first, _, rest = text.partition("\n")
    below = next((other for other in rest.split("\n") if other.strip()), None)
    in_code = not state.copy().over(first, language).inside
    if not lead and below is not None and in_code and _OPENS_BLOCK.search(first):
        relative = line and len(indentation(below)) <= len(line)
        return _shifted(text, line, "", state, language) if relative else text
    return text


def within_scope(text: str, line: str, state: BracketState, language: Language) -> str:
    """`text` up to where it leaves the block that it begins in; `line` is that of the cursor."""
    lines = list(_lines(text, state, language))
    scope = indentation(line + lines[0][0]) if line else None
    for number, (content, quoted, depth) in enumerate(lines):
        whole = content if number else line + content
        if not whole.strip() or quoted:
            continue
        if scope is None:
            scope = indentation(whole)
        elif (
            depth <= len(state.open)
            and not _CLOSES.match(content)
            and len(indentation(whole)) < len(scope)
        ):
            return "\n".join(content for content, _, _ in lines[:number])
    return text


def _too_deep(head: str, line: str, lead: str) -> bool:
    """Whether a line below `head` can't begin with `line` and `lead`, while `line` alone may do."""
    above = next((other for other in reversed(head.split("\n")) if other.strip()), "")
    depth = len(indentation(above))
    if _OPENS_BLOCK.search(above):
        unit = unit_of(head) or DEFAULT_UNIT
        return len(line) > depth and len(line) + len(lead) != depth + len(unit)
    return len(line) + len(lead) > depth


def deepest(head: str, language: Language) -> str:
    """How a line below `head` is indented at most. The first one of all is not."""
    comments = tuple(start for start, _ in language.comments)
    code = (line for line in reversed(head.split("\n")) if line.strip())
    above = next((line for line in code if not line.lstrip().startswith(comments)), "")
    inner = (unit_of(head) or DEFAULT_UNIT) if _OPENS_BLOCK.search(above) else ""
    return indentation(above) + inner


def _shifted(text: str, by: str, less: str, state: BracketState, language: Language) -> str:
    """`text` with `by` in front of all lines but the first one, in place of `less`."""
    first, *others = _lines(text, state, language)
    if by == less or not all(
        line.startswith(less) for line, quoted, _ in others if line.strip() and not quoted
    ):
        return text
    moved = [
        line if quoted or not line.strip() else by + line[len(less) :] for line, quoted, _ in others
    ]
    return "\n".join([first[0], *moved])


def _lines(text: str, state: BracketState, language: Language) -> Iterator[tuple[str, bool, int]]:
    """The lines; of each whether it begins in a string, and in how many brackets."""
    state = state.copy()
    for line in text.split("\n"):
        yield line, state.in_string, len(state.open)
        state.over(line + "\n", language)
