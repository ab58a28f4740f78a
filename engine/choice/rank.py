"""Which of several answers to a hole goes best with the text around it.

A noisy channel decides (Yu et al., arXiv 1611.02554): by Bayes' rule p(middle | before, after) is
proportional to p(middle | before) · p(after | before, middle), and the encoder knows both. So the
text behind the hole is a judge also where the denoiser made little of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, fsum

import torch

from engine.attention.token_tree import ROOT, TokenTree

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
    order = sorted(range(len(answers)), key=lambda index: totals[index], reverse=True)
    return [Ranked(answers[i], weights[i] / fsum(weights) * covered) for i in order]


def likelihoods(
    tree: TokenTree, answers: Sequence[Sequence[int]], after: Sequence[int]
) -> list[Likelihood]:
    """How likely the encoder finds each answer, and `after` behind it, below the tree's root; what
    the tree does not hold yet is encoded in one pass. `after` must have a token."""
    texts = [[*answer, *after] for answer in answers]
    # What the last token leads to is not asked.
    paths = [[ROOT, *tree.path(text[:-1])] for text in texts]
    tree.encode()
    found: list[Likelihood] = []
    for answer, text, path in zip(answers, texts, paths, strict=True):
        logs = tree.log_probs(path)
        each = logs.gather(1, torch.tensor(text, device=logs.device).unsqueeze(1))
        end = len(answer) + 1
        found.append(Likelihood(float(each[:end].sum()), float(each[end:].sum())))
    return found
