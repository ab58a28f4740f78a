"""What an answer is worth, and how sure that is. Pure functions."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_Z95 = 1.959964
"""A normal variable lies within so many standard deviations of its mean with probability 0.95."""

_RESAMPLES = 4000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its standard error and 95% interval, from n observations."""

    value: float
    error: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        """The mean and its error, as far as there are any."""
        if math.isnan(self.value):
            return "–"
        return f"{self.value:.3f}" + ("" if math.isnan(self.error) else f"±{self.error:.3f}")


def interval(low: float, high: float, form: str = ".3f") -> str:
    """An interval for people, its ends in a format; a dash if there is none."""
    return "–" if math.isnan(low) else f"{low:{form}} … {high:{form}}"


def exact(answer: str, reference: str) -> bool:
    """Whether they are the same but for white space at their ends."""
    return answer.rstrip() == reference.rstrip()


def token_accuracy(answer: Sequence[int], reference: Sequence[int]) -> float:
    """The share of the reference's tokens that the answer has at the same place, from 0 to 1.

    Places count from the start: a token too many makes all that follows wrong.
    """
    if not reference:
        return float(not answer)
    same = sum(a == b for a, b in zip(answer, reference, strict=False))
    return same / len(reference)


def edit_similarity(answer: str, reference: str) -> float:
    """1 - Levenshtein distance / length of the longer text, in characters: 1 if they are equal."""
    longest = max(len(answer), len(reference))
    return 1.0 if longest == 0 else 1.0 - _distance(answer, reference) / longest


def _distance(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, char in enumerate(a, start=1):
        corner, row[0] = row[0], i
        for j, other in enumerate(b, start=1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (char != other))
    return row[-1]


@functools.lru_cache(maxsize=512)
def compiles(text: str) -> bool:
    """Whether this is a whole Python file; it is not run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            compile(text, "<file>", "exec", dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
            return False
    return True


def proportion(hits: Sequence[bool]) -> Estimate:
    """How often it was so, with Wilson's interval. NaN where there is nothing to count."""
    n = len(hits)
    if n == 0:
        return _nothing()
    p = sum(hits) / n
    scale = 1.0 / (1.0 + _Z95**2 / n)
    centre = (p + _Z95**2 / (2 * n)) * scale
    half = _Z95 * math.sqrt(p * (1 - p) / n + _Z95**2 / (4 * n * n)) * scale
    error = math.sqrt(p * (1 - p) / n)
    # At 0 and at 1 the interval ends there; rounding would put it a hair beside, or outside.
    low, high = max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))
    return Estimate(p, error, low, high, n)


def mean(values: Sequence[float]) -> Estimate:
    """The mean with a normal interval. NaN where there is nothing to count."""
    n = len(values)
    if n == 0:
        return _nothing()
    data = np.asarray(values, float)
    middle = float(data.mean())
    error = float(data.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    return Estimate(middle, error, middle - _Z95 * error, middle + _Z95 * error, n)


def paired_difference(a: Sequence[float], b: Sequence[float], seed: int = 0) -> Estimate:
    """The mean of a - b, observed on the same holes, with a bootstrap interval over the holes.

    Raises ValueError if they differ in length.
    """
    if len(a) != len(b):
        raise ValueError("pairs need two sides")
    differences = np.subtract(a, b, dtype=float)
    n = len(differences)
    if n == 0:
        return _nothing()
    rng = np.random.default_rng(seed)
    means = np.array([rng.choice(differences, n).mean() for _ in range(_RESAMPLES)])
    low, high = np.quantile(means, [0.025, 0.975]).tolist()
    return Estimate(float(differences.mean()), float(means.std()), low, high, n)


def ratio(tops: Sequence[float], bottoms: Sequence[float]) -> Estimate:
    """Sum of the tops / sum of the bottoms, with the error of pairs (delta method).

    NaN where the bottoms add up to nothing.
    """
    n, total = len(tops), float(sum(bottoms))
    if total == 0:
        return _nothing()
    value = sum(tops) / total
    off = np.subtract(tops, np.multiply(value, bottoms), dtype=float)
    error = math.sqrt(n * float(off.var(ddof=1))) / total if n > 1 else math.nan
    return Estimate(value, error, value - _Z95 * error, value + _Z95 * error, n)


def share_of_gap(
    ours: Sequence[float], low: Sequence[float], high: Sequence[float], seed: int = 0
) -> Estimate:
    """(ours - low) / (high - low) of the means: 1 if ours is as good as high, above 1 if better.

    The interval is a bootstrap's over the holes; the error is taken from its width, since the draws
    with the smallest gaps would rule their spread. Where high is not ahead of low the value says
    nothing, and the interval shows it. NaN where there is no gap. Raises ValueError if the sides
    differ in length.
    """
    n = len(ours)
    if not n == len(low) == len(high):
        raise ValueError("all sides need the same holes")
    if sum(high) == sum(low):
        return _nothing()
    data = np.array([ours, low, high], float)
    rng = np.random.default_rng(seed)
    drawn = [data[:, rng.integers(0, n, n)].mean(1) for _ in range(_RESAMPLES)]
    means = np.array([row for row in drawn if row[2] != row[1]])
    shares = (means[:, 0] - means[:, 1]) / (means[:, 2] - means[:, 1])
    lowest, highest = np.quantile(shares, [0.025, 0.975]).tolist()
    value = float((data[0] - data[1]).sum() / (data[2] - data[1]).sum())
    return Estimate(value, (highest - lowest) / (2 * _Z95), lowest, highest, n)


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the values lie. NaN without values."""
    return float(np.quantile(values, share)) if values else math.nan


def _nothing() -> Estimate:
    return Estimate(math.nan, math.nan, math.nan, math.nan, 0)
