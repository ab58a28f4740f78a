"""What can be shown of the answers of a run."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from diffgemma_lsp.polish.polish import Around, polish
from diffgemma_lsp.session.requests import Nothing, must_be_sure
from diffgemma_lsp.session.suggestion_cache import Suggestion
from diffgemma_lsp.settings.schema import Settings
from engine.types import Other


class Fitting:
    """What can be shown of several answers. They are looked at one by one and only as far as is
    needed, since each takes a few milliseconds, and some many.

    reasons: why those that were looked at in vain can't be shown.
    """

    def __init__(self, around: Around, settings: Settings, invoked: bool) -> None:
        self._around, self._settings, self._invoked = around, settings, invoked
        self._kept: dict[str, Suggestion] = {}
        self._left: deque[tuple[Other, bool]] = deque()
        self.reasons: list[Nothing] = []

    @property
    def found(self) -> tuple[Suggestion, ...]:
        """Those that can be shown, so far."""
        return tuple(self._kept.values())

    def add(self, answers: Iterable[tuple[Other, bool]]) -> None:
        """Adds answers, each with whether it is whole, to those that are left to look at."""
        self._left.extend(answers)

    def lacks(self, wanted: int) -> bool:
        """Whether fewer than `wanted` are found, and some are left."""
        return len(self._kept) < wanted and bool(self._left)

    def look(self) -> None:
        """Looks at the next answer. What is less likely than nothing does not come by itself."""
        answer, whole = self._left.popleft()
        if not self._invoked and whole and not answer.text:
            self._left.clear()
        try:
            one = self._polished(answer, whole)
            self._kept.setdefault(one.text, one)
        except Nothing as reason:
            self.reasons.append(reason)

    def _polished(self, answer: Other, whole: bool) -> Suggestion:
        """What is shown of an answer. Raises Nothing if it is not worth it."""
        settings, invoked = self._settings, self._invoked
        must_be_sure(answer.confidence, settings.min_confidence, invoked)
        max_lines = None if invoked else settings.max_lines
        text, reason = polish(
            answer.text, self._around, automatic=not invoked, max_lines=max_lines, whole=whole
        )
        if reason is not None:
            raise Nothing(reason)
        return Suggestion(text, answer.confidence)
