"""What the model is asked about a place: how likely is each line that may stand there, with the
edit in view. Little is shown, since what is read costs time, and an old name that is read again and
again only seems the likelier.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from diffgemma_lsp.next_edit.parts import Place, Region
from diffgemma_lsp.next_edit.source import Source
from diffgemma_lsp.syntax.check import Site
from diffgemma_lsp.syntax.indentation import by_spaces, unit_of
from engine.types import MOST_CHOICES, InfillRequest, fill_in_the_middle

ABOVE, BELOW = 12, 7
"""Lines that are shown above and below a place; an edit that is not among them stands in front."""

MOST_CHARS = 1_000
"""Characters that are shown of an edit."""

LEAST = -8.0
"""Nats by which the model has to find a line likelier than the one that stands there. Below nought,
since a place is found by strong signs: of 500 edits after which nothing must follow none has any
(tests/bench/next_edits.py). How usual the words of a line are must not outweigh them; only what the
model finds absurd is not offered: 1 in 22 of the right lines, and 1 in 4 of the wrong ones."""


class NextEdit(NamedTuple):
    """A line of a document, and the text for its place; neither has a line end. gain: the nats by
    which the model finds that likelier."""

    line: int
    text: str
    gain: float


def request_for(source: Source, place: Place, edit: Region) -> InfillRequest:
    """What stands at a place first, then its choices, to be weighed."""
    line, old = place.line, source.lines[place.line]
    first = max(0, line - ABOVE)
    before = "".join(f"{each}\n" for each in source.lines[first:line])
    if not first <= edit.first < line:
        changed = "\n".join(source.lines[edit.first : edit.last + 1])
        before = f"{changed[:MOST_CHARS]}\n\n{before}"
    behind = "\n" + "\n".join(source.lines[line + 1 : line + 1 + BELOW])
    choices = (old, *weighed(place))
    if source.language.compiled and unit_of(source.text) == "\t":  # as models have learned it
        before, behind = by_spaces(before), by_spaces(behind)
        choices = tuple(map(by_spaces, choices))
    return InfillRequest(fill_in_the_middle(before, behind), choices=choices)


def weighed(place: Place) -> tuple[str, ...]:
    """As many of its choices as one request may have, beside what stands there."""
    return place.choices[: MOST_CHOICES - 1]


def sound(source: Source, place: Place) -> list[bool]:
    """Of each choice, whether it breaks no syntax that is sound."""
    start = source.start_of(place.line)
    old = source.lines[place.line]
    site = Site(source.text[:start], source.text[start + len(old) :], source.language)
    return [not site.worsened_by(choice, old) for choice in weighed(place)]


def gains_of(scores: Sequence[float], fits: Sequence[bool]) -> tuple[float, ...]:
    """By how many nats each choice is likelier than what stands there; -inf for what does not fit.

    scores: of the request's choices, as the engine gives them. fits: which choices are sound.
    """
    return tuple(
        score - scores[0] if fit else float("-inf")
        for score, fit in zip(scores[1:], fits, strict=True)
    )


def likeliest(place: Place, gains: Sequence[float]) -> NextEdit | None:
    """What the model finds likeliest at a place, unless that is as it stands, by far."""
    gain = max(gains)
    return NextEdit(place.line, place.choices[gains.index(gain)], gain) if gain >= LEAST else None
