"""What of a model's answer goes into a document: nothing that brings an error of syntax."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from diffgemma_lsp.actions.blank import Blank
from diffgemma_lsp.context.window import prefix_of, suffix_of
from diffgemma_lsp.polish.polish import TRIES, harmless
from diffgemma_lsp.polish.repeats import without_loops
from diffgemma_lsp.syntax.check import Site
from diffgemma_lsp.syntax.indentation import in_units, placed, unit_of, within_scope
from diffgemma_lsp.syntax.languages import language_of
from diffgemma_lsp.text.snapshot import DocumentSnapshot
from diffgemma_lsp.text.text import Point, Text

AROUND = 32_768
"""Characters on either side of a blank that are looked at, to see if an edit fits."""


class Fit(NamedTuple):
    """What of a model's answer goes into a document.

    texts: what is put in the place of each blank; None leaves what stands there. How many blanks
    are left because whatever was written there would break the syntax (broken), because nothing
    came that could stand there (empty), and because the time was up (late).
    """

    texts: tuple[str | None, ...]
    broken: int = 0
    empty: int = 0
    late: int = 0

    @property
    def nothing(self) -> str:
        """Why all of them are left. Short, so that Neovim has room for it in one line."""
        if self.broken:
            return "nothing changed: it would break the syntax"
        return f"nothing changed: {'the time was up' if self.late else 'it does not fit here'}"

    @property
    def left(self) -> str | None:
        """How many are left and why, for a person; None if none is."""
        counts = {
            "what came would break the syntax": self.broken,
            "nothing came that fits": self.empty,
            "the time was up": self.late,
        }
        whys = {why: count for why, count in counts.items() if count}
        if not whys:
            return None
        said = whys if len(whys) == 1 else [f"{why} ({count})" for why, count in whys.items()]
        return f"{sum(whys.values())} of {len(self.texts)} places left: {'; '.join(said)}"


def fitted(
    blanks: Sequence[Blank],
    answers: Sequence[str],
    snapshot: DocumentSnapshot,
    until: float = math.inf,
) -> Fit:
    """For each blank what fits of its answer: nothing that brings an error of syntax.

    until: when to leave what is not looked at yet as it is, by time.monotonic().
    """
    text = snapshot.text
    unit = unit_of(prefix_of(snapshot) + suffix_of(snapshot))
    found: list[str | None] = []
    broken = empty = late = 0
    for blank, answer in reversed(list(zip(blanks, answers, strict=True))):
        if time.monotonic() > until:
            found.insert(0, None)
            late += 1
            continue
        site = _site_of(blank, text, snapshot.language_id)
        texts = islice(blank.texts(_indented(answer, blank, site, unit)), TRIES)
        ways = [way.replace("\n", snapshot.newline) for way in texts]
        stands = text.between(blank.start, blank.end)
        if blank.draft is None:
            ways = [way for way in ways if way != stands]
        # What is rewritten is held to what stood there; of what is missing nothing can be said.
        old = None if blank.draft is None else stands
        new = next((way for way in ways if not site.worsened_by(way, old)), None)
        if new is not None:
            text = text.edit(blank.start, blank.end, new)
        elif ways:
            broken += 1
        else:
            empty += 1
        found.insert(0, new)
    return Fit(tuple(found), broken, empty, late)


def _site_of(blank: Blank, text: Text, language_id: str) -> Site:
    """A blank and what is around it, as far as that is looked at."""
    first = Point(text.point(max(0, text.offset(blank.start) - AROUND)).line, 0)
    last = text.point(min(len(text), text.offset(blank.end) + AROUND))
    before, after = text.between(first, blank.start), text.between(blank.end, last)
    return Site(before, after, language_of(language_id))


def _indented(answer: str, blank: Blank, site: Site, unit: str | None) -> str:
    """An answer indented as the document is; one that is no rewrite begins where the blank does,
    and does not say the same over and over."""
    answer = harmless(answer, blank.draft or "")
    if "\n" not in answer and blank.draft is not None:
        return answer
    state = site.state().over(blank.before, site.language)
    text = in_units(answer, unit, state, site.language)
    if blank.draft is not None:
        return text
    before = site.before + blank.before
    text = placed(without_loops(text), before, state, site.language)
    line = before.rpartition("\n")[2]
    return within_scope(text, line, state, site.language) if blank.inside else text
