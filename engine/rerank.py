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

    In any case the certainty of its tokens becomes what the encoder makes of them, which can be
    compared from hole to hole. Yields after each token that is written, so that it can be given up
    at any time. after: the ids behind the hole. allowed: bool [V], what may be written; most: so
    many tokens.
    """
    own = log_probs(prefix, gap.done, after)
    gap.certainty = own[: len(gap.done)].exp().tolist()
    yield
    written, text = Written(), tokenizer.bytes_of(after)
    yield from write(prefix, tokenizer, written, gap.typed, text, allowed, most)
    if not written.ended or written.ids == gap.done:
        return
    other = log_probs(prefix, written.ids, after)
    if bool(other.sum() > own.sum()):
        gap.replace(written.ids, other[: len(written.ids)].exp().tolist())


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
        logits = logits.masked_fill(~may_come, float("-inf"))
        likeliest: list[int] = logits.topk(min(_TRIED, len(logits))).indices.tolist()
        ends = [_goes_on(after, tokenizer.bytes_of([token])) for token in likeliest]
        blank = not tokenizer.text_of(written.ids, len(typed)).strip()
        if ends[0] and not blank:
            written.ended = True
            return
        if all(ends):
            return
        token = likeliest[ends.index(False)]
        written.ids.append(token)
        cache.extend([token])
        may_come = allowed
        yield


def log_probs(prefix: PrefixCache, middle: Sequence[int], after: Sequence[int]) -> Tensor:
    """What the encoder gives each token of `middle` and of `after` behind the prefix, which must
    have a last row: nats [len(middle) + len(after)], at least one."""
    assert prefix.last is not None
    ids = [*middle, *after]
    cache = prefix.copy(len(ids))
    rows = torch.cat((prefix.last, cache.extend(ids)[:-1]))
    logs = prefix.model.logits(rows).log_softmax(-1)
    return logs.gather(1, torch.tensor(ids, device=logs.device).unsqueeze(1)).squeeze(1)


def _goes_on(after: bytes, token: bytes) -> bool:
    """Whether `token` begins what stands behind the hole; of line ends only that there is one,
    since a token may hold the next line's indentation, too."""
    if after.startswith(b"\n"):
        return token.startswith(b"\n")
    return bool(token) and after.startswith(token)
