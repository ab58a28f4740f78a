"""One request on its way through the engine: prefix, holes, result.

    prefix   what stands in front of the first hole goes into the KV cache (`prefill`)
    holes    canvases are denoised (engine.canvas_run), or tokens are decided from the left
             (engine.left_run); other answers are written beside them, and the best is chosen
    result   `_result`; a `Frame` after every pass on the way

Every pass is posted to the engine's batch and looked up at the next turn, so that requests that run
side by side share it.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from math import exp, log
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from engine.attention.span import Span
from engine.choice.rank import Ranked
from engine.errors import BadRequest, Cancelled, DeadlineExceeded
from engine.text.layout import Sheet
from engine.text.prompt import prompt_parts
from engine.types import Frame, Infill, InfillRequest, Other, Piece, StopReason

if TYPE_CHECKING:
    from engine.engine import InfillEngine

CHOOSING = 3
"""Choosing among answers takes the time of so many passes, or less: of two mostly."""


BEHIND = 512
"""Tokens of the text behind a hole that a model which is told to fill it gets to read before."""

Phase = Literal["prefill", "denoise", "judge"]


@dataclass(slots=True)
class _Timings:
    prefill: float = 0.0
    denoise: float = 0.0


class Run(ABC):
    """A request, from its prefix to its result. Raises BadRequest at once if it asks for what the
    model can't do.

    deadline: on the monotonic clock; None leaves all the time that it takes.
    """

    def __init__(
        self,
        engine: InfillEngine,
        request: InfillRequest,
        cancelled: Callable[[], bool],
        deadline: float | None,
    ) -> None:
        self.began = time.monotonic()
        self.engine, self.request, self.cancelled = engine, request, cancelled
        self.reserved = 0.0  # seconds before the deadline that are kept for choosing
        self.deadline = deadline
        self.sampling = engine.profile.sampling.override(request.params)
        self.sheet = Sheet(request.template, engine.tokenizer, engine.profile)
        told = self._told()
        bos = engine.bos_id
        room = replace(engine.profile, context=engine.profile.context - len(told))
        title = request.title if room.titled else ""
        front, text = prompt_parts(
            title + self.sheet.prefix_text, request.context, engine.tokenizer, bos, room
        )
        self.prefix = [*front, *told, *text]
        self.head = len(front) + len(told) if told else min(1, len(front))
        self.cache, self.length = engine.store.take(self.prefix, engine.multiple)
        self.ranked: list[Ranked] = []
        self.scores: tuple[float, ...] = ()
        self.steps = 0
        self.forward_passes = 0
        self.timings = _Timings()

    def events(self) -> Iterator[Frame | Infill | None]:
        """What `InfillEngine.stream` yields."""
        if any(gap.hole.draft for gap in self.sheet.gaps):
            yield self.frame(0, 0, {}, 0.0)
        reason = yield from self.fill()
        if self.sheet.pending:
            reason = "deadline"
            self.sheet.give_up()
        if reason in ("settled", "steps") and any(gap.capped for gap in self.sheet.gaps):
            reason = "max_tokens"
        yield self._result(reason)

    @abstractmethod
    def fill(self) -> Generator[Frame | None, None, StopReason]:
        """Fills all holes of the sheet; returns why the last one ended."""

    def close(self, whole: bool) -> None:
        """Gives the cache back. whole: whether the request ended well."""
        self.engine.store.give_back(self.cache, whole)

    # ---- the prefix ----

    def _told(self) -> list[int]:
        """The ids of what a model that follows instructions is told: the request's, or else to
        fill; none for other models. Raises BadRequest."""
        engine, instruction = self.engine, self.request.instruction
        if engine.chat is None or "instruct" not in engine.info.can:
            if instruction is None:
                return []
            raise BadRequest(f"{engine.profile.name} does not follow instructions: leave it out")
        budget = engine.profile.context // 4
        if instruction is None:
            behind = engine.tokenizer.text_of(self.sheet.after(BEHIND))
            return engine.chat.fill_ids(behind, budget, self.request.title)
        drafts = [gap.hole.draft for gap in self.sheet.gaps if gap.hole.draft]
        return engine.chat.ids(instruction, drafts, budget)

    def prefill(self, ids: list[int]) -> Iterator[None]:
        """Brings the cache to `ids`, chunk by chunk, looking up between chunks. What others have
        read there in the meantime is not read again."""
        engine, chunk = self.engine, self.engine.profile.prefill
        multiple = engine.multiple
        self.length = min(self.length, self.cache.shared(ids)) // multiple * multiple
        while not self.late():
            self.look_up()
            if self.cache.writing:
                yield None
                continue
            self.length = max(self.length, self.cache.shared(ids) // multiple * multiple)
            if self.length == len(ids):
                return
            if len(self.cache.ids) > self.length:
                # What stands there goes on otherwise, or is to be read in the same pieces again.
                self.cache = engine.store.part(self.cache, self.length)
            piece = ids[self.length : self.length + chunk]
            try:
                (hidden,) = yield from self.run_pass([self.cache.span(piece)], "prefill")
                self.cache.took(piece, hidden)
            finally:
                self.cache.writing = False
            self.length += len(piece)

    def run_pass(self, spans: Sequence[Span], phase: Phase) -> Generator[None, None, list[Tensor]]:
        """Posts spans, lets others join, and gives their hidden rows. How long a pass that denoises
        takes is learned for planning; one that reads has as many rows as there is text."""
        began = time.monotonic()
        ticket = self.engine.batch.post(spans)
        try:
            yield None
            rows = ticket()
        finally:
            ticket.withdraw()
        self.forward_passes += 1
        seconds = time.monotonic() - began
        if phase == "prefill":
            self.timings.prefill += seconds
        else:
            self.timings.denoise += seconds
        if phase == "denoise":
            self.engine.timed(seconds)
        return rows

    def fitted(self, ids: list[int]) -> list[int]:
        """The end of a prefix that has grown out of the context: three quarters of it."""
        context, head = self.engine.profile.context, self.head
        if len(ids) <= context:
            return ids
        return ids[:head] + ids[max(head, len(ids) - context * 3 // 4 + head) :]

    # ---- time ----

    def late(self) -> bool:
        """Whether there is something to show and no time for a further pass."""
        return (
            self.steps > 0 and self.deadline is not None and self.left() < self.engine.pass_seconds
        )

    def over(self) -> bool:
        return self.deadline is not None and time.monotonic() > self.deadline

    def look_up(self) -> None:
        if self.cancelled():
            raise Cancelled("the request was withdrawn")
        if self.steps == 0 and self.deadline is not None and self.left() <= 0:
            raise DeadlineExceeded(
                "the time was up before the first pass; allow more time or wait for the model"
            )

    def left(self) -> float:
        assert self.deadline is not None
        return self.deadline - self.reserved - time.monotonic()

    def time_to_choose(self) -> bool:
        """Keeps time for a choice, if there is enough of it."""
        choosing = CHOOSING * self.engine.pass_seconds
        if self.deadline is not None and self.left() < 2 * choosing:
            return False
        self.reserved = choosing
        return True

    # ---- what is told ----

    def frame(
        self,
        step: int,
        planned: int,
        guess: dict[int, tuple[list[int], list[float]]],
        entropy: float,
    ) -> Frame:
        holes: list[tuple[Piece, ...]] = []
        for gap in self.sheet.gaps:
            if id(gap) in guess:
                ids, certainty = guess[id(gap)]
                ids = ids + gap.rest(len(ids))
            else:  # finished, or not reached yet
                ids, certainty = [] if gap.done else gap.draft or [], []
            holes.append(self.sheet.pieces(gap, ids, certainty))
        return Frame(step, planned, tuple(holes), entropy)

    def _result(self, reason: StopReason) -> Infill:
        confidence = self._unchosen()
        others: list[Other] = []
        if self.ranked:
            shares: dict[str, float] = {}
            for one in self.ranked:  # some may be the same text in other tokens
                text = self.sheet.text_of(self.sheet.gaps[0], one.ids)
                shares[text] = shares.get(text, 0.0) + one.confidence
            best, *others = [Other(text, self._mapped(share)) for text, share in shares.items()]
            others.sort(key=lambda one: shares[one.text], reverse=True)
            confidence = best.confidence
        total = time.monotonic() - self.began
        return Infill(
            text=self.sheet.assembled(),
            holes=self.sheet.texts(),
            steps=self.steps,
            forward_passes=self.forward_passes,
            stop_reason=reason,
            confidence=confidence,
            timings={
                "prefill": self.timings.prefill * 1000,
                "denoise": self.timings.denoise * 1000,
                "total": total * 1000,
            },
            others=tuple(others),
            scores=self.scores,
        )

    def _unchosen(self) -> float | None:
        """The confidence of an answer that was not chosen among several: what the calibration
        makes of the geometric mean of its certainties, where it was measured on such."""
        gap, *others = self.sheet.gaps
        told = gap.hole.draft is not None or gap.hole.fixed_length
        if others or told or self.engine.profile.chooses or not gap.certainties:
            return None
        logs = [log(max(certainty, 1e-9)) for certainty in gap.certainties]
        return self._mapped(exp(sum(logs) / len(logs)))

    def _mapped(self, share: float) -> float | None:
        """What a share is worth, by the profile's calibration."""
        calibration = self.engine.profile.calibration
        return None if calibration is None else calibration(share)
