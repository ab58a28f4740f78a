"""One hole of a file, or one range that is rewritten, for `diffgemma-lsp fill`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from diffgemma_lsp.actions.blank import Blank
from diffgemma_lsp.actions.fit import fitted
from diffgemma_lsp.commands.source import newline_of
from diffgemma_lsp.context.window import as_learned
from diffgemma_lsp.polish.confidence import measured
from diffgemma_lsp.polish.polish import Around, Polished, offers
from diffgemma_lsp.session.engine import Answer
from diffgemma_lsp.text.documents import Document
from diffgemma_lsp.text.snapshot import DocumentSnapshot
from diffgemma_lsp.text.text import Text, with_line_ends
from engine.types import Fixed, Hole, Infill, Template

Span = tuple[int, int]
"""Offsets of characters into a text."""


class Filling(NamedTuple):
    """What can be put into a file, and how sure of it the model is.

    texts: one for each place; None leaves what stands there. reason: why there is nothing.
    """

    texts: tuple[str | None, ...]
    reason: str | None
    confidence: float | None


class Job(Protocol):
    """Places of a file to be filled."""

    @property
    def places(self) -> tuple[Span, ...]:
        """Where they are, in their order."""
        ...

    @property
    def template(self) -> Template:
        """What the engine is asked to fill."""
        ...

    def fillings(self, infill: Infill) -> Iterator[Filling]:
        """What an editor would be offered of an answer, the best first."""
        ...


@dataclass(frozen=True)
class OneHole:
    """The file from `start` to `end`: a hole if that is nothing, else a draft to be rewritten.

    strength: how much of the draft may change, from 0 to 1. max_tokens: the most of the middle.
    """

    text: str
    start: int
    end: int
    language: str
    strength: float
    max_tokens: int | None = None

    @property
    def places(self) -> tuple[Span, ...]:
        """The only one."""
        return ((self.start, self.end),)

    @property
    def template(self) -> Template:
        """The whole file, with its hole."""
        draft = self.text[self.start : self.end]
        hole = (
            Hole(draft, self.strength, self.max_tokens)
            if draft
            else Hole(None, 1.0, self.max_tokens)
        )
        whole = (Fixed(self.text[: self.start]), hole, Fixed(self.text[self.end :]))
        return as_learned(whole, self.language)

    def fillings(self, infill: Infill) -> Iterator[Filling]:
        """A rewrite that breaks no syntax; or what fits of the answer and of the other ones."""
        if self.start < self.end:
            text, reason = self._rewritten(infill.text)
            yield Filling((None if reason else text,), reason, measured(infill.confidence, text))
            return
        before, after = self.text[: self.start], self.text[self.end :]
        newline = newline_of(before + after)
        around = Around(with_line_ends(before), with_line_ends(after), self.language, newline)
        answers = Answer.of(infill).for_the_hole(automatic=False)
        for (text, reason), confidence in offers(answers, around):
            yield Filling((None if reason else text,), reason, measured(confidence, text))

    def _rewritten(self, text: str) -> Polished:
        """White space at the end stays as it was."""
        draft = self.text[self.start : self.end]
        document = Document("", self.language, 0, Text.of(self.text))
        start, end = (document.text.point(at) for at in (self.start, self.end))
        new = text.rstrip() + draft[len(draft.rstrip()) :]
        blank = Blank(start, end, draft=draft, shape=str)
        snapshot = DocumentSnapshot.of(document, start, end)
        (fitting,) = fitted((blank,), (with_line_ends(new),), snapshot).texts
        if fitting is None:
            return Polished("", "the rewrite would break the syntax: try another --seed")
        as_it_was = with_line_ends(fitting) == with_line_ends(new)  # whatever its lines end with
        return Polished(new if as_it_was else fitting, None)
