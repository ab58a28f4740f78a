"""Which of several answers to a hole goes best with the text around it.

A noisy channel decides (Yu et al., arXiv 1611.02554): by Bayes' rule p(middle | before, after) is
proportional to p(middle | before) · p(after | before, middle), and the encoder knows both. So the
text behind the hole is a judge also where the denoiser made little of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import exp, fsum

import torch
from torch import Tensor

from engine.beam import Written, write
from engine.canvas import Gap
from engine.prefix_cache import PrefixCache
from engine.token_tree import ROOT, TokenTree
from engine.tokenizer import TextTokenizer

AFTER = 32
"""Tokens behind the hole that are asked for their opinion."""

MARGIN = 4.0
"""Nats by which an answer may be less likely than the likeliest to be judged. Of those that are
chosen, 95% are nearer."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """An answer among others. confidence: how likely it is the right one, from 0 to 1."""

    ids: list[int]
    confidence: float


class Rivals:
    """Answers of the encoder to one hole, beside that of the denoiser.

    after: the first ids behind the hole, at least one.
    """

    def __init__(self, tokenizer: TextTokenizer, gap: Gap, after: Sequence[int]) -> None:
        self._tokenizer, self._gap, self._after = tokenizer, gap, after
        self.written: list[Written] = []

    def write(self, prefix: PrefixCache, allowed: Tensor, most: int) -> Iterator[None]:
        """Writes them, behind a prefix whose last row is known; yields after each token.

        allowed: bool [V], what may be written; most: so many tokens in an answer.
        """
        behind = self._tokenizer.bytes_of(self._after)
        return write(prefix, self._tokenizer, self.written, self._gap.typed, behind, allowed, most)

    def compete(self, prefix: PrefixCache) -> list[Ranked]:
        """Gives the gap, which is filled, the answer that goes best with the text around it.

        Returns all that were judged, the best first.
        """
        top = max(one.likelihood for one in self.written)
        certainty = {one.ids: one.certainty for one in self.written}
        near = [one.ids for one in self.written if one.likelihood > top - MARGIN]
        answers = [list(ids) for ids in dict.fromkeys((tuple(self._gap.done), *near))]
        ranked = rank(answers, likelihoods(prefix, answers, self._after))
        if ranked[0].ids != self._gap.done:
            best = ranked[0].ids
            self._gap.replace(best, list(certainty[tuple(best)]))
        return ranked


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Of an answer, in nats. ended: log p of it and of the first token behind the hole, which ends
    it, given the prefix. after: log p of the tokens behind that one, given all of it."""

    ended: float
    after: float


def rank(answers: Sequence[list[int]], likelihoods: Sequence[Likelihood]) -> list[Ranked]:
    """The answers, the best first; of equals the first one stays in front.

    Confidence is the share of an answer in all that were judged, times the probability before the
    text behind the hole was seen that one of these is it: some that nobody wrote may be better.
    """
    totals = [one.ended + one.after for one in likelihoods]
    weights = [exp(total - max(totals)) for total in totals]
    covered = min(1.0, fsum(exp(one.ended) for one in likelihoods))
    ranked = [
        Ranked(ids, weight / fsum(weights) * covered)
        for ids, weight in zip(answers, weights, strict=True)
    ]
    return sorted(ranked, key=lambda one: one.confidence, reverse=True)


def likelihoods(
    prefix: PrefixCache, answers: Sequence[Sequence[int]], after: Sequence[int]
) -> list[Likelihood]:
    """How likely the encoder finds each answer and `after` behind `prefix`, in one pass.

    The prefix must have a last row, and `after` a token.
    """
    assert prefix.last is not None
    texts = [[*answer, *after] for answer in answers]
    ids: list[int] = []
    parents: list[int] = []
    for text in texts:
        # What the last token leads to is not asked.
        parents += [ROOT, *range(len(ids), len(ids) + len(text) - 2)][: len(text) - 1]
        ids += text[:-1]
    rows = TokenTree(prefix, len(ids)).grow(ids, parents) if ids else prefix.last[:0]
    found: list[Likelihood] = []
    for answer, text in zip(answers, texts, strict=True):
        own, rows = rows[: len(text) - 1], rows[len(text) - 1 :]
        logs = prefix.model.logits(torch.cat((prefix.last, own))).log_softmax(-1)
        each = logs.gather(1, torch.tensor(text, device=logs.device).unsqueeze(1))
        end = len(answer) + 1
        found.append(Likelihood(float(each[:end].sum()), float(each[end:].sum())))
    return found
