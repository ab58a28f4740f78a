"""Is a stated confidence kept? Calibration error, the fit of a mapping, and what a gate shows.

Pure functions of pairs: how sure the model was (0 to 1), and whether it was right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.evaluation.metrics import Estimate, proportion
from engine.profile import CERTAIN, Calibration

BINS = 10

_RESAMPLES = 2000
_RIDGE = 1e-3
_STEPS = 100
_LEAST_SCALE = 1e-3

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers of like confidence: the mean of what was stated, and how often it was right."""

    stated: float
    right: Estimate


def bins(stated: Sequence[float], right: Sequence[bool], count: int = BINS) -> list[Bin]:
    """The answers in order of confidence, in bins of equally many; fewer where many are alike.

    Answers of the same confidence are never parted.
    """
    order = np.argsort(np.asarray(stated, float), kind="stable")
    values, hits = np.asarray(stated, float)[order], np.asarray(right, bool)[order]
    edges = [0]
    for wanted in np.linspace(0, len(values), count + 1)[1:]:
        edge = int(np.searchsorted(values, values[round(wanted) - 1], side="right"))
        if edge > edges[-1]:
            edges.append(edge)
    return [
        Bin(float(values[a:b].mean()), proportion(hits[a:b].tolist())) for a, b in pairwise(edges)
    ]


def expected_calibration_error(
    stated: Sequence[float], right: Sequence[bool], count: int = BINS
) -> float:
    """Mean over the answers of |what their bin stated - how often it was right|, from 0 to 1.

    Guo et al., arXiv 1706.04599, with bins of equally many answers. Chance alone makes it larger
    than 0: with n answers in B bins by about 0.8 * sqrt(p * (1 - p) * B / n).
    Raises ValueError without answers.
    """
    if not stated:
        raise ValueError("there are no answers to compare")
    found = bins(stated, right, count)
    return sum(abs(b.stated - b.right.value) * b.right.n for b in found) / len(stated)


def calibration_error(stated: Sequence[float], right: Sequence[bool], seed: int = 0) -> Estimate:
    """The expected calibration error with a bootstrap interval, which chance moves upwards."""
    value = expected_calibration_error(stated, right)
    x, y = np.asarray(stated, float), np.asarray(right, bool)
    rng = np.random.default_rng(seed)
    drawn: list[float] = []
    for _ in range(_RESAMPLES):
        at = rng.integers(0, len(x), len(x))
        drawn.append(expected_calibration_error(x[at].tolist(), y[at].tolist()))
    low, high = np.quantile(drawn, [0.025, 0.975]).tolist()
    return Estimate(value, float(np.std(drawn)), low, high, len(x))


def fit(stated: Sequence[float], right: Sequence[bool]) -> Calibration:
    """The mapping under which what happened is most likely (Newton's method).

    Platt's targets, not 0 and 1, keep it finite where all answers of high confidence are right;
    the scale stays above 0, so that the order of answers stays. Raises ValueError unless some
    answers are right and some are wrong.
    """
    hits = np.asarray(right, bool)
    positive, negative = int(hits.sum()), int((~hits).sum())
    if not positive or not negative:
        raise ValueError(
            f"{positive} of {len(hits)} answers are right: a mapping needs some of both; ask for "
            "more holes or for easier kinds"
        )
    inside = np.clip(np.asarray(stated, float), CERTAIN, 1 - CERTAIN)
    odds = np.log(inside / (1 - inside))
    targets = np.where(hits, (positive + 1) / (positive + 2), 1 / (negative + 2))
    features = np.stack([odds, np.ones_like(odds)], 1)
    weights = np.array([1.0, 0.0])
    loss = _loss(weights, features, targets)
    for _ in range(_STEPS):
        p = _sigmoid(features @ weights)
        gradient = features.T @ (p - targets) + _RIDGE * weights
        curvature = (features.T * (p * (1 - p))) @ features + _RIDGE * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while size > 1e-6 and _loss(weights - size * step, features, targets) > loss:
            size /= 2
        weights = weights - size * step
        before, loss = loss, _loss(weights, features, targets)
        if before - loss < 1e-10:
            break
    if weights[0] < _LEAST_SCALE:  # no order to be found: the share of right answers for all
        share = float(targets.mean())
        return Calibration(_LEAST_SCALE, float(np.log(share / (1 - share))))
    return Calibration(float(weights[0]), float(weights[1]))


def gate(
    stated: Sequence[float], right: Sequence[bool], thresholds: Sequence[float]
) -> list[dict[str, Any]]:
    """What showing nothing below a threshold does: the server's `min_confidence`.

    shown: the share of answers that are. precision: of those shown, how many are right. recall: of
    the right ones, how many are shown.
    """
    x, y = np.asarray(stated, float), np.asarray(right, bool)
    rows: list[dict[str, Any]] = []
    for threshold in thresholds:
        passes = x >= threshold
        rows.append(
            {
                "min_confidence": threshold,
                "shown": asdict(proportion(passes.tolist())),
                "precision": asdict(proportion(y[passes].tolist())),
                "recall": asdict(proportion(passes[y].tolist())),
            }
        )
    return rows


def _sigmoid(values: Floats) -> Floats:
    return 1 / (1 + np.exp(-values))


def _loss(weights: Floats, features: Floats, targets: Floats) -> float:
    scores = features @ weights
    likelihood = np.logaddexp(0, scores) - targets * scores
    return float(likelihood.sum() + 0.5 * _RIDGE * (weights**2).sum())
