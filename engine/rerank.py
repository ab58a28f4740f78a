"""A second answer to a hole, and which of two answers goes better with the text around it.

The second one is what the encoder would write, token by token from the prefix alone. Which one is
kept is decided by a noisy channel (Yu et al., arXiv 1611.02554): by Bayes' rule p(middle | before,
after) is proportional to p(middle | before) · p(after | before, middle), and the encoder knows
both. So the text behind the hole is a judge also where the denoiser made little of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from engine.canvas import Gap
from engine.prefix_cache import PrefixCache
from engine.tokenizer import TextTokenizer

AFTER = 32
"""Tokens behind the hole that are asked for their opinion."""

_TRIED = 8
"""So many of the likeliest tokens are looked through for one that does not end a blank answer."""


@dataclass(slots=True)
class Written:
    """What the encoder writes. ended: whether it has come to what stands behind the hole."""

    ids: list[int] = field(default_factory=list[int])
    certainty: list[float] = field(default_factory=list[float])
    ended: bool = False


def rerank(
    prefix: PrefixCache,
    tokenizer: TextTokenizer,
    gap: Gap,
    after: Sequence[int],
    allowed: Tensor,
    most: int,
) -> Iterator[None]:
    """Gives `gap` the encoder's own answer behind `prefix`, if `after` goes better with that.

    Yields after each token of it, so that it can be given up at any time. after: the ids behind
    the hole. allowed: bool [V], what may be written; most: so many tokens.
    """
    written = Written()
    yield from write(
        prefix, tokenizer, written, gap.typed, tokenizer.bytes_of(after), allowed, most
    )
    if not written.ended or written.ids == gap.done:
        return
    own, other = (log_likelihood(prefix, ids, after) for ids in (gap.done, written.ids))
    if other > own:
        gap.replace(written.ids, written.certainty)


def write(
    prefix: PrefixCache,
    tokenizer: TextTokenizer,
    written: Written,
    typed: bytes,
    after: bytes,
    allowed: Tensor,
    most: int,
) -> Iterator[None]:
    """Greedy decoding into `written`, behind `prefix`, whose last row must be known.

    It ends where the text behind the hole goes on, or without end after `most` tokens, and is
    never blank. The first token begins with the `typed` bytes.
    """
    cache = prefix.copy(most)
    may_come = allowed
    if typed:
        first = torch.tensor(tokenizer.starting_with(typed), device=allowed.device)
        may_come = torch.zeros_like(allowed).index_fill(0, first, True)
    while len(written.ids) < most and cache.last is not None:
        logits = cache.model.logits(cache.last)[0]
        probs = logits.masked_fill(~may_come, float("-inf")).softmax(-1)
        likeliest: list[int] = probs.topk(min(_TRIED, len(probs))).indices.tolist()
        ends = [_goes_on(after, tokenizer.bytes_of([token])) for token in likeliest]
        blank = not tokenizer.text_of(written.ids, len(typed)).strip()
        if ends[0] and not blank:
            written.ended = True
            return
        if all(ends):
            return
        token = likeliest[ends.index(False)]
        written.ids.append(token)
        written.certainty.append(float(probs[token]))
        cache.extend([token])
        may_come = allowed
        yield


def log_likelihood(prefix: PrefixCache, middle: Sequence[int], after: Sequence[int]) -> float:
    """log p(middle, after | prefix) in nats, by the encoder. The prefix must have a last row, and
    `after` a token."""
    assert prefix.last is not None
    ids = [*middle, *after]
    cache = prefix.copy(len(ids))
    rows = torch.cat((prefix.last, cache.extend(ids)[:-1]))
    logs = prefix.model.logits(rows).log_softmax(-1)
    return float(logs.gather(1, torch.tensor(ids, device=logs.device).unsqueeze(1)).sum())


def _goes_on(after: bytes, token: bytes) -> bool:
    """Whether `token` begins what stands behind the hole; of line ends only that there is one,
    since a token may hold the next line's indentation, too."""
    if after.startswith(b"\n"):
        return token.startswith(b"\n")
    return bool(token) and after.startswith(token)
