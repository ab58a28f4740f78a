"""One request on its way through the engine: prefix, holes, choice, result.

    prefix    what stands in front of the first hole goes into the KV cache (`_prefill`)
    hole      a canvas is denoised (`_canvases`), or tokens are decided from the left (`_from_left`)
    choice    other answers are written beside it, and the text around the hole chooses (`_choose`)
    result    `_result`; a `Frame` after every pass on the way

Every pass is posted to the engine's batch and looked up at the next turn, so that requests that run
side by side share it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from math import exp, log
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from engine.attention.span import Span
from engine.attention.token_tree import Hole as TreeHole
from engine.attention.token_tree import TokenTree, Written
from engine.choice.beam import Beam, goes_on
from engine.choice.rank import AFTER, Judge, Likelihood, Ranked, rank
from engine.diffusion.denoiser import CanvasDenoiser
from engine.diffusion.lookahead import look_ahead
from engine.diffusion.loop import Pass, Schedule, denoise
from engine.diffusion.process import Uniform
from engine.diffusion.rng import Draws
from engine.errors import BadRequest, Cancelled, DeadlineExceeded
from engine.profile import Weights
from engine.text.layout import Gap, Layout, Sheet
from engine.text.prompt import prompt_ids
from engine.text.typed import Writable
from engine.types import Frame, Infill, InfillRequest, Other, Piece, StopReason

if TYPE_CHECKING:
    from engine.engine import InfillEngine

CHOOSING = 3
"""Choosing among answers takes the time of so many passes, or less: of two mostly."""

SLOTS = (16, 24, 32, 48, 64, 96, 128)
"""How many slots a hole has whose length is open, in a model that decides from the left."""

SEARCHED = 48
"""Up to so many tokens answers are searched for by a beam; only the likeliest goes on behind."""


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
        ids = prompt_ids(self.sheet.prefix_text, request.context, engine.tokenizer, bos, room)
        start = 0 if bos is None else 1
        self.prefix = [*ids[:start], *told, *ids[start:]]
        self.head = start + len(told)
        self.cache, self.length = engine.store.take(self.prefix, engine.multiple)
        self.rivals: Rivals | None = None
        self.ranked: list[Ranked] = []
        self.steps = 0
        self.forward_passes = 0
        self.timings = _Timings()

    def events(self) -> Iterator[Frame | Infill | None]:
        """What `InfillEngine.stream` yields."""
        if any(gap.hole.draft for gap in self.sheet.gaps):
            yield self._frame(0, 0, {}, 0.0)
        fill = self._canvases if self.engine.mask_id is None else self._from_left
        reason = yield from fill()
        if self.sheet.pending:
            reason = "deadline"
            self.sheet.give_up()
        if reason in ("settled", "steps") and any(gap.capped for gap in self.sheet.gaps):
            reason = "max_tokens"
        yield self._result(reason)

    def close(self, whole: bool) -> None:
        """Gives the cache back. whole: whether the request ended well."""
        self.engine.store.give_back(self.cache, whole)

    # ---- the prefix ----

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
        """Brings the cache to `ids`, chunk by chunk, looking up between chunks. What others have
        read there in the meantime is not read again."""
        engine, chunk = self.engine, self.engine.profile.prefill
        multiple = engine.multiple
        self.length = min(self.length, self.cache.shared(ids)) // multiple * multiple
        while not self._late():
            self._look_up()
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
                (hidden,) = yield from self._pass([self.cache.span(piece)], "prefill")
                self.cache.took(piece, hidden)
            finally:
                self.cache.writing = False
            self.length += len(piece)

    def _pass(self, spans: Sequence[Span], phase: str) -> Generator[None, None, list[Tensor]]:
        """Posts spans, lets others join, and gives their hidden rows."""
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
            self.engine.timed(seconds)
        return rows

    def _fitted(self, ids: list[int]) -> list[int]:
        """The end of a prefix that has grown out of the context: three quarters of it."""
        context, head = self.engine.profile.context, self.head
        if len(ids) <= context:
            return ids
        return ids[:head] + ids[max(head, len(ids) - context * 3 // 4 + head) :]

    # ---- canvases ----

    def _canvases(self) -> Generator[Frame | None, None, StopReason]:
        """Denoises canvas after canvas; returns why the last one stopped."""
        reason: StopReason = "unchanged"
        ids, joined = self.prefix, list[int]()
        while self.sheet.pending and not self._late():
            ids = self._fitted([*ids, *joined, *self.sheet.leading()])
            if self.steps and self.rivals is not None and ids != self.prefix:
                self.rivals.tree.keep_prefix()
            yield from self._prefill(ids)
            if self._late():
                break
            reason, layout, last = yield from self._denoise()
            joined = self.sheet.commit(
                layout, last.best.tolist(), last.certainty.tolist(), last=reason == "deadline"
            )
        if not self.sheet.pending and self.rivals is not None:
            yield from self._choose(self.rivals)
        return reason

    def _denoise(self) -> Generator[Frame | None, None, tuple[StopReason, Layout, Pass]]:
        """Denoises the next canvas; returns why it stopped, its layout and its last pass."""
        engine = self.engine
        layout = self.sheet.lay_out(engine.model.config.canvas_length, engine.banned)
        bound = self._bound()
        schedule = self._schedule(layout)
        draws = Draws(self.request.seed, engine.model.device)
        process = Uniform(engine.model.config.vocab_size)
        passes = denoise(bound, process, layout.canvas, schedule, draws, self.steps)
        base = self.steps
        began = time.monotonic()
        for event in passes:
            if event is None:
                try:
                    self._look_up()
                    began = time.monotonic()
                    yield None
                except BaseException:
                    bound.withdraw()
                    raise
                continue
            if self.rivals is not None and bound.tree is self.rivals.tree:
                self.rivals.beam.step()
            seconds = time.monotonic() - began
            engine.timed(seconds)
            self.timings.denoise += seconds
            self.steps, self.forward_passes = event.step, self.forward_passes + 1
            guess = layout.guess(event.best.tolist(), event.certainty.tolist())
            yield self._frame(event.step, base + schedule.planned, guess, event.entropy)
            if event.settled:
                return event.settled, layout, event
            if self._late():
                return "deadline", layout, event
        raise AssertionError("a denoising ends with its last pass")

    def _bound(self) -> CanvasDenoiser:
        """The model behind the prefix as it is now; what is read causally begins there, too."""
        cache, length, batch = self.cache, self.length, self.engine.batch
        reads = length > 0
        if reads and self.steps == 0:
            self.rivals = self._rivals()
            if self.rivals is not None:
                return CanvasDenoiser(cache, batch, self.rivals.tree, length)
        if reads and self.sampling.causal_share > 0:
            return CanvasDenoiser(cache, batch, TokenTree(cache, length), length)
        return CanvasDenoiser(cache, batch, None, length)

    def _rivals(self) -> Rivals | None:
        """The encoder answers, too, if there is one hole with text behind it and no draft, and
        time for it."""
        engine, (gap, *others) = self.engine, self.sheet.gaps
        after = self.sheet.after(AFTER)
        told = gap.hole.draft is not None or gap.hole.fixed_length
        if not self.sampling.rerank or others or told or not after:
            return None
        if not self._time_to_choose():
            return None  # too few tokens for answers that end
        most, behind = min(gap.cap, engine.profile.hole), engine.tokenizer.bytes_of(after)
        tree = TokenTree(self.cache, self.length)
        writable = Writable(engine.tokenizer, gap.typed, engine.writable)
        beam = Beam(tree, writable, goes_on(engine.tokenizer, behind), most)
        return Rivals(tree, beam, after)

    def _time_to_choose(self) -> bool:
        """Keeps time for a choice, if there is enough of it."""
        choosing = CHOOSING * self.engine.pass_seconds
        if self.deadline is not None and self._left() < 2 * choosing:
            return False
        self.reserved = choosing
        return True

    def _choose(self, rivals: Rivals) -> Iterator[None]:
        """Lets the text around the hole choose among all answers, the denoiser's one of them."""
        tree, beam = rivals.tree, rivals.beam
        while not beam.done and not self._late():
            self._look_up()
            if spans := tree.spans():
                tree.took((yield from self._pass(spans, "denoise")))
            beam.step()
        if not beam.found or self._over():
            return
        gap = self.sheet.gaps[0]
        ids = dict.fromkeys((tuple(gap.done), *(one.ids for one in beam.likeliest)))
        answers = [list(one) for one in ids]
        judge = Judge(tree, answers, rivals.after)
        if spans := tree.spans():
            tree.took((yield from self._pass(spans, "denoise")))
        self.ranked = rank(answers, judge.likelihoods())
        if (best := self.ranked[0].ids) != gap.done:
            gap.replace(best)

    def _schedule(self, layout: Layout) -> Schedule:
        strength = max(gap.strength for gap, _ in layout.spans)
        most = max(1, round(self.sampling.max_steps * strength))
        left = None if self.deadline is None else self._left()
        return Schedule(self.sampling, self.engine.planned(most, left), strength)

    # ---- from the left ----

    def _from_left(self) -> Generator[Frame | None, None, StopReason]:
        """Fills hole after hole, each with the text behind it in view."""
        reason: StopReason = "unchanged"
        ids, joined = self.prefix, list[int]()
        while self.sheet.pending and not self._late():
            ids = self._fitted([*ids, *joined, *self.sheet.leading()])
            yield from self._prefill(ids)
            if self._late():
                break
            gap = self.sheet.next_gap
            reason = yield from self._fill_gap(gap)
            joined = self.sheet.finish(gap)
        return reason

    def _fill_gap(self, gap: Gap) -> Generator[Frame | None, None, StopReason]:
        """Searches for answers, and goes on with the likeliest one if it has no end yet; what has a
        draft or a fixed length is decided at once."""
        tree = self._tree(gap)
        if gap.hole.draft is None and not gap.hole.fixed_length:
            if self.engine.profile.weights.judged:
                self._time_to_choose()
            beam, rivals = yield from self._search(gap, tree, min(gap.cap, SEARCHED))
            best, cut = beam.best, beam.cut
            if cut is None or (beam.found and cut.likelihood <= best.likelihood):
                yield from self._chosen(gap, tree, beam.likeliest or [best], rivals)
                return "settled" if beam.found or beam.done else "deadline"
            if gap.cap <= SEARCHED or self._late():
                yield from self._chosen(gap, tree, [cut], None)
                gap.capped = True
                return "settled"
            begun = cut
        else:
            begun = None
        ids, sure, ended = yield from self._look_ahead(gap, tree, begun)
        gap.settle(ids, sure)
        gap.draft = None
        return "settled" if ended else "deadline"

    def _tree(self, gap: Gap) -> TokenTree:
        assert self.engine.mask_id is not None
        slots = next((size for size in SLOTS if size >= gap.cap), gap.cap)
        after = self.sheet.behind(gap, self.engine.profile.suffix)
        hole = TreeHole(slots, after, self.engine.mask_id)
        return TokenTree(self.cache, self.length, hole=hole)

    def _look_ahead(
        self, gap: Gap, tree: TokenTree, begun: Written | None
    ) -> Generator[Frame | None, None, tuple[list[int], list[float], bool]]:
        """Decides a hole that may be long, or has a draft, several tokens a pass. Returns the ids,
        how sure each is, and whether the hole has ended by itself."""
        engine = self.engine
        end = None if gap.hole.fixed_length else self.sheet.slack
        allowed = engine.text_only if end is None else engine.writable
        writable = Writable(engine.tokenizer, gap.typed, allowed)
        draft = None if gap.draft is None else self.sheet.text_ids(gap.draft)
        passes = look_ahead(
            tree, engine.batch, writable, end, gap.cap, draft, gap.strength, begun=begun
        )
        began = time.monotonic()
        for look in passes:
            if look is None:
                try:
                    self._look_up()
                    began = time.monotonic()
                    yield None
                except BaseException:
                    passes.close()
                    raise
                continue
            seconds = time.monotonic() - began
            engine.timed(seconds)
            self.timings.denoise += seconds
            self.steps, self.forward_passes = self.steps + 1, self.forward_passes + 1
            guess = [*look.ids, *look.ahead], [*look.certainty, *look.hope]
            yield self._frame(self.steps, gap.cap, {id(gap): guess}, 0.0)
            if look.settled or self._late():
                gap.capped = look.settled == "full" and end is not None
                return *guess, look.settled is not None
        raise AssertionError("looking ahead ends with its last pass")

    def _search(
        self, gap: Gap, tree: TokenTree, most: int
    ) -> Generator[Frame | None, None, tuple[Beam, Rivals | None]]:
        """Answers of at most `most` tokens by beam search: the decoder's, with both sides in view,
        and in the same passes the encoder's, from the prefix alone."""
        engine, end = self.engine, self.sheet.slack
        writable = Writable(engine.tokenizer, gap.typed, engine.writable)
        beam = Beam(tree, writable, lambda token: token == end, most, blank=True)
        rivals = self._encoders(gap, most) if engine.profile.weights.judged else None
        searches = [(tree, beam), *([(rivals.tree, rivals.beam)] if rivals else [])]
        while not all(one.done for _, one in searches) and not self._late():
            self._look_up()
            spans = [[] if one.done else own.spans() for own, one in searches]
            rows = yield from self._pass([span for own in spans for span in own], "denoise")
            for (own, one), asked in zip(searches, spans, strict=True):
                own.took(rows[: len(asked)])
                rows = rows[len(asked) :]
                one.step()
            self.steps += 1
            best = beam.best
            sure = [exp(best.likelihood / max(1, len(best.ids)))] * len(best.ids)
            yield self._frame(self.steps, most, {id(gap): (list(best.ids), sure)}, 0.0)
        return beam, rivals

    def _encoders(self, gap: Gap, most: int) -> Rivals:
        """The encoder's own search. Where nothing stands behind the hole, an answer ends where its
        line does."""
        engine, after = self.engine, self.sheet.behind(gap, AFTER)
        behind = engine.tokenizer.bytes_of(after) or b"\n"
        tree = TokenTree(self.cache, self.length)
        writable = Writable(engine.tokenizer, gap.typed, engine.text_only)
        beam = Beam(tree, writable, goes_on(engine.tokenizer, behind), most)
        return Rivals(tree, beam, after or engine.tokenizer.encode("\n"))

    def _chosen(
        self, gap: Gap, tree: TokenTree, found: Sequence[Written], rivals: Rivals | None
    ) -> Generator[None, None, None]:
        """Settles a hole on the best answer, of all that decoder and encoder have found if there is
        time to hear both of each."""
        weights, end = self.engine.profile.weights, self.sheet.slack
        likelihoods = [Likelihood(0.0, 0.0, one.likelihood) for one in found]
        answers = [list(one.ids) for one in found]
        if rivals is None or end is None or self._over():
            weights = Weights(written=1.0, before=0.0, after=0.0)
        else:
            others = [one.ids for one in rivals.beam.likeliest]
            answers = [list(ids) for ids in dict.fromkeys([*(one.ids for one in found), *others])]
            judges = Judge(tree, answers, [end]), Judge(rivals.tree, answers, rivals.after)
            spans = tree.spans(), rivals.tree.spans()
            rows = yield from self._pass([*spans[0], *spans[1]], "denoise")
            tree.took(rows[: len(spans[0])])
            rivals.tree.took(rows[len(spans[0]) :])
            written, read = (judge.likelihoods() for judge in judges)
            likelihoods = [
                replace(two, written=one.ended) for one, two in zip(written, read, strict=True)
            ]
        ranked = rank(answers, likelihoods, weights)
        if len(self.sheet.gaps) == 1:
            self.ranked = ranked
        best = ranked[0]
        gap.done, gap.certainty, gap.ended = [], [], best.confidence
        gap.settle(best.ids, [best.confidence] * len(best.ids))

    # ---- time ----

    def _late(self) -> bool:
        """Whether there is something to show and no time for a further pass."""
        return (
            self.steps > 0 and self.deadline is not None and self._left() < self.engine.pass_seconds
        )

    def _over(self) -> bool:
        return self.deadline is not None and time.monotonic() > self.deadline

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

    # ---- what is told ----

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
