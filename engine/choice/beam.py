"""What a model would write into a hole token by token: the likeliest few, by beam search.

The encoder does it from the prefix alone, a decoder's tree with what stands behind the hole in
view."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from engine.attention.token_tree import TokenTree, Written
from engine.text.tokenizer import TextTokenizer
from engine.text.typed import Writable

WIDTH = 8
"""So many continuations are gone on with side by side."""

MARGIN = 4.0
"""Nats by which an answer may be less likely than the likeliest. Of those that the text behind the
hole chooses, 95% are nearer."""


class Beam:
    """The search for up to `width` continuations in `tree`, whose rows it needs.

    A continuation is `writable`, ends where `ends` says so of a token, and may be blank only if
    `blank` says so; what has no end after `most` tokens is left out, and what is less likely by
    more than `margin` nats than one that has ended is not gone on with. An end costs `end_cost`
    nats more than the model says. found: those that have ended.
    cut: the likeliest one that was as long as it may be, and had not ended.
    """

    def __init__(
        self,
        tree: TokenTree,
        writable: Writable,
        ends: Callable[[int], bool],
        most: int,
        width: int = WIDTH,
        margin: float = MARGIN,
        blank: bool = False,
        end_cost: float = 0.0,
    ) -> None:
        self._blank, self._end_cost = blank, end_cost
        self._tree, self._writable, self._ends, self._most = tree, writable, ends, most
        self._width, self._margin = width, margin
        self._live = [Written()]
        self._full = self._live  # those gone on with last
        self.found: list[Written] = []
        self.cut: Written | None = None

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
    def best(self) -> Written:
        """The likeliest continuation so far, whether it has ended or not. Where all have become too
        long for an end, the likeliest of those."""
        return max([*self.found, *self._live] or self._full, key=lambda one: one.likelihood)

    @property
    def live(self) -> list[Written]:
        """Those to go on with, the likeliest first."""
        return self._live

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
        logs = self._tree.log_probs([one.place for one in self._live])
        may_come = [self._writable.next(one.ids) for one in self._live]
        ended: list[Written] = []
        further: list[Written] = []
        for one, (values, tokens) in zip(
            self._live, likeliest(logs, may_come, 2 * self._width), strict=True
        ):
            # The first tokens hold the typed bytes, too, which stand in front of the hole.
            begun = self._writable.begun(one.ids)
            blank = not self._blank and not self._writable.text(one.ids).strip()
            ends = [begun and self._ends(token) for token in tokens]
            if True in ends and not blank:
                end = values[ends.index(True)]
                ended.append(replace(one, likelihood=one.likelihood + end - self._end_cost))
            if length == self._most and (self.cut is None or one.likelihood > self.cut.likelihood):
                self.cut = one
            if length < self._most:
                words = zip(values, tokens, ends, strict=True)
                further += [
                    Written((*one.ids, token), one.likelihood + value, one.place)
                    for value, token, end in words
                    if not end
                ]
        self._full = self._live
        best = sorted(ended + further, key=lambda one: one.likelihood, reverse=True)
        best = best[: self._width - len(self.found)]
        self.found += [one for one in best if len(one.ids) == length]
        least = self._least
        self._live = [
            replace(one, place=self._tree.add(one.ids[-1], one.place))
            for one in best
            if len(one.ids) > length and one.likelihood > least
        ]


class Rivals(NamedTuple):
    """Answers of the encoder to a hole, in the making. after: the first ids behind it."""

    tree: TokenTree
    beam: Beam
    after: list[int]


def goes_on(tokenizer: TextTokenizer, after: bytes) -> Callable[[int], bool]:
    """Whether a token begins what stands behind the hole; of line ends only that there is one,
    since a token may hold the next line's indentation, too."""

    def ends(token: int) -> bool:
        own = tokenizer.bytes_of([token])
        if after.startswith(b"\n"):
            return own.startswith(b"\n")
        return bool(own) and after.startswith(own)

    return ends


def likeliest(
    logs: Tensor, may_come: Sequence[Tensor], count: int
) -> Iterator[tuple[list[float], list[int]]]:
    """The likeliest tokens of each row of log-probabilities [n, V], of those that may come there
    (bool [V] each)."""
    same = all(one is may_come[0] for one in may_come)
    mask = may_come[0] if same else torch.stack(list(may_come))
    values, tokens = largest(logs.masked_fill_(~mask, float("-inf")), count)
    for row, ids in zip(values.tolist(), tokens.tolist(), strict=True):
        possible = sum(value > float("-inf") for value in row)
        yield row[:possible], ids[:possible]


CHUNK = 64
"""Logits whose largest is looked for first."""


def largest(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """`topk` of rows [n, V], several times as fast for large V: what is among the largest lies in
    one of as many chunks, those with the largest maxima."""
    n, v = rows.shape
    count = min(count, v)
    if v < 8 * CHUNK * count:
        top = rows.topk(count)
        return top.values, top.indices
    chunks = torch.nn.functional.pad(rows, (0, -v % CHUNK), value=float("-inf")).view(n, -1, CHUNK)
    chosen = chunks.amax(-1).topk(count).indices  # [n, count]
    inside = chunks.gather(1, chosen.unsqueeze(-1).expand(-1, -1, CHUNK))
    top = inside.flatten(1).topk(count)
    ids = chosen.gather(1, top.indices // CHUNK) * CHUNK + top.indices % CHUNK
    return top.values, ids
