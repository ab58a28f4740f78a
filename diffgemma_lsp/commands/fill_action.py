"""Several holes of a file, and what the server's actions do, for `diffgemma-lsp fill`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lsprotocol import types

from diffgemma_lsp.actions.blank import Blank
from diffgemma_lsp.actions.fit import fitted
from diffgemma_lsp.actions.kinds import KINDS
from diffgemma_lsp.actions.order import Order
from diffgemma_lsp.actions.plan import NoPlan, Plan, plan
from diffgemma_lsp.commands import UsageError
from diffgemma_lsp.commands.fill_hole import Filling, Span
from diffgemma_lsp.context.window import plain
from diffgemma_lsp.polish.polish import Around, polish
from diffgemma_lsp.settings.schema import Settings
from diffgemma_lsp.text.documents import Document
from diffgemma_lsp.text.snapshot import DocumentSnapshot
from diffgemma_lsp.text.text import Text
from engine.types import Infill, Other, Template

ACTIONS = ("docstring", "hints", "body", "holes")
"""What can be done to a file beside filling holes and rewriting: the server's actions of these
names."""

_NOWHERE = types.Range(types.Position(0, 0), types.Position(0, 0))


@dataclass(frozen=True)
class Planned:
    """A plan for a file, as the server would make it."""

    plan: Plan
    snapshot: DocumentSnapshot

    @property
    def places(self) -> tuple[Span, ...]:
        """Those of the blanks."""
        offset = self.snapshot.text.offset
        return tuple((offset(blank.start), offset(blank.end)) for blank in self.plan.blanks)

    @property
    def template(self) -> Template:
        """As much of the file as an editor's request would have, with all holes in it."""
        return self.plan.template(self.snapshot)

    def fillings(self, infill: Infill) -> Iterator[Filling]:
        """What fits of the answer; where there is but one place, of the others, too."""
        answers = [(infill.holes, infill.confidence)]
        answers += [((other.text,), other.confidence) for other in self._others(infill)]
        for texts, confidence in answers:
            fit = fitted(self.plan.blanks, texts, self.snapshot)
            reason = None if any(fit.texts) else fit.nothing
            yield Filling(fit.texts, reason, self.plan.confidence(confidence, texts))

    def _others(self, infill: Infill) -> Sequence[Other]:
        return infill.others if len(self.plan.blanks) == 1 else ()


def holes_at(text: str, places: Sequence[int], file: str, language: str) -> Planned:
    """Holes at these offsets, to be filled together."""
    snapshot = _snapshot(text, (places[0], places[0]), file, language)
    points = [snapshot.text.point(place) for place in places]
    whole = plain(text)
    blanks: list[Blank] = []
    for point, place in zip(points, places, strict=True):
        before = plain(text[:place])
        around = Around(before, whole[len(before) :], language)
        blanks.append(Blank(point, point, shape=partial(_shown, around)))
    return Planned(Plan(tuple(blanks)), snapshot)


def _shown(around: Around, filling: str) -> str | None:
    return polish(filling, around).text or None


def action_on(text: str, span: Span, action: str, file: str, language: str) -> Planned:
    """One of ACTIONS on the file, from one offset to another. Raises UsageError."""
    snapshot = _snapshot(text, span, file, language)
    order = Order(KINDS[action], snapshot.uri, None, _NOWHERE)
    try:
        found = plan(order, snapshot, Settings())
    except NoPlan as reason:
        raise UsageError(str(reason)) from reason
    return Planned(found, snapshot)


def _snapshot(text: str, span: Span, file: str, language: str) -> DocumentSnapshot:
    uri = "untitled:-" if file == "-" else Path(file).absolute().as_uri()
    document = Document(uri, language, 0, Text.of(text))
    start, end = (document.text.point(at) for at in span)
    return DocumentSnapshot.of(document, start, end)
