"""The likeliest answers to a hole, with both sides in view: best-first search in a decoder's tree.

A beam goes on with all continuations at one pace. Here each pass goes on with what promises most,
at whatever depth it stands: first of all with the likeliest continuation, some tokens of which are
guessed ahead (engine.choice.ahead), and in the rows that are left, with the best of what was passed
by. So there is an answer after few passes, and time is left to look for better ones.

Sources: stack decoding (Jelinek 1969); speculation in a tree (arXiv 2305.09781).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from engine.attention.span import Span
from engine.attention.token_tree import ROOT, TokenTree, Written
from engine.choice.ahead import Ahead
from engine.choice.beam import likeliest
from engine.text.typed import Writable

ROWS = 8
"""Rows of a pass: so many are read at the price of one."""

WIDTH = 8
"""So many continuations of one length are gone on with."""

BRANCHES = 16
"""The likeliest tokens behind a continuation that are thought of."""

CREDIT = 1.5
"""Nats that a token is worth when continuations of unequal length are compared: what is longer is
less likely, and nearer to an end."""

MARGIN = 1.5
"""Nats by which an answer may be less likely than the likeliest: both sides are in view already, so
that what is less likely is hardly ever the one that goes best with the text behind the hole."""

UNFINISHED = 1.0
"""Nats that an answer's beginning is to be likelier by than one with an end, where time is up."""


class _Leaf(NamedTuple):
    """A continuation that was not gone on with: the last of `ids` stands below `parent`."""

    ids: tuple[int, ...]
    likelihood: float
    parent: int


def _promise(one: _Leaf | Written) -> float:
    return one.likelihood + CREDIT * len(one.ids)


class _Next(NamedTuple):
    """What comes behind a place: the likeliest tokens and their log-probabilities."""

    tokens: list[int]
    logs: list[float]


class Search:
    """Looks for the likeliest continuations in `tree` that `end` ends.

    A continuation is `writable` and has at most `most` tokens. What is less likely than one that
    was found by more than `margin` nats is not gone on with. An end costs `end_cost` nats more than
    the model says. Runs passes by `spans` and `took` until it is `done`.

    found: those that have ended. cut: the likeliest one that was as long as it may be, and had not.
    """

    def __init__(
        self,
        tree: TokenTree,
        writable: Writable,
        end: int,
        most: int,
        ahead: Ahead,
        margin: float = MARGIN,
        end_cost: float = 0.0,
        rows: int = ROWS,
        width: int = WIDTH,
    ) -> None:
        self._tree, self._writable, self._end, self._most = tree, writable, end, most
        self._ahead, self._margin, self._end_cost = ahead, margin, end_cost
        self._rows, self._width = rows, width
        self._leaves: list[_Leaf] = []
        self._next: dict[int, _Next] = {}
        self._asked: list[tuple[int, tuple[int, ...]]] = [(ROOT, ())]  # places that are read now
        self._chosen: list[_Leaf] = []  # what is gone on with after this pass
        self._gone_on: Counter[int] = Counter()  # by length
        self._furthest = Written()  # of those gone on with, what promises most
        self.found: list[Written] = []
        self.cut: Written | None = None

    @property
    def done(self) -> bool:
        """Whether there is nothing left to go on with."""
        return bool(self._next) and not self._leaves

    @property
    def likeliest(self) -> list[Written]:
        """Those found that are not less likely than another one by more than the margin."""
        least = self._least
        return [one for one in self.found if one.likelihood > least]

    @property
    def best(self) -> Written:
        """The likeliest that has ended, unless one that has not is likelier by far: that can only
        become less likely, but what ended early is seldom right."""
        ended = max(self.found, key=lambda one: one.likelihood, default=None)
        further = self._furthest
        if ended and (self.done or ended.likelihood >= further.likelihood - UNFINISHED):
            return ended
        return further

    def spans(self) -> list[Span]:
        """What the next pass reads."""
        path, below, masks = (), ROOT, self._ahead.masks(self._rows)
        if self._next:
            first, *others = sorted(self._leaves, key=_promise, reverse=True)
            path, below = first.ids, self._read(first.ids, first.parent)
            for token in self._ahead.guess(first.ids)[: self._most - len(first.ids)]:
                path = (*path, token)
                below = self._read(path, below)
            masks, self._chosen = self._ahead.masks(self._rows - len(self._asked)), [first]
            for leaf in others:
                if len(self._asked) + masks >= self._rows:
                    break
                if self._place(leaf) not in self._next:
                    self._read(leaf.ids, leaf.parent)
                self._chosen.append(leaf)
        self._ahead.asked(path)
        return self._tree.spans(below, masks)

    def took(self, rows: Sequence[Tensor]) -> None:
        """What the pass gave for `spans`."""
        self._tree.took(rows)
        places = [place for place, _ in self._asked]
        hidden = torch.cat((self._tree.rows(places), self._tree.masked))
        logs = self._tree.model.logits(hidden).log_softmax(-1)
        may_come = [self._writable.next(ids) for _, ids in self._asked]
        known = likeliest(logs[: len(places)], may_come, BRANCHES)
        for place, (values, tokens) in zip(places, known, strict=True):
            self._next[place] = _Next(tokens, values)
        self._ahead.learn(logs[len(places) :])
        if ROOT in places:
            self._branch((), 0.0, ROOT)
            self._prune()
        self._asked = []
        self._go_on()

    def _read(self, ids: tuple[int, ...], parent: int) -> int:
        """Has the next pass read a continuation; returns its place."""
        place = self._tree.add(ids[-1], parent)
        self._asked.append((place, ids))
        return place

    def _go_on(self) -> None:
        """Goes on with what was chosen, and with what promises most while that was read already."""
        chosen, self._chosen = self._chosen, []
        while chosen:
            for leaf in chosen:
                self._leaves.remove(leaf)
                self._gone_on[len(leaf.ids)] += 1
                self._branch(leaf.ids, leaf.likelihood, self._place(leaf))
            self._prune()
            first = max(self._leaves, key=_promise, default=None)
            chosen = [first] if first and self._place(first) in self._next else []

    def _branch(self, ids: tuple[int, ...], likelihood: float, place: int | None) -> None:
        """The leaves behind a continuation whose place was read."""
        assert place is not None
        here = Written(ids, likelihood, place)
        if _promise(here) > _promise(self._furthest):
            self._furthest = here
        begun = self._writable.begun(ids)  # the first tokens hold what was typed, too
        for token, log in zip(*self._next[place], strict=True):
            if token == self._end:
                if begun:
                    ended = likelihood + log - self._end_cost
                    self.found.append(Written(ids, ended, place))
            elif len(ids) < self._most:
                self._leaves.append(_Leaf((*ids, token), likelihood + log, place))
        if len(ids) == self._most and (self.cut is None or likelihood > self.cut.likelihood):
            self.cut = here

    def _prune(self) -> None:
        least = self._least
        self._leaves = [
            one
            for one in self._leaves
            if one.likelihood > least and self._gone_on[len(one.ids)] < self._width
        ]

    @property
    def _least(self) -> float:
        """What is not likelier than this is out. A continuation only becomes less likely."""
        return max((one.likelihood for one in self.found), default=float("-inf")) - self._margin

    def _place(self, leaf: _Leaf) -> int | None:
        return self._tree.place(leaf.ids[-1], leaf.parent)
