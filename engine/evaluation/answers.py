"""Who fills the holes: the denoiser as it is served, and baselines to hold it against."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from engine.attention.prefix_cache import PrefixCache
from engine.engine import InfillEngine
from engine.text.prompt import prefix_ids
from engine.text.tokenizer import TextTokenizer
from engine.types import Fixed, Hole, InfillRequest, SamplingParams, Snippet


@dataclass(frozen=True, slots=True)
class Answer:
    """One filling. passes: of the denoiser, or tokens decoded; forward_passes: all of them.

    confidence: from 0 to 1, None if there is none. ms: milliseconds for all of it; denoise_ms: of
    them those of denoising, None where nothing is denoised.
    """

    text: str
    passes: int = 0
    forward_passes: int = 0
    ms: float = 0.0
    stop_reason: str = ""
    confidence: float | None = None
    denoise_ms: float | None = None


class Answerer(Protocol):
    """Fills a hole."""

    def __call__(self, prefix: str, suffix: str, reference: str = "") -> Answer:
        """What belongs between the two.

        reference: what was there; only for baselines that are told something of it.
        """
        ...


class Denoised:
    """The engine as it is served, without a deadline."""

    def __init__(self, engine: InfillEngine, params: SamplingParams, seed: int) -> None:
        self.engine, self.params, self.seed = engine, params, seed

    def hole(self, prefix: str, reference: str) -> Hole:
        """What the engine is told of the hole: nothing. Baselines differ here."""
        return Hole()

    def __call__(
        self, prefix: str, suffix: str, reference: str = "", context: tuple[Snippet, ...] = ()
    ) -> Answer:
        template = (Fixed(prefix), self.hole(prefix, reference), Fixed(suffix))
        request = InfillRequest(template, self.params, seed=self.seed, context=context)
        infill = self.engine.fill(request)
        return Answer(
            infill.text,
            infill.steps,
            infill.forward_passes,
            infill.timings["total"],
            infill.stop_reason,
            infill.confidence,
            infill.timings["denoise"],
        )


class FewPasses(Denoised):
    """The denoiser alone with `passes` passes and no more: it gets one canvas, and does not slide
    on."""

    def __init__(
        self, engine: InfillEngine, params: SamplingParams, seed: int, passes: int = 1
    ) -> None:
        super().__init__(engine, replace(params, max_steps=passes, rerank=False), seed)

    def hole(self, prefix: str, reference: str) -> Hole:
        return Hole(max_tokens=self.engine.profile.hole)


class FixedLength(Denoised):
    """The denoiser where every hole has `length` tokens: it may not end one with slack."""

    def __init__(
        self, engine: InfillEngine, params: SamplingParams, seed: int, length: int
    ) -> None:
        super().__init__(engine, params, seed)
        self.length = length

    def hole(self, prefix: str, reference: str) -> Hole:
        return Hole(max_tokens=self.length, fixed_length=True)


class TrueLength(Denoised):
    """The denoiser that is told how many tokens were there, and may not use fewer."""

    def hole(self, prefix: str, reference: str) -> Hole:
        length = true_length(self.engine.tokenizer, prefix, reference)
        return Hole(max_tokens=length, fixed_length=True)


def true_length(tokenizer: TextTokenizer, prefix: str, reference: str) -> int:
    """How many slots the reference takes behind a prefix whose last word may be half typed."""
    _, typed = tokenizer.heal(prefix)
    return max(1, len(tokenizer.encode(typed.decode() + reference)))


class Causal:
    """The same weights, token by token from the prefix alone: greedy decoding with the encoder.

    Ends at the end of the line, at the end of the text or after `longest` tokens. What the
    denoiser is not told, it is: the answer is one line, and that line is not empty.
    """

    def __init__(self, engine: InfillEngine, longest: int = 64) -> None:
        self.model, self.tokenizer, self.profile = (
            engine.model,
            engine.tokenizer,
            engine.profile,
        )
        self.longest = longest
        self._bos = engine.bos_id
        self._cache = PrefixCache(engine.model)
        self._end = self.tokenizer.id_of(self.profile.end) if self.profile.end else None
        size = engine.model.config.vocab_size
        self._banned = torch.zeros(size, device=engine.model.device)
        self._banned[
            [i for i in self.tokenizer.special if i < size and i != self._end]
        ] = -torch.inf
        self._banned[len(self.tokenizer) :] = -torch.inf
        self._blank = self._banned.clone()
        blank = [i for i in range(len(self.tokenizer)) if not self._bytes(i).strip()]
        # White space may lead to text, but the end of the line or of the text may not come first.
        self._blank[[i for i in blank if b"\n" in self._bytes(i) or i == self._end]] = -torch.inf

    @torch.inference_mode()
    def __call__(self, prefix: str, suffix: str, reference: str = "") -> Answer:
        began = time.monotonic()
        before, typed = self.tokenizer.heal(prefix)
        hidden, forward_passes = self._prefill(before)
        ids: list[int] = []
        reason = "max_tokens"
        while len(ids) < self.longest:
            logits = self.model.logits(hidden) + self._bias(ids, typed)
            token = int(logits.argmax())
            if token == self._end:
                reason = "end"
                break
            ids.append(token)
            if b"\n" in self._bytes(token):
                reason = "line"
                break
            hidden = self._cache.extend([token])[-1]
            forward_passes += 1
        text = self.tokenizer.text_of(ids, len(typed)).partition("\n")[0]
        ms = (time.monotonic() - began) * 1000
        return Answer(text, len(ids), forward_passes, ms, reason)

    def _prefill(self, text: str) -> tuple[Tensor, int]:
        """The hidden row behind the prefix, and how many passes it took."""
        bos, chunk = self._bos, self.profile.prefill
        ids = prefix_ids(text, self.tokenizer, bos, self.profile.context)
        # The last chunk is always computed: its last row is where decoding begins.
        self._cache.keep(ids[:-1], chunk)
        chunks = 0
        hidden = torch.empty(0)
        while len(self._cache.ids) < len(ids):
            at = len(self._cache.ids)
            hidden = self._cache.extend(ids[at : at + chunk])[-1]
            chunks += 1
        return hidden, chunks

    def _bias(self, ids: list[int], typed: bytes) -> Tensor:
        """What is added to the logits: -inf for what may not come next."""
        if not ids and typed:
            only = torch.full_like(self._banned, -torch.inf)
            only[list(self.tokenizer.starting_with(typed))] = 0.0
            return only
        return self._banned if self.tokenizer.bytes_of(ids).strip() else self._blank

    def _bytes(self, token: int) -> bytes:
        return self.tokenizer.bytes_of([token])


class Constant:
    """The same answer everywhere."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __call__(self, prefix: str, suffix: str, reference: str = "") -> Answer:
        return Answer(self.text)


class Reference:
    """What was there: tests of the judge, and the benchmarks' own solutions."""

    def __call__(self, prefix: str, suffix: str, reference: str = "") -> Answer:
        return Answer(reference)
