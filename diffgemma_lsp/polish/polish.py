"""From what the engine filled in to what is shown: pure functions of texts.

A filling is only ever shortened or indented anew, freed of what nobody sees, and its line ends made
those of the document. Of
one that does not fit, the longest part is shown that does; if there is none, there is a reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import NamedTuple

from diffgemma_lsp.polish.repeats import (
    without_lines_before,
    without_loops,
    without_next_lines,
    without_overlap,
)
from diffgemma_lsp.syntax.brackets import BracketState, Imbalance, imbalance
from diffgemma_lsp.syntax.check import Site
from diffgemma_lsp.syntax.indentation import in_units, placed, unit_of, within_scope
from diffgemma_lsp.syntax.languages import Language, language_of
from diffgemma_lsp.text.text import with_line_ends
from engine.types import Other

# How many parts of a filling are tried that breaks the syntax. Each try costs some milliseconds.
TRIES = 8

# So many characters at the end of a filling may go together with what follows.
_SEAM = 3

UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
"""Control characters, which a terminal may obey, and those that have a text read in another
direction than it is run in (https://trojansource.codes)."""

_LAST_WORD = re.compile(r"\w+\Z")
_TOKEN = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Around:
    """What a filling stands in: the text before it and behind it."""

    before: str
    after: str
    language_id: str = ""
    newline: str = "\n"

    @property
    def site(self) -> Site:
        """The same for its syntax."""
        return Site(self.before, self.after, language_of(self.language_id))


class Polished(NamedTuple):
    """What to show; if that is "", the reason says why."""

    text: str
    reason: str | None


class Offer(NamedTuple):
    """One answer as it is shown, and how sure the model is of it."""

    polished: Polished
    confidence: float | None


_Rule = tuple[Callable[[str], str], str]


def polish(
    text: str,
    around: Around,
    *,
    automatic: bool = False,
    max_lines: int | None = None,
    whole: bool = True,
) -> Polished:
    """What to show of `text`.

    automatic: nobody asked for it, so it must stay in the block that it begins in.
    whole: False if it may stop in the middle of something.
    """
    site = around.site
    text = without_loops(with_line_ends(harmless(text)))
    if not whole and not (text := finished(text, site)).strip():
        return Polished("", "the time was up before there was a whole word: a larger budget helps")
    if not text.strip():
        return Polished("", "the model has nothing to add here")
    text = without_lines_before(text, site.before)
    if not text.strip():
        return Polished("", "the suggestion only repeats what comes before it")
    text = indented(text, site)
    rules = _shortening(site, automatic, max_lines, whole)
    longer = ""
    while text != longer:  # what one rule cuts may give another one something to do
        longer = text
        for rule, reason in rules:
            if not (text := rule(text)).strip():
                return Polished("", reason)
    return Polished(text.replace("\n", around.newline), None)


def offers(
    answers: Iterable[tuple[Other, bool]], around: Around, *, automatic: bool = False
) -> Iterator[Offer]:
    """Each of several answers as it is shown, in their order, those that can't be among them.

    answers: with whether each is whole. They are looked at one by one, when they are asked for,
    since each takes a few milliseconds, and some many.
    """
    for answer, whole in answers:
        polished = polish(answer.text, around, automatic=automatic, whole=whole)
        yield Offer(polished, answer.confidence)


def _shortening(site: Site, automatic: bool, max_lines: int | None, whole: bool) -> list[_Rule]:
    """The rules that shorten, and what to say of the one that leaves nothing."""
    rules: list[_Rule] = [
        (
            partial(unrepeated, site=site),
            "the suggestion only repeats what follows",
        ),
        (
            partial(first_lines, max_lines=max_lines),
            "the suggestion begins with an empty line, and max_lines allows no more",
        ),
        (partial(balanced, site=site), "the brackets of the suggestion don't fit"),
        (partial(unbroken, site=site, whole=whole), "the suggestion would break the syntax"),
        (partial(ended, after=site.after), "the model has nothing to add here"),
    ]
    if automatic:
        within = partial(within_scope, line=site.line, state=site.state(), language=site.language)
        rules.insert(0, (within, "the suggestion lies outside of the block around the cursor"))
    return rules


def harmless(text: str, known: str = "") -> str:
    """`text` without what is UNSEEN, but for what is `known`, in the text that it replaces."""
    return UNSEEN.sub(lambda found: found[0] if found[0] in known else "", text)


def indented(text: str, site: Site) -> str:
    """`text` indented as what is around it."""
    state, language = site.state(), site.language
    text = in_units(text, unit_of(site.before + site.after), state, language)
    return placed(text, site.before, state, language)


def unrepeated(text: str, site: Site) -> str:
    """`text` up to where it goes on with what follows."""
    text = without_next_lines(text, site.line, site.after)
    return without_overlap(text, site.after, site.language)


def finished(text: str, site: Site) -> str:
    """`text`, which may stop in the middle of something, up to its last whole line; of a single
    line, up to its last whole word. What is a word elsewhere is a whole one here."""
    lines = text.rpartition("\n")[0]
    if lines.strip():
        return lines
    last = _LAST_WORD.search(text)
    if last is None:
        return text
    begun = _LAST_WORD.search(site.line) if last.start() == 0 else None
    word = (begun[0] if begun else "") + last[0]
    known = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)")
    return text if known.search(f"{site.before} {site.after}") else text[: last.start()]


def ended(text: str, after: str) -> str:
    """`text` without what stands behind its last line: blanks, and blank lines.

    Where the cursor's line goes on, that may begin in a line of its own, or behind a blank.
    """
    whole = text.rstrip()
    if not after.partition("\n")[0].strip():
        return whole
    blank, line_end, indent = text[len(whole) :].rpartition("\n")
    return whole + line_end + indent if "\n" in blank else text


def first_lines(text: str, max_lines: int | None) -> str:
    """At most `max_lines` lines of `text`."""
    return text if max_lines is None else "\n".join(text.split("\n")[:max_lines])


def only_lines(text: str, most: int | None) -> str:
    """At most so many lines, whatever they end with, and nothing behind the last one."""
    return text if most is None else "".join(text.splitlines(keepends=True)[:most]).rstrip("\r\n")


def balanced(text: str, site: Site) -> str:
    """The most of `text` that leaves no more brackets and strings unbalanced than there were.

    So goes a bracket that closes what the text behind the hole closes already.
    """
    if not site.language.known:
        return text
    behind: dict[str, BracketState] = {}

    def excess(state: BracketState) -> Imbalance:
        inside = state.inside
        if inside not in behind:
            behind[inside] = BracketState(inside).over(site.after, site.language)
        return imbalance(state, behind[inside])

    state = site.state()
    allowed, fits = excess(state), 0
    for at in state.steps(text, site.language):
        if excess(state).within(allowed):
            fits = at
    lines, line_end, _ = text[:fits].rpartition("\n")
    if line_end and text[fits:] and text[fits] not in ")]}":
        return balanced(lines, site)  # its last line ends in the middle of something
    ends = (text[:end] for end in range(fits, max(fits - _SEAM, 0), -1))
    return next((part for part in ends if _sound_at_seams(part, site)), "")


def _sound_at_seams(text: str, site: Site) -> bool:
    """Whether brackets and strings are no worse with `text` where all is read as one: what stands
    at a seam may go together, as a backslash does with what is behind it in a string."""
    language = site.language
    marks = "\\" + "".join([*language.strings, *(start for start, _ in language.comments)])
    if not {text[-1:], site.before[-1:]} & {*marks}:
        return True
    if site.after[:1].strip() and _escapes(site.before + text, language) != _escapes(
        site.before, language
    ):
        return False
    read = [
        BracketState().over(site.before + middle + site.after, language) for middle in (text, "")
    ]
    now, then = (imbalance(state, BracketState()) for state in read)
    return now.within(then)


def _escapes(text: str, language: Language) -> bool:
    """Whether the last character of `text` is a backslash that makes another of what follows."""
    slashes = len(text) - len(text.rstrip("\\"))
    inside = BracketState().over(text[: len(text) - slashes], language).inside
    return slashes % 2 == 1 and inside in language.strings


def unbroken(text: str, site: Site, whole: bool = True) -> str:
    """The longest part of `text` from its start that does not break the syntax, or "". What was cut
    off in its only line (not `whole`) breaks none that it may yet keep; it ends in no operator."""
    if not site.broken_by(text):
        return text
    if not whole and "\n" not in text:
        text = text.rstrip(" .,=<>+-*/%&|^~@:")
        if not site.broken_by(text) or site.lets_go_on(text):
            return text
    parts = islice(_parts(text, site), TRIES)
    return next((part for part in parts if not site.broken_by(part)), "")


def first_of_its_lines(text: str) -> Iterator[str]:
    """Fewer and fewer of the lines of `text`, at least one."""
    lines = text.split("\n")
    for size in range(len(lines) - 1, 0, -1):
        if lines[size - 1].strip():
            yield "\n".join(lines[:size]).rstrip()


def _parts(text: str, site: Site) -> Iterator[str]:
    """The shorter ones, longest first: whole lines, or balanced parts of the only line."""
    yield from first_of_its_lines(text)
    if "\n" not in text:
        for token in reversed(list(_TOKEN.finditer(text))[:-1]):
            part = text[: token.end()]
            if balanced(part, site) == part:
                yield part
