"""Runs of the engine for whoever asks over TCP: one run for all who ask the same at the same time,
an end at the deadline whatever the client does, and what comes back polished as in an editor."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

from diffgemma_lsp.context import window
from diffgemma_lsp.polish.confidence import doubt
from diffgemma_lsp.polish.polish import Around, offers
from diffgemma_lsp.serve.ask import Ask, Reply
from diffgemma_lsp.serve.metrics import Metrics
from diffgemma_lsp.session.engine import Answer
from diffgemma_lsp.session.model import Model
from diffgemma_lsp.text.documents import Document
from diffgemma_lsp.text.snapshot import DocumentSnapshot
from diffgemma_lsp.text.text import Text
from engine.errors import DeadlineExceeded, EngineError
from engine.types import Frame, Infill, InfillRequest, SamplingParams, Snippet

RETURN_S = 0.03
"""Kept back from the time that the engine gets, for the way back."""

AUTOMATIC_S = 2.0
"""Who gives so little time is typing, and gets what an editor shows by itself: nothing outside of
the block, nothing of which the model is not sure, and only in languages that it has learned."""

AUTOMATIC_TOKENS = 32
LONGEST_BUDGET_S = 60.0
"""So much time a client may take for itself; what the server gives is its owner's choice."""

READ = SamplingParams(max_steps=1, rerank=False)
"""The least of a run that reads what stands in front of the hole."""


class Busy(Exception):
    """There are as many runs under way as there may be."""


class Engine(Protocol):
    """What is used of the engine's client. Cancelling the reader of a stream cancels its run."""

    def stream(self, request: InfillRequest) -> AsyncGenerator[Frame | Infill]: ...

    async def status(self) -> dict[str, Any] | None: ...


class _Question(NamedTuple):
    """What makes two requests the same."""

    snapshot: tuple[str, str, str]
    context: tuple[Snippet, ...]
    max_tokens: int | None
    seed: int
    budget_s: float


class _Answers(NamedTuple):
    """event: what the engine came to; None if it was not asked."""

    event: Frame | Infill | None
    shown: tuple[str, ...]
    reason: str | None


@dataclass(eq=False, slots=True)
class _Run:
    """A run and who waits for it. handed: how many of its answers are promised to somebody."""

    task: asyncio.Task[_Answers]
    waiting: int = 0
    handed: int = 0


class Filler:
    """The engine for the routes. Bound to one event loop.

    name: what the model is called until the engine says so itself.
    """

    def __init__(
        self, engine: Engine, name: str, budget_ms: int, most_runs: int, metrics: Metrics
    ) -> None:
        self._engine, self._name, self._metrics = engine, name, metrics
        self._budget_s, self._most_runs = budget_ms / 1000, most_runs
        self._runs: dict[_Question, _Run] = {}
        self._model = Model()
        self._reading = False
        self._weighing = 0
        self.context_tokens = 0

    @property
    def name(self) -> str:
        """The model's."""
        return self._model.name or self._name

    @property
    def running(self) -> int:
        """How many runs are under way."""
        return len(self._runs) + self._weighing

    def budget_s(self, ask: Ask) -> float:
        """The time that a request has, in seconds."""
        asked_s = ask.budget_ms and min(ask.budget_ms / 1000, LONGEST_BUDGET_S)
        return asked_s or self._budget_s

    async def silent(self, language_id: str) -> str | None:
        """Why nothing comes by itself in a language, if a client says which one it is."""
        if not self._model.known:
            await self.status()
        return self._silent(language_id)

    async def status(self) -> dict[str, Any]:
        """What the engine says of itself; empty if there is none."""
        status = await self._engine.status() or {}
        if info := status.get("info"):
            self._model = Model.of(info)
            self.context_tokens = info.get("context_tokens", 0)
        return status

    async def fill(self, ask: Ask) -> Reply:
        """What belongs there. Raises EngineError, and Busy.

        Who is cancelled while waiting leaves the run to the others, and ends it if there are none.
        """
        budget_s = self.budget_s(ask)
        context = tuple(Snippet(window.plain(s.path), window.plain(s.text)) for s in ask.context)
        where = (ask.prefix, ask.suffix, ask.language_id)
        question = _Question(where, context, ask.max_tokens, ask.seed, budget_s)
        if ask.warm:
            await self._read(question)
            return self.reply(("",))
        run = self._run_of(question)
        begin, run.handed = run.handed, run.handed + ask.answers
        run.waiting += 1
        try:
            event, shown, reason = await asyncio.shield(run.task)
        finally:
            run.waiting -= 1
            if not run.waiting and self._runs.get(question) is run:
                del self._runs[question]
                run.task.cancel()
        mine = shown[begin : begin + ask.answers] or shown[: ask.answers] or ("",)
        texts = tuple(_until(text, ask.stop) for text in mine)
        if not isinstance(event, Infill):
            return self.reply(texts, reason=reason, cut=event is not None)
        cut = event.stop_reason in ("max_tokens", "deadline")
        ms, passes = event.timings, event.forward_passes
        return self.reply(texts, reason=reason, cut=cut, ms=ms, passes=passes)

    def _run_of(self, question: _Question) -> _Run:
        run = self._runs.get(question)
        if run is not None:
            self._metrics.shared.inc()
            return run
        if self.running >= self._most_runs:
            raise Busy
        run = self._runs[question] = _Run(asyncio.create_task(self._answer(question)))
        return run

    async def _answer(self, question: _Question) -> _Answers:
        snapshot, automatic = _snapshot(question), question.budget_s <= AUTOMATIC_S
        most = question.max_tokens or (AUTOMATIC_TOKENS if automatic else None)
        request = window.fill_request(snapshot, most, question.seed, question.context)
        if automatic and (silent := self._silent(snapshot.language_id)) is not None:
            return _Answers(None, (), silent)
        event = await self._best(request, question.budget_s)
        if not self._model.known:  # what it says of itself is known once it is loaded
            await self.status()
            if automatic and (silent := self._silent(snapshot.language_id)) is not None:
                return _Answers(event, (), silent)
        around = Around(
            window.prefix_of(snapshot),
            window.suffix_of(snapshot),
            snapshot.language_id,
            snapshot.newline,
        )
        answer = Answer.of(event)
        least = self._model.min_confidence if automatic else 0.0
        found = [
            (text, reason or doubt(confidence, least, not automatic, answer.finished))
            for (text, reason), confidence in offers(
                answer.for_the_hole(automatic), around, automatic=automatic
            )
        ]
        if shown := [text for text, reason in found if reason is None]:
            return _Answers(event, tuple(dict.fromkeys(shown)), None)
        return _Answers(event, (), found[0][1])

    async def weigh(self, request: InfillRequest, budget_s: float) -> tuple[float, ...]:
        """What the engine makes of the choices of a request. Raises EngineError, and Busy."""
        if self.running >= self._most_runs:
            raise Busy
        if budget_s <= 0:
            raise DeadlineExceeded("no time is left to weigh anything")
        self._weighing += 1
        try:
            event = await self._best(request, budget_s)
        finally:
            self._weighing -= 1
        if not isinstance(event, Infill):
            raise DeadlineExceeded("the time was up before anything was weighed")
        return event.scores

    def _silent(self, language_id: str) -> str | None:
        """Why nothing comes by itself in a language, if a client says which one it is."""
        return self._model.silent(language_id) if language_id else None

    async def _best(self, request: InfillRequest, budget_s: float) -> Frame | Infill:
        """The result, or the best that there is when the time is up."""
        frames: list[Frame] = []
        timed = replace(request, budget_s=max(0.001, budget_s - RETURN_S))
        run = asyncio.create_task(self._follow(timed, frames))
        try:
            await asyncio.wait({run}, timeout=budget_s)
        finally:
            run.cancel()
        if run.done():
            return run.result()
        if frames:
            return frames[-1]
        raise DeadlineExceeded(
            "the engine had nothing in time: it is loading, or too slow: more --budget-ms helps"
        )

    async def _follow(self, request: InfillRequest, frames: list[Frame]) -> Infill:
        async with contextlib.aclosing(self._engine.stream(request)) as events:
            async for event in events:
                if isinstance(event, Infill):
                    return event
                frames[:] = [event]
        raise EngineError("the engine's answer had no end: ask again")

    async def _read(self, question: _Question) -> None:
        """Has the engine read what is coming, if there is something and nothing else to do."""
        if self._runs or self._reading or not any((*question.snapshot[:2], question.context)):
            return
        request = window.fill_request(_snapshot(question), 1, 0, question.context)
        self._reading = True
        try:
            # Nobody waits for what it says, nor for why it says nothing.
            with contextlib.suppress(EngineError):
                await self._best(replace(request, params=READ), self._budget_s)
        finally:
            self._reading = False

    def reply(
        self,
        texts: tuple[str, ...],
        reason: str | None = None,
        cut: bool = False,
        ms: dict[str, float] | None = None,
        passes: int = 0,
    ) -> Reply:
        """A reply of now, by the model of now."""
        name, created = f"cmpl-{uuid.uuid4().hex}", int(time.time())
        context = self.context_tokens
        return Reply(texts, self.name, reason, cut, ms or {}, passes, context, name, created)


def _snapshot(question: _Question) -> DocumentSnapshot:
    """The document around the hole, as the language server would have it."""
    prefix, suffix, language_id = question.snapshot
    text = Text.of(prefix + suffix)
    return DocumentSnapshot.of(Document("", language_id, 0, text), text.point(len(prefix)))


def _until(text: str, stop: tuple[str, ...]) -> str:
    """The text up to the first of these."""
    return text[: min((at for one in stop if (at := text.find(one)) >= 0), default=len(text))]
