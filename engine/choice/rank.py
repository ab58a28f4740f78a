"""Which of several answers to a hole goes best with the text around it.

A noisy channel decides (Yu et al., arXiv 1611.02554): by Bayes' rule p(middle | before, after) is
proportional to p(middle | before) · p(after | before, middle), and the encoder knows both. So the
text behind the hole is a judge also where the denoiser made little of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, fsum

from engine.attention.token_tree import ROOT, TokenTree
from engine.profile import Weights

BAYES = Weights()
"""The noisy channel as it is: what the encoder says, and nothing else."""

AFTER = 32
"""Tokens behind the hole that are asked for their opinion."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """An answer among others. confidence: how likely it is the right one, from 0 to 1."""

    ids: list[int]
    confidence: float


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Of an answer, in nats. ended: log p of it and of the first token behind the hole, which ends
    it, given the prefix. after: log p of the tokens behind that one, given all of it. written: log
    p of it and its end, given both sides, if a decoder wrote it."""

    ended: float
    after: float
    written: float = 0.0

    def total(self, weights: Weights) -> float:
        """What the answers are compared by."""
        return (
            weights.written * self.written
            + weights.before * self.ended
            + weights.after * self.after
        )


def rank(
    answers: Sequence[list[int]],
    likelihoods: Sequence[Likelihood],
    weights: Weights = BAYES,
) -> list[Ranked]:
    """The answers, the best first; of equals the first one stays in front.

    Confidence is the share of an answer in all that were judged, times the probability before the
    text behind the hole was seen that one of these is it: some that nobody wrote may be better.
    """
    totals = [one.total(weights) for one in likelihoods]
    shares = [exp(total - max(totals)) for total in totals]
    seen = [one.written if weights.written else one.ended for one in likelihoods]
    covered = min(1.0, fsum(exp(one) for one in seen))
    order = sorted(range(len(answers)), key=lambda index: totals[index], reverse=True)
    return [Ranked(answers[i], shares[i] / fsum(shares) * covered) for i in order]


class Judge:
    """Asks the encoder's tree how likely it finds answers, and `after` behind each; what the tree
    does not hold yet is read by the next pass. `after` must have a token."""

    def __init__(
        self, tree: TokenTree, answers: Sequence[Sequence[int]], after: Sequence[int]
    ) -> None:
        self._tree = tree
        self._sizes = [len(answer) + 1 for answer in answers]
        self._texts = [[*answer, *after] for answer in answers]
        # What the last token leads to is not asked.
        self._paths = [[ROOT, *tree.path(text[:-1])] for text in self._texts]

    def likelihoods(self) -> list[Likelihood]:
        """In the order of the answers, once the tree has read what was added."""
        flat = [place for path in self._paths for place in path]
        order = {place: row for row, place in enumerate(dict.fromkeys(flat))}
        logs = self._tree.log_probs(list(order))
        found: list[Likelihood] = []
        for text, path, size in zip(self._texts, self._paths, self._sizes, strict=True):
            each = logs[[order[place] for place in path], text]
            found.append(Likelihood(float(each[:size].sum()), float(each[size:].sum())))
        return found


def likelihoods(
    tree: TokenTree, answers: Sequence[Sequence[int]], after: Sequence[int]
) -> list[Likelihood]:
    """`Judge`, now."""
    judge = Judge(tree, answers, after)
    tree.encode()
    return judge.likelihoods()
