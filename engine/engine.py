"""InfillEngine: the public face. Requests in, frames and results out.

    engine = InfillEngine.load()
    print(engine.fill(InfillRequest(fill_in_the_middle("x = ", "\\n"))).text)

One engine serves many requests that take turns: `stream` is a generator, and each `next` does one
unit of work. It is not thread-safe; the service gives it a thread of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from engine.attention.prefix_cache import PrefixCache
from engine.backbones.diffusion_gemma import DiffusionGemma
from engine.errors import ModelError
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
from engine.weights.loader import Progress, load_model, pick_device, pick_dtype
from engine.weights.locate import locate
from engine.weights.profile import Profile, load_profile

CACHES = 4
"""Prefix caches that are kept: so many documents can be worked on without starting over."""

SMALL = 512
"""Up to this hidden size one CPU thread does the work: an operation takes microseconds, and on a
busy machine threads that wait for each other at every one of them are ten times slower."""


def never() -> bool:
    """The `cancelled` of a request that nobody withdraws."""
    return False


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
        run = Run(self, request, cancelled)
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
