"""The engine as one session has it: its client, its runs, and what is known of its model."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

from lsprotocol.types import MessageType

from diffgemma_lsp.context.neighbours import Neighbours
from diffgemma_lsp.lsp.client import Client
from diffgemma_lsp.session.loading import FIRST_S, until_loaded, was_without_model
from diffgemma_lsp.session.model import Model
from diffgemma_lsp.session.requests import PendingRequest, Requests
from diffgemma_lsp.session.trouble import Trouble, still, unexpected
from diffgemma_lsp.settings.effective import EffectiveSettings
from diffgemma_lsp.settings.schema import Settings
from engine.errors import DeadlineExceeded, EngineError, ModelError
from engine.types import Frame, Infill, InfillRequest, Other

logger = logging.getLogger(__name__)

# Kept back from the time that the engine gets, for the way of its answer to the client.
RETURN_S = 0.04
# Kept back when the server stops waiting for an engine that is late.
LATE_S = 0.01
# For so long the engine may take to say how it is doing.
STATUS_S = 0.5


class Engine(Protocol):
    """What a session uses of the engine's client. Cancelling the reader of a stream cancels it."""

    def stream(self, request: InfillRequest) -> AsyncGenerator[Frame | Infill]: ...

    async def status(self) -> dict[str, Any] | None: ...

    async def warm_up(self) -> None: ...

    async def unload(self) -> bool: ...

    async def aclose(self) -> None: ...


MakeEngine = Callable[[Settings], Engine]
Watch = Callable[[Frame], None]


class Answer(NamedTuple):
    """What a run came to: what each hole holds, and how sure the model is of it, from 0 to 1; None
    where that was not measured (engine.types.Infill).

    finished: False if the deadline came first, and this is the best that there was by then.
    others: what else could stand in the one hole, the surest first.
    whole: False where the last hole may stop in the middle: at the deadline, or for want of room.
    scores: of the request's choices, if it had some.
    """

    holes: tuple[str, ...]
    confidence: float | None
    finished: bool = True
    others: tuple[Other, ...] = ()
    whole: bool = True
    scores: tuple[float, ...] = ()

    @classmethod
    def of(cls, event: Frame | Infill) -> Answer:
        """What a result says, or the last frame of a run that had no more time."""
        if isinstance(event, Frame):
            return cls(event.texts, None, finished=False, whole=False)
        finished = event.stop_reason != "deadline"
        whole = finished and event.stop_reason != "max_tokens"
        return cls(event.holes, event.confidence, finished, event.others, whole, event.scores)

    def for_the_hole(self, automatic: bool) -> Iterator[tuple[Other, bool]]:
        """All answers to the one hole, the best first, each with whether it is whole. What is less
        likely than nothing does not come by itself (automatic)."""
        first = Other(self.holes[0], self.confidence), self.whole
        for answer, whole in (first, *((other, True) for other in self.others)):
            yield answer, whole
            if automatic and whole and not answer.text:
                return


class EngineSession:
    """One engine of a session.

    named: the model that it is for, of those that the user named for a language or a path; None is
        the one for all else. starting: whether it is being started ahead of the first request.
    instead: who answers from when that model turns out not to be there, or not to fit.
    """

    def __init__(
        self,
        make: MakeEngine,
        settings: EffectiveSettings,
        requests: Requests,
        neighbours: Neighbours,
        client: Client,
        named: str | None = None,
        instead: EngineSession | None = None,
    ) -> None:
        self.model = Model()
        self.named = named
        self.starting = self.gave_way = False
        self._client, self._instead = client, instead
        self._make, self._settings = make, settings
        self._requests, self._neighbours = requests, neighbours
        whose = "" if named is None else f"{named}: "
        self.trouble = Trouble(requests, client, self.status, whose)
        self._made: asyncio.Future[Engine] | None = None
        self._learning: asyncio.Task[dict[str, Any] | None] | None = None

    # ---- a run ----

    async def run(
        self, pending: PendingRequest, request: InfillRequest, watch: Watch | None = None
    ) -> Answer:
        """What the engine makes of `request` until its deadline; where it is held, from when
        there is a model. watch: sees each frame.

        Raises Nothing when the request is ended, and EngineError. Returns or raises at once in
        every case: the run itself is cancelled, and may take as long as it likes to notice.
        """
        held_until = time.monotonic() + pending.held_s
        while True:
            if self.gave_way and self._instead is not None:
                return await self._instead.run(pending, request, watch)
            try:
                return await self._run(pending, request, watch)
            except ModelError as error:
                if self._instead is None:
                    raise
                self.failed(error)
            except DeadlineExceeded:
                if not await self._was_without_model(pending, held_until):
                    raise
                pending.budget_s = max(pending.budget_s, FIRST_S)
                pending.deadline = time.monotonic() + pending.budget_s

    async def _run(
        self, pending: PendingRequest, request: InfillRequest, watch: Watch | None
    ) -> Answer:
        frames: list[Frame] = []
        pending.must_go_on()  # else the engine need not hear of it
        if pending.kind != "ahead":
            self._requests.end("there is something to do", kinds=("ahead",))
        run = self._requests.keep(self._stream(pending, request, frames, watch))
        try:
            done = await pending.wait(run, pending.left_s - LATE_S)
        finally:
            run.cancel()
        if done:
            answer = run.result()
        elif frames:
            answer = Answer.of(frames[-1])
        else:
            why = "a larger budget helps" if self.model.known else "it is loading, or too slow here"
            raise DeadlineExceeded(f"the engine had nothing to show in time: {why}")
        self.trouble.last_error = None
        if pending.kind != "ahead":
            self.trouble.missed = 0
        return answer

    async def _was_without_model(self, pending: PendingRequest, until: float) -> bool:
        """Whether the time of a request was up for want of a model. Waits, but not beyond `until`,
        for one, or until none is coming. Raises Nothing when the request is ended."""
        now = time.monotonic()
        began = pending.deadline - pending.budget_s
        if now >= until:
            return False
        loaded = self._requests.keep(until_loaded(self.status))
        try:
            done = await pending.wait(loaded, until - now)
        finally:
            loaded.cancel()
        return done and was_without_model(loaded.result(), now - began)

    async def _stream(
        self,
        pending: PendingRequest,
        request: InfillRequest,
        frames: list[Frame],
        watch: Watch | None,
    ) -> Answer:
        try:
            engine = await self.client()
            budget = pending.left_s - RETURN_S
            if budget <= 0:
                raise DeadlineExceeded("no time was left for the engine: a larger budget helps")
            timed = replace(request, budget_s=budget)
            async with contextlib.aclosing(engine.stream(timed)) as events:
                async for event in events:
                    if not self.model.known:  # it is loaded by now
                        await self.status()
                    if isinstance(event, Infill):
                        return Answer.of(event)
                    frames[:] = [event]
                    if watch is not None:
                        watch(event)
        except (EngineError, asyncio.CancelledError):
            raise
        except Exception as error:
            raise unexpected(error) from error
        raise EngineError("the engine's answer had no end: ask again")

    def failed(self, error: EngineError) -> None:
        """Tells the user of an error that nobody waits for; of a model that can't be had, that
        another one answers from here on."""
        if self._instead is None or not isinstance(error, ModelError):
            self.trouble.report(error)
        elif not self.gave_way:
            self.gave_way = True
            told = f"{self.named} (setting models): {error}; {self._instead.name} answers instead"
            logger.warning("%s", told)
            self._client.show(MessageType.Warning, told)
            self._requests.at_change()

    # ---- its client ----

    async def client(self) -> Engine:
        """The engine's client, made when it is first needed."""
        if self._made is None:
            # In a thread, since it imports an HTTP client.
            settings = self._settings.everywhere
            if self.named is not None:
                settings = replace(settings, model=self.named)
            making = asyncio.to_thread(self._make, settings)
            self._made = self._requests.keep(making)
        made = self._made
        try:
            return await asyncio.shield(made)
        except asyncio.CancelledError:
            raise
        except Exception:
            if self._made is made:
                self._made = None  # the next request tries again
            raise

    async def unload(self) -> bool:
        """Has the engine free its model's memory. False if none is running."""
        freed = await (await self.client()).unload()
        self._requests.rest()
        self._requests.at_change()
        return freed

    def close(self) -> None:
        """Lets go of the engine, in the background."""
        made, self._made = self._made, None
        if made is not None and made.done() and not made.cancelled() and not made.exception():
            self._requests.spawn(made.result().aclose())

    # ---- what is known of it ----

    @property
    def name(self) -> str:
        """What its model is called."""
        return self.named or self.model.name or self._settings.everywhere.model or "the default"

    @property
    def begun(self) -> bool:
        """Whether anybody has wanted anything of it."""
        return self._made is not None

    async def status(self) -> dict[str, Any] | None:
        """What the engine says of itself, if it is there and says it soon. Starts nothing."""
        if self._made is None or not self._made.done():
            return None
        try:
            async with asyncio.timeout(STATUS_S):
                status = await (await self.client()).status()
        except (EngineError, OSError, TimeoutError) as error:
            logger.debug("no status of the engine: %s", error)
            return None
        self._neighbours.learn(status, self.named or "")
        if info := (status or {}).get("info"):
            self.model = Model.of(info)
            self.trouble.last_error = still(self.trouble.last_error)
        return status

    async def abilities(self) -> tuple[str, ...]:
        """What the model can do: "fill", and "instruct" if it follows instructions.

        Known once it is loaded; before that, no more than every model can.
        """
        # One question for all who ask at the same time: some editors do at every key.
        if self._learning is None or self._learning.done():
            self._learning = self._requests.keep(self.status())
        await asyncio.shield(self._learning)
        return self.model.can
