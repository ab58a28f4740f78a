"""What the model is asked about a place: how likely is each line that may stand there, with the
edit in view. Little is shown, since what is read costs time, and an old name that is read again and
again only seems the likelier.
"""

from __future__ import annotations

from diffgemma_lsp.next_edit.parts import Place, Region
from diffgemma_lsp.next_edit.source import Source
from diffgemma_lsp.syntax.indentation import by_spaces, unit_of
from engine.types import MOST_CHOICES, InfillRequest, fill_in_the_middle

ABOVE, BELOW = 12, 7
"""Lines that are shown above and below a place; an edit that is not among them stands in front."""

MOST_CHARS = 1_000
"""Characters that are shown of an edit."""


def request_for(source: Source, place: Place, edit: Region) -> InfillRequest:
    """What stands at a place first, then its choices, to be weighed."""
    line, old = place.line, source.lines[place.line]
    first = max(0, line - ABOVE)
    before = "".join(f"{each}\n" for each in source.lines[first:line])
    if not first <= edit.first < line:
        changed = "\n".join(source.lines[edit.first : edit.last + 1])
        before = f"{changed[:MOST_CHARS]}\n\n{before}"
    behind = "\n" + "\n".join(source.lines[line + 1 : line + 1 + BELOW])
    choices = (old, *place.choices[: MOST_CHOICES - 1])
    if source.language.compiled and unit_of(source.text) == "\t":  # as models have learned it
        before, behind = by_spaces(before), by_spaces(behind)
        choices = tuple(map(by_spaces, choices))
    return InfillRequest(fill_in_the_middle(before, behind), choices=choices)
