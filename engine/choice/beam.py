"""What the encoder would write into a hole from the prefix alone: the likeliest few, by beam
search."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engine.attention.token_tree import ROOT, TokenTree
from engine.text.tokenizer import TextTokenizer

WIDTH = 8
"""So many continuations are gone on with side by side."""

MARGIN = 4.0
"""Nats by which an answer may be less likely than the likeliest. Of those that the text behind the
hole chooses, 95% are nearer."""


@dataclass(frozen=True, slots=True)
class Written:
    """A continuation of the prefix. likelihood: log p in nats of the tokens, and of the end once it
    has ended. place: of its last token in the tree."""

    ids: tuple[int, ...] = ()
    likelihood: float = 0.0
    place: int = ROOT


class Beam:
    """The search for up to `width` continuations in `tree`, whose rows it needs.

    A continuation begins with the `typed` bytes, ends where the text `after` the hole goes on, and
    is never blank; what has no end after `most` tokens is left out, and what is less likely by
    more than `margin` nats than one that has ended is not gone on with. allowed: bool [V], what may
    be written. found: those that have ended.
    """

    def __init__(
        self,
        tokenizer: TextTokenizer,
        tree: TokenTree,
        typed: bytes,
        after: bytes,
        allowed: Tensor,
        most: int,
        width: int = WIDTH,
        margin: float = MARGIN,
    ) -> None:
        self._tokenizer, self._tree = tokenizer, tree
        self._typed, self._after, self._most = typed, after, most
        self._width, self._margin = width, margin
        self._allowed = allowed
        self._first = allowed
        if typed:
            first = torch.tensor(tokenizer.starting_with(typed), device=allowed.device)
            self._first = torch.zeros_like(allowed).index_fill(0, first, True)
        self._live = [Written()]
        self.found: list[Written] = []

    @property
    def likeliest(self) -> list[Written]:
        """Those found that are not less likely than another one by more than `margin`."""
        least = self._least
        return [one for one in self.found if one.likelihood > least]

    @property
    def _least(self) -> float:
        """What is not likelier than this is out. A continuation only becomes less likely."""
        return max((one.likelihood for one in self.found), default=float("-inf")) - self._margin

    @property
    def done(self) -> bool:
        """Whether there is nothing left to go on with."""
        return not self._live

    def step(self) -> None:
        """Goes on by a token, once the tree has encoded those of the step before; adds the next
        ones to it. Does nothing when it is done."""
        if self.done:
            return
        length = len(self._live[0].ids)
        may_come = self._allowed if length else self._first
        logs = self._tree.log_probs([one.place for one in self._live])
        logs = logs.masked_fill(~may_come, float("-inf"))
        ended: list[Written] = []
        further: list[Written] = []
        for one, (values, tokens) in zip(
            self._live, _likeliest(logs, 2 * self._width), strict=True
        ):
            blank = not self._tokenizer.text_of(list(one.ids), len(self._typed)).strip()
            # The first token holds the typed bytes, too, which stand in front of the hole.
            begins = length == 0 and bool(self._typed)
            ends = [not begins and self._goes_on(token) for token in tokens]
            if True in ends and not blank:
                end = values[ends.index(True)]
                ended.append(replace(one, likelihood=one.likelihood + end))
            if length < self._most:
                words = zip(values, tokens, ends, strict=True)
                further += [
                    Written((*one.ids, token), one.likelihood + value, one.place)
                    for value, token, end in words
                    if not end
                ]
        best = sorted(ended + further, key=lambda one: one.likelihood, reverse=True)
        best = best[: self._width - len(self.found)]
        self.found += [one for one in best if len(one.ids) == length]
        least = self._least
        self._live = [
            replace(one, place=self._tree.add(one.ids[-1], one.place))
            for one in best
            if len(one.ids) > length and one.likelihood > least
        ]

    def _goes_on(self, token: int) -> bool:
        """Whether `token` begins what stands behind the hole; of line ends only that there is one,
        since a token may hold the next line's indentation, too."""
        own = self._tokenizer.bytes_of([token])
        if self._after.startswith(b"\n"):
            return own.startswith(b"\n")
        return bool(own) and self._after.startswith(own)


def _likeliest(logs: Tensor, count: int) -> Iterator[tuple[list[float], list[int]]]:
    """The likeliest tokens of each row of log-probabilities [n, V], impossible ones left out."""
    top = logs.topk(min(count, logs.shape[1]))
    for values, tokens in zip(top.values.tolist(), top.indices.tolist(), strict=True):
        possible = sum(value > float("-inf") for value in values)
        yield values[:possible], tokens[:possible]
