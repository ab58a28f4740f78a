"""InfillEngine: the public face. Requests in, frames and results out.

    engine = InfillEngine.load()
    print(engine.fill(InfillRequest(fill_in_the_middle("x = ", "\\n"))).text)

One engine serves many requests that take turns: `stream` is a generator, and each `next` does one
unit of work. It is not thread-safe; the service gives it a thread of its own.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from engine.attention.batch import Batch
from engine.attention.prefix_cache import PrefixStore, cache_bytes
from engine.backbones.base import Backbone
from engine.backbones.linear import cores
from engine.backbones.quantized import Format
from engine.canvas_run import CanvasRun
from engine.choice_run import ChoiceRun
from engine.diffusion.process import Absorbing, Process, Uniform
from engine.errors import EngineError, ModelError
from engine.left_run import LeftRun
from engine.memory import large_blocks_apart, trim_memory
from engine.profile import Profile
from engine.run import Run
from engine.text.chat import Chat
from engine.text.tokenizer import TextTokenizer
from engine.types import (
    EngineInfo,
    Frame,
    Infill,
    InfillRequest,
    SamplingParams,
    fill_in_the_middle,
)
from engine.weights.check import check
from engine.weights.families import family_of
from engine.weights.loader import Progress, pick_device, pick_dtype
from engine.weights.locate import locate
from engine.window_run import WindowRun

_log = logging.getLogger(__name__)

TINY = 512
"""Up to this hidden size one CPU thread does the work: an operation takes microseconds, and on a
busy machine threads that wait for each other at every one of them are ten times slower."""

FEW, MOST = 2, 4
"""Threads of larger models: for passes of few rows, and of many."""


def _precision(model: Backbone) -> str:
    """What a model computes in, and what its weights are kept in if that is another."""
    computed = str(model.dtype).removeprefix("torch.")
    return computed if model.format == "plain" else f"{computed}, weights in {model.format}"


def never() -> bool:
    """The `cancelled` of a request that nobody withdraws."""
    return False


class InfillEngine:
    """A model in memory, ready to fill holes."""

    def __init__(
        self,
        model: Backbone,
        tokenizer: TextTokenizer,
        profile: Profile,
        chat: Chat | None = None,
    ) -> None:
        self.model, self.tokenizer, self.profile, self.chat = model, tokenizer, profile, chat
        self.pass_seconds = 0.0
        self._recorded = 0
        self.store = PrefixStore(model, cache_bytes(model.device))
        self.batch = Batch(model)
        # In float32 equal texts give equal results to the last bit: a cache is cut where its pieces
        # were. Elsewhere it is cut where the texts part.
        self.multiple = profile.prefill if model.dtype == torch.float32 else 1
        self.mask_id = tokenizer.id_of(profile.mask) if profile.mask else None
        self.marks = tokenizer.marks(profile.marks)
        # A mask is never said, and needs no row of the head.
        known = len(tokenizer) - (self.mask_id == len(tokenizer) - 1)
        if known > model.config.vocab_size:
            raise ModelError(
                f"the tokenizer of {profile.name} has {known} tokens, its model "
                f"{model.config.vocab_size}; download the model again"
            )
        start = tokenizer.id_of(profile.start) if profile.start else None
        self.bos_id = model.config.bos_id if start is None else start
        self.banned = self._ban()
        self.text_only = self.banned == 0
        slack = tokenizer.id_of(profile.slack) if profile.slack else None
        if slack is not None:
            self.text_only[slack] = False
        # What may be written into a hole: text, and what ends it where that is a token of its own.
        self.writable = self.text_only if self.mask_id is None else self.banned == 0
        self.process = self._process()
        # Mean entropy of masks with nothing around them, by their number (engine.window_run).
        self.bare_entropy: dict[int, float] = {}
        self.info = EngineInfo(
            model=profile.name,
            device=str(model.device),
            dtype=_precision(model),
            parameters=model.count,
            canvas_length=model.config.canvas_length,
            context_tokens=profile.context,
            can=tuple(one for one in profile.can if one != "instruct" or chat is not None),
            neighbours=profile.neighbours,
            languages=profile.languages,
            min_confidence=profile.min_confidence,
            draws=self.mask_id is None or profile.window,
        )

    @classmethod
    def load(
        cls,
        model: str | None = None,
        device: str | None = None,
        progress: Progress | None = None,
        dtype: torch.dtype | None = None,
        format: Format | None = None,
    ) -> InfillEngine:
        """Loads nano (None), a folder, or a model of the hub by its name.

        device: "cuda", "mps", "cpu"; None takes the best. dtype: None takes the device's fastest;
        float32 is reference mode. format: what weights are kept in; None takes what is fast if
        there is room for it, else the most bits that fit. progress is told what is done and how
        much of it (0 to 1). Raises ModelError, or OutOfMemory if it does not fit.
        """
        folder = locate(model, progress)
        where = pick_device(device)
        checked = check(folder)
        if checked.no_chat:
            _log.warning("%s", checked.no_chat)
        precision = dtype or pick_dtype(where)
        with large_blocks_apart():
            loaded = family_of(folder).load_model(folder, where, precision, progress, format)
        engine = cls(loaded, checked.tokenizer, checked.profile, checked.chat)
        if where.type == "cpu" and loaded.config.hidden_size <= TINY:
            torch.set_num_threads(1)
        elif where.type == "cpu":
            engine.batch.threads = (min(FEW, cores()), min(MOST, cores()))
        engine.warm_up()
        trim_memory()
        return engine

    def warm_up(self) -> None:
        """Runs two short fills, so that the first request can plan its passes: the first fill pays
        for what is set up once, the second tells how long a pass takes."""
        # From the left a pass has as many rows in a short hole as in a long one.
        most = self.profile.hole if self.mask_id is None or self.profile.window else 2
        template = fill_in_the_middle("x = ", "\n", max_tokens=most)
        for _ in range(2):
            self.pass_seconds = 0.0
            self.fill(InfillRequest(template, SamplingParams(max_steps=2)))
        self.store.shed()

    def fill(self, request: InfillRequest, cancelled: Callable[[], bool] = never) -> Infill:
        """Runs a request to its end. Raises as `stream` does."""
        for event in self.stream(request, cancelled):
            if isinstance(event, Infill):
                return event
        raise AssertionError("a stream ends with its result")

    @torch.inference_mode()
    def stream(
        self,
        request: InfillRequest,
        cancelled: Callable[[], bool] = never,
        deadline: float | None = None,
    ) -> Iterator[Frame | Infill | None]:
        """Yields a Frame after every pass and the Infill at the end; None after other work.

        deadline: on the monotonic clock; None counts the request's budget from now on. Streams that
        take turns share their passes. Raises Cancelled within one pass of `cancelled()` turning
        true, DeadlineExceeded if the time is up before anything can be shown, and other
        EngineErrors.
        """
        if deadline is None and request.budget_s is not None:
            deadline = time.monotonic() + request.budget_s
        run = self._kind(request)(self, request, cancelled, deadline)
        whole = False
        try:
            yield from run.events()
            whole = True
        except EngineError:
            whole = True  # it was withdrawn, or out of time: what was read is right
            raise
        except GeneratorExit:
            whole = True
            raise
        finally:
            run.close(whole)

    def shed(self) -> None:
        """Gives up all memory that no request needs right now."""
        self.store.shed()
        self.batch.shed()
        trim_memory()

    def planned(self, most: int, seconds_left: float | None) -> int:
        """How many passes, of at most `most`, fit into the time that is left."""
        if seconds_left is None or self.pass_seconds == 0.0:
            return most
        return max(1, min(most, int(seconds_left / self.pass_seconds)))

    def timed(self, seconds: float) -> None:
        """Learns how long a pass takes: slower at once, faster by and by. What made something ready
        for others is not like them."""
        if self._recorded != self.batch.recorded:
            self._recorded = self.batch.recorded
            return
        share = 0.5 if seconds > self.pass_seconds else 0.1
        self.pass_seconds += (seconds - self.pass_seconds) * (share if self.pass_seconds else 1.0)

    def _kind(self, request: InfillRequest) -> type[Run]:
        """The way that a request goes, by what it asks for and what the model reads."""
        if request.choices:
            return ChoiceRun
        if self.profile.window:
            return WindowRun
        return CanvasRun if self.mask_id is None else LeftRun

    def _process(self) -> Process:
        """What noise is to the model; masks that it was not told of are no noise."""
        if self.mask_id is None:
            return Uniform(self.model.config.vocab_size)
        return Absorbing(self.mask_id, self.profile.sampling.final)

    def _ban(self) -> Tensor:
        """What is added to all logits: -inf for tokens that are no text and ids without a token."""
        banned = torch.zeros(self.model.config.vocab_size, device=self.model.device)
        banned[[i for i in self.tokenizer.unwritable if i < len(banned)]] = float("-inf")
        banned[len(self.tokenizer) :] = float("-inf")
        slack = self.tokenizer.id_of(self.profile.slack) if self.profile.slack else None
        if slack is not None:
            banned[slack] = 0.0
        if self.mask_id is not None and self.mask_id < len(banned):
            banned[self.mask_id] = float("-inf")
        return banned
