"""One request on its way through the engine: prefix, rival answers, canvases, result."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import exp, log
from typing import TYPE_CHECKING, NamedTuple

from engine.attention.bound_model import BoundModel
from engine.attention.token_tree import TokenTree
from engine.choice.beam import Beam
from engine.choice.rank import AFTER, Ranked, likelihoods, rank
from engine.diffusion.loop import Pass, Schedule, denoise
from engine.diffusion.samplers import Draws
from engine.errors import BadRequest, Cancelled, DeadlineExceeded
from engine.text.layout import Layout, Sheet
from engine.text.prompt import prompt_ids
from engine.types import Frame, Infill, InfillRequest, Other, Piece, StopReason

if TYPE_CHECKING:
    from engine.engine import InfillEngine

CHOOSING = 3
"""Choosing among answers takes the time of so many passes, or less: of two mostly."""


@dataclass(slots=True)
class _Timings:
    prefill: float = 0.0
    denoise: float = 0.0


class Rivals(NamedTuple):
    """Answers of the encoder to the one hole, in the making. after: the first ids behind it."""

    tree: TokenTree
    beam: Beam
    after: list[int]


class Run:
    """A request, from its prefix to its result. Raises BadRequest at once if it asks for what the
    model can't do."""

    def __init__(
        self, engine: InfillEngine, request: InfillRequest, cancelled: Callable[[], bool]
    ) -> None:
        self.began = time.monotonic()
        self.engine, self.request, self.cancelled = engine, request, cancelled
        self.reserved = 0.0  # seconds before the deadline that are kept for choosing
        self.deadline = None if request.budget_s is None else self.began + request.budget_s
        self.sampling = engine.profile.sampling.override(request.params)
        self.sheet = Sheet(request.template, engine.tokenizer, engine.profile)
        told = self._told()
        bos = engine.model.config.bos_id
        room = replace(engine.profile, context=engine.profile.context - len(told))
        ids = prompt_ids(self.sheet.prefix_text, request.context, engine.tokenizer, bos, room)
        start = 0 if bos is None else 1
        self.prefix = [*ids[:start], *told, *ids[start:]]
        self.head = start + len(told)
        self.cache = engine.take_cache(self.prefix)
        self.rivals: Rivals | None = None
        self.ranked: list[Ranked] = []
        self.steps = 0
        self.forward_passes = 0
        self.timings = _Timings()

    def events(self) -> Iterator[Frame | Infill | None]:
        """What `InfillEngine.stream` yields."""
        reason: StopReason = "unchanged"
        if any(gap.hole.draft for gap in self.sheet.gaps):
            yield self._frame(0, 0, {}, 0.0)
        ids = self.prefix
        joined: list[int] = []
        while self.sheet.pending and not self._late():
            ids = self._fitted([*ids, *joined, *self.sheet.leading()])
            yield from self._prefill(ids)
            if self._late():
                break
            reason, layout, last = yield from self._denoise()
            joined = self.sheet.commit(
                layout, last.best.tolist(), last.certainty.tolist(), last=reason == "deadline"
            )
        if self.sheet.pending:
            reason = "deadline"
            self.sheet.give_up()
        elif self.rivals is not None:
            yield from self._choose(self.rivals)
        if reason in ("settled", "steps") and any(gap.capped for gap in self.sheet.gaps):
            reason = "max_tokens"
        yield self._result(reason)

    def _told(self) -> list[int]:
        """The ids of the request's instruction; none if it has none. Raises BadRequest."""
        engine, instruction = self.engine, self.request.instruction
        if instruction is None:
            return []
        if engine.chat is None or "instruct" not in engine.info.can:
            raise BadRequest(f"{engine.profile.name} does not follow instructions: leave it out")
        drafts = [gap.hole.draft for gap in self.sheet.gaps if gap.hole.draft]
        return engine.chat.ids(instruction, drafts, engine.profile.context // 4)

    def _prefill(self, ids: list[int]) -> Iterator[None]:
        """Brings the cache to `ids`, chunk by chunk, looking up between chunks."""
        chunk = self.engine.profile.prefill
        self.cache.keep(ids, chunk)
        while len(self.cache.ids) < len(ids) and not self._late():
            self._look_up()
            began = time.monotonic()
            at = len(self.cache.ids)
            self.cache.extend(ids[at : at + chunk])
            self.forward_passes += 1
            self.timings.prefill += time.monotonic() - began
            yield None

    def _denoise(self) -> Iterator[Frame | None]:
        """Denoises the next canvas; returns why it stopped, its layout and its last pass."""
        engine = self.engine
        layout = self.sheet.lay_out(engine.model.config.canvas_length, engine.banned)
        bound = self._bound()
        schedule = self._schedule(layout)
        draws = Draws(self.request.seed, engine.model.device)
        passes = denoise(bound, layout.canvas, schedule, draws, first_step=self.steps)
        base = self.steps
        last: Pass | None = None
        while True:
            self._look_up()
            began = time.monotonic()
            last = next(passes)
            seconds = time.monotonic() - began
            engine.timed(seconds)
            self.timings.denoise += seconds
            self.steps, self.forward_passes = last.step, self.forward_passes + 1
            guess = layout.guess(last.best.tolist(), last.certainty.tolist())
            yield self._frame(last.step, base + schedule.planned, guess, last.entropy)
            if last.settled:
                return last.settled, layout, last
            if self._late():
                return "deadline", layout, last

    def _bound(self) -> BoundModel:
        """The model behind the prefix as it is now; what is read causally begins there, too."""
        reads = self.cache.last is not None
        if reads and self.steps == 0:
            self.rivals = self._rivals()
            if self.rivals is not None:
                return BoundModel(self.cache, self.rivals.tree, self.rivals.beam)
        if reads and self.sampling.causal_share > 0:
            return BoundModel(self.cache, TokenTree(self.cache))
        return BoundModel(self.cache)

    def _rivals(self) -> Rivals | None:
        """The encoder answers, too, if there is one hole with text behind it and no draft, and
        time for it."""
        engine, (gap, *others) = self.engine, self.sheet.gaps
        after = self.sheet.after(AFTER)
        told = gap.hole.draft is not None or gap.hole.fixed_length
        if not self.sampling.rerank or others or told or not after:
            return None
        choosing = CHOOSING * engine.pass_seconds
        if self.deadline is not None and self._left() < 2 * choosing:
            return None  # too few tokens for answers that end
        self.reserved = choosing
        allowed = engine.banned == 0
        if self.sheet.slack is not None:
            allowed[self.sheet.slack] = False
        most, behind = min(gap.cap, engine.profile.hole), engine.tokenizer.bytes_of(after)
        tree = TokenTree(self.cache)
        beam = Beam(engine.tokenizer, tree, gap.typed, behind, allowed, most)
        return Rivals(tree, beam, after)

    def _choose(self, rivals: Rivals) -> Iterator[None]:
        """Lets the text around the hole choose among all answers, the denoiser's one of them."""
        tree, beam = rivals.tree, rivals.beam
        while not beam.done and not self._late():
            self._look_up()
            tree.encode()
            beam.step()
            self.forward_passes += 1
            yield None
        if not beam.found or (self.deadline is not None and time.monotonic() > self.deadline):
            return
        gap = self.sheet.gaps[0]
        ids = dict.fromkeys((tuple(gap.done), *(one.ids for one in beam.likeliest)))
        answers = [list(one) for one in ids]
        self.ranked = rank(answers, likelihoods(tree, answers, rivals.after))
        self.forward_passes += 1
        if (best := self.ranked[0].ids) != gap.done:
            gap.replace(best)

    def _schedule(self, layout: Layout) -> Schedule:
        strength = max(gap.strength for gap, _ in layout.spans)
        most = max(1, round(self.sampling.max_steps * strength))
        left = None if self.deadline is None else self._left()
        return Schedule(self.sampling, self.engine.planned(most, left), strength)

    def _fitted(self, ids: list[int]) -> list[int]:
        """The end of a prefix that has grown out of the context: three quarters of it."""
        context, head = self.engine.profile.context, self.head
        if len(ids) <= context:
            return ids
        return ids[:head] + ids[max(head, len(ids) - context * 3 // 4 + head) :]

    def _late(self) -> bool:
        """Whether there is something to show and no time for a further pass."""
        return (
            self.steps > 0 and self.deadline is not None and self._left() < self.engine.pass_seconds
        )

    def _look_up(self) -> None:
        if self.cancelled():
            raise Cancelled("the request was withdrawn")
        if self.steps == 0 and self.deadline is not None and self._left() <= 0:
            raise DeadlineExceeded(
                "the time was up before the first pass; allow more time or wait for the model"
            )

    def _left(self) -> float:
        assert self.deadline is not None
        return self.deadline - self.reserved - time.monotonic()

    def _frame(
        self,
        step: int,
        planned: int,
        guess: dict[int, tuple[list[int], list[float]]],
        entropy: float,
    ) -> Frame:
        holes: list[tuple[Piece, ...]] = []
        certainties: list[float] = []
        for gap in self.sheet.gaps:
            if id(gap) in guess:
                ids, certainty = guess[id(gap)]
                ids = ids + gap.rest(len(ids))
            else:  # finished, or not reached yet
                ids, certainty = [] if gap.done else gap.draft or [], []
            holes.append(self.sheet.pieces(gap, ids, certainty))
            certainties += self.sheet.certainties(gap, ids, certainty)
        confidence = self._confidence(certainties) if certainties else 0.0
        return Frame(step, planned, tuple(holes), entropy, confidence)

    def _result(self, reason: StopReason) -> Infill:
        certainties = [c for gap in self.sheet.gaps for c in gap.certainties]
        confidence = self._confidence(certainties) if certainties else 1.0
        others: list[Other] = []
        if self.ranked:
            shares: dict[str, float] = {}
            for one in self.ranked:  # some may be the same text in other tokens
                text = self.sheet.text_of(self.sheet.gaps[0], one.ids)
                shares[text] = shares.get(text, 0.0) + one.confidence
            best, *others = [Other(text, self._mapped(share)) for text, share in shares.items()]
            others.sort(key=lambda one: one.confidence, reverse=True)
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
        )

    def _confidence(self, certainties: list[float]) -> float:
        """The geometric mean of certainties, and what the profile makes of it."""
        logs = [log(max(certainty, 1e-9)) for certainty in certainties]
        mean = exp(sum(logs) / len(logs))
        # A profile that reranks has its calibration for what was chosen.
        return mean if self.engine.profile.sampling.rerank else self._mapped(mean)

    def _mapped(self, confidence: float) -> float:
        calibration = self.engine.profile.calibration
        return confidence if calibration is None else calibration(confidence)
