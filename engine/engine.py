"""InfillEngine: the public face. Requests in, frames and results out.

    engine = InfillEngine.load()
    print(engine.fill(InfillRequest(fill_in_the_middle("x = ", "\\n"))).text)

One engine serves many requests that take turns: `stream` is a generator, and each `next` does one
unit of work. It is not thread-safe; the service gives it a thread of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import exp, log

import torch
from torch import Tensor

from engine.canvas import Layout, Sheet
from engine.denoise import Pass, Schedule, denoise
from engine.errors import BadRequest, Cancelled, DeadlineExceeded, ModelError
from engine.loader import Progress, load_model, pick_device, pick_dtype
from engine.model import DiffusionGemma
from engine.models.chat import Chat
from engine.models.locate import locate
from engine.models.profile import Profile, load_profile
from engine.prefix_cache import PrefixCache, Reading
from engine.prompt import prompt_ids
from engine.rerank import AFTER, rerank
from engine.sampler import Draws
from engine.tokenizer import TextTokenizer
from engine.types import (
    EngineInfo,
    Frame,
    Infill,
    InfillRequest,
    Piece,
    SamplingParams,
    StopReason,
    fill_in_the_middle,
)

CACHES = 4
"""Prefix caches that are kept: so many documents can be worked on without starting over."""

SMALL = 512
"""Up to this hidden size one CPU thread does the work: an operation takes microseconds, and on a
busy machine threads that wait for each other at every one of them are ten times slower."""


def never() -> bool:
    """The `cancelled` of a request that nobody withdraws."""
    return False


class BoundModel:
    """A model behind one prefix: what the denoising loop calls (see engine.denoise.Denoiser)."""

    def __init__(self, model: DiffusionGemma, cache: PrefixCache) -> None:
        self.model, self.cache = model, cache
        self.vocab_size = model.config.vocab_size
        self._reading: Reading | None = None

    def logits(
        self, ids: Tensor, soft: Tensor | None, free: Tensor, known: int | None
    ) -> tuple[Tensor, Tensor | None]:
        """One pass; the head runs on the rows that are asked for only."""
        if known is None or self.cache.last is None:
            return self.model.logits(self.cache.canvas(ids, soft)[free]), None
        if self._reading is None:
            self._reading = Reading(self.cache, self.model.config.canvas_length)
        hidden, expected = self._reading.with_canvas(ids, soft, ids[:known].tolist())
        logits = self.model.logits(torch.cat((hidden[free], expected)))
        return logits[: -len(expected)], logits[-len(expected) :]

    def condition(self, ids: Tensor, probs: Tensor, open_slots: Tensor) -> Tensor:
        """A clamp conditions as itself: the embedding of its token."""
        soft = self.model.embed(ids)
        soft[open_slots] = self.model.soft_embed(probs)
        return soft


class InfillEngine:
    """A model in memory, ready to fill holes."""

    def __init__(
        self,
        model: DiffusionGemma,
        tokenizer: TextTokenizer,
        profile: Profile,
        chat: Chat | None = None,
    ) -> None:
        self.model, self.tokenizer, self.profile, self.chat = model, tokenizer, profile, chat
        self.pass_seconds = 0.0
        self._idle: list[PrefixCache] = []
        if len(tokenizer) > model.config.vocab_size:
            raise ModelError(
                f"the tokenizer of {profile.name} has {len(tokenizer)} tokens, its model "
                f"{model.config.vocab_size}; download the model again"
            )
        self.banned = self._ban()
        self.info = EngineInfo(
            model=profile.name,
            device=str(model.device),
            dtype=str(model.dtype).removeprefix("torch."),
            parameters=sum(p.numel() for p in model.parameters()),
            canvas_length=model.config.canvas_length,
            context_tokens=profile.context,
            can=tuple(one for one in profile.can if one != "instruct" or chat is not None),
            neighbours=profile.neighbours,
            languages=profile.languages,
        )

    @classmethod
    def load(
        cls,
        model: str | None = None,
        device: str | None = None,
        progress: Progress | None = None,
        dtype: torch.dtype | None = None,
    ) -> InfillEngine:
        """Loads nano (None), a folder, or a model of the hub by its name.

        device: "cuda", "mps", "cpu"; None takes the best. dtype: None takes the device's fastest;
        float32 is reference mode. progress is told what is done and how much of it (0 to 1).
        Raises ModelError, or OutOfMemory if it does not fit.
        """
        folder = locate(model)
        where = pick_device(device)
        loaded = load_model(folder, where, dtype or pick_dtype(where), progress)
        if where.type == "cpu" and loaded.config.hidden_size <= SMALL:
            torch.set_num_threads(1)
        tokenizer = TextTokenizer.load(folder)
        profile = load_profile(folder, loaded.config)
        chat = Chat.load(folder, tokenizer) if "instruct" in profile.can else None
        engine = cls(loaded, tokenizer, profile, chat)
        engine.warm_up()
        return engine

    def warm_up(self) -> None:
        """Runs two short fills, so that the first request can plan its passes: the first fill pays
        for what is set up once, the second tells how long a pass takes."""
        template = fill_in_the_middle("x = ", "\n", max_tokens=self.profile.hole)
        for _ in range(2):
            self.pass_seconds = 0.0
            self.fill(InfillRequest(template, SamplingParams(max_steps=2)))
        self._idle.clear()

    def fill(self, request: InfillRequest, cancelled: Callable[[], bool] = never) -> Infill:
        """Runs a request to its end. Raises as `stream` does."""
        for event in self.stream(request, cancelled):
            if isinstance(event, Infill):
                return event
        raise AssertionError("a stream ends with its result")

    @torch.inference_mode()
    def stream(
        self, request: InfillRequest, cancelled: Callable[[], bool] = never
    ) -> Iterator[Frame | Infill | None]:
        """Yields a Frame after every pass and the Infill at the end; None after other work.

        Raises Cancelled within one pass of `cancelled()` turning true, DeadlineExceeded if the
        budget runs out before anything can be shown, and other EngineErrors.
        """
        run = _Run(self, request, cancelled)
        try:
            yield from run.events()
        finally:
            self._idle = [*self._idle, run.cache][-CACHES:]

    def take_cache(self, ids: list[int]) -> PrefixCache:
        """The idle prefix cache that knows the most of `ids`, or a new one."""
        if not self._idle:
            return PrefixCache(self.model)
        best = max(self._idle, key=lambda cache: cache.shared(ids))
        if best.shared(ids) < len(ids) // 2 and len(self._idle) < CACHES:
            return PrefixCache(self.model)
        self._idle.remove(best)
        return best

    def planned(self, most: int, seconds_left: float | None) -> int:
        """How many passes, of at most `most`, fit into the time that is left."""
        if seconds_left is None or self.pass_seconds == 0.0:
            return most
        return max(1, min(most, int(seconds_left / self.pass_seconds)))

    def timed(self, seconds: float) -> None:
        """Learns how long a pass takes: slower at once, faster by and by."""
        share = 0.5 if seconds > self.pass_seconds else 0.1
        self.pass_seconds += (seconds - self.pass_seconds) * (share if self.pass_seconds else 1.0)

    def _ban(self) -> Tensor:
        """What is added to all logits: -inf for special tokens and ids without a token."""
        banned = torch.zeros(self.model.config.vocab_size, device=self.model.device)
        banned[[i for i in self.tokenizer.special if i < len(banned)]] = float("-inf")
        banned[len(self.tokenizer) :] = float("-inf")
        slack = self.tokenizer.id_of(self.profile.slack) if self.profile.slack else None
        if slack is not None:
            banned[slack] = 0.0
        return banned


@dataclass(slots=True)
class _Timings:
    prefill: float = 0.0
    denoise: float = 0.0


class _Run:
    """One request on its way."""

    def __init__(
        self, engine: InfillEngine, request: InfillRequest, cancelled: Callable[[], bool]
    ) -> None:
        self.began = time.monotonic()
        self.engine, self.request, self.cancelled = engine, request, cancelled
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
        elif self.sampling.rerank and not self._late():
            yield from self._rerank()
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
        schedule = self._schedule(layout)
        draws = Draws(self.request.seed, engine.model.device)
        bound = BoundModel(engine.model, self.cache)
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

    def _rerank(self) -> Iterator[None]:
        """Lets the encoder answer, too: one hole with text behind it, and no draft to go by."""
        gap, *others = self.sheet.gaps
        after = self.sheet.after(AFTER)
        if others or gap.hole.draft is not None or gap.hole.fixed_length or not after:
            return
        yield from self._prefill(self.prefix)
        if self.cache.ids != self.prefix:  # there was no time
            return
        engine = self.engine
        allowed = engine.banned == 0
        if self.sheet.slack is not None:
            allowed[self.sheet.slack] = False
        most = min(gap.cap, engine.profile.hole)
        for _ in rerank(self.cache, engine.tokenizer, gap, after, allowed, most):
            self._look_up()
            self.forward_passes += 1
            if self._late():
                return
            yield None

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
        return self.deadline - time.monotonic()

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
        total = time.monotonic() - self.began
        return Infill(
            text=self.sheet.assembled(),
            holes=self.sheet.texts(),
            steps=self.steps,
            forward_passes=self.forward_passes,
            stop_reason=reason,
            confidence=self._confidence(certainties) if certainties else 1.0,
            timings={
                "prefill": self.timings.prefill * 1000,
                "denoise": self.timings.denoise * 1000,
                "total": total * 1000,
            },
        )

    def _confidence(self, certainties: list[float]) -> float:
        """The geometric mean of certainties, and what the profile makes of it."""
        logs = [log(max(certainty, 1e-9)) for certainty in certainties]
        mean = exp(sum(logs) / len(logs))
        calibration = self.engine.profile.calibration
        return mean if calibration is None else calibration(mean)
