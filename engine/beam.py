"""What the encoder would write into a hole from the prefix alone: the likeliest few, by beam
search."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import exp

import torch
from torch import Tensor

from engine.prefix_cache import PrefixCache
from engine.token_tree import ROOT, TokenTree
from engine.tokenizer import TextTokenizer

WIDTH = 8
"""So many continuations are gone on with side by side."""


@dataclass(frozen=True, slots=True)
class Written:
    """A continuation of the prefix. certainty: of each token. likelihood: log p in nats of the
    tokens, and of the end once it has ended. place: of its last token in the tree."""

    ids: tuple[int, ...] = ()
    certainty: tuple[float, ...] = ()
    likelihood: float = 0.0
    place: int = ROOT

    def then(self, token: int, likelihood: float) -> Written:
        """It with one more token."""
        sure = (*self.certainty, exp(likelihood))
        return Written((*self.ids, token), sure, self.likelihood + likelihood, self.place)


def write(
    prefix: PrefixCache,
    tokenizer: TextTokenizer,
    found: list[Written],
    typed: bytes,
    after: bytes,
    allowed: Tensor,
    most: int,
    width: int = WIDTH,
) -> Iterator[None]:
    """Puts up to `width` continuations of `prefix`, whose last row must be known, into `found`.

    A continuation begins with the `typed` bytes, ends where the text `after` the hole goes on, and
    is never blank; what has no end after `most` tokens is left out. allowed: bool [V], what may be
    written. Yields after each token, so that it can be given up at any time.
    """
    rows = prefix.last
    assert rows is not None
    tree = TokenTree(prefix, width * most)
    may_come = allowed
    if typed:
        first = torch.tensor(tokenizer.starting_with(typed), device=allowed.device)
        may_come = torch.zeros_like(allowed).index_fill(0, first, True)
    live = [Written()]
    for length in range(most + 1):
        logs = prefix.model.logits(rows).log_softmax(-1).masked_fill(~may_come, float("-inf"))
        ended: list[Written] = []
        further: list[Written] = []
        for one, (values, tokens) in zip(live, _likeliest(logs, 2 * width), strict=True):
            blank = not tokenizer.text_of(list(one.ids), len(typed)).strip()
            ends = [_goes_on(after, tokenizer.bytes_of([token])) for token in tokens]
            if True in ends and not blank:
                end = values[ends.index(True)]
                ended.append(replace(one, likelihood=one.likelihood + end))
            if length < most:
                words = zip(values, tokens, ends, strict=True)
                further += [one.then(token, value) for value, token, end in words if not end]
        best = sorted(ended + further, key=lambda one: one.likelihood, reverse=True)
        best = best[: width - len(found)]
        found += [one for one in best if len(one.ids) == length]
        live = [one for one in best if len(one.ids) > length]
        if not live:
            return
        start = len(tree)
        rows = tree.grow([one.ids[-1] for one in live], [one.place for one in live])
        live = [replace(one, place=start + i) for i, one in enumerate(live)]
        may_come = allowed
        yield


def _likeliest(logs: Tensor, count: int) -> Iterator[tuple[list[float], list[int]]]:
    """The likeliest tokens of each row of log-probabilities [n, V], impossible ones left out."""
    top = logs.topk(min(count, logs.shape[1]))
    for values, tokens in zip(top.values.tolist(), top.indices.tolist(), strict=True):
        possible = sum(value > float("-inf") for value in values)
        yield values[:possible], tokens[:possible]


def _goes_on(after: bytes, token: bytes) -> bool:
    """Whether `token` begins what stands behind the hole; of line ends only that there is one,
    since a token may hold the next line's indentation, too."""
    if after.startswith(b"\n"):
        return token.startswith(b"\n")
    return bool(token) and after.startswith(token)
