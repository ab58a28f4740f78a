"""The ways to fill a hole that evaluations hold against each other, by name.

denoiser    the model as it is served
causal      the same weights token by token, from the prefix alone, told that it is one line
one-pass    the denoiser with a single pass: what refinement is worth
fixed       the denoiser where every hole has the same length: what slack is worth
true        the denoiser that is told the length: what slack could be worth at most
stock       transformers' `generate` with the suffix clamped: what the engine's loop is worth
constant    the most frequent answer of all, where there is one
reference   what was there
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import cached_property
from statistics import median_low

from engine.engine import InfillEngine
from engine.evaluation.answers import (
    Answerer,
    Causal,
    Constant,
    Denoised,
    FewPasses,
    FixedLength,
    Reference,
    TrueLength,
    true_length,
)
from engine.evaluation.setup import model_of, sampling_of
from engine.evaluation.stock import Stock
from engine.weights.locate import locate

OURS, CAUSAL, ONE_PASS, FIXED, TRUE, STOCK, CONSTANT, REFERENCE = (
    *("denoiser", "causal", "one-pass", "fixed", "true", "stock", "constant", "reference"),
)

METHODS = (OURS, CAUSAL, ONE_PASS, FIXED, TRUE, STOCK, CONSTANT, REFERENCE)


def journal_name(method: str, length: int) -> str:
    """What a log calls a method: with the length that "fixed" has, since that may be another."""
    return f"{method}={length}" if method == FIXED else method


def common_length(engine: InfillEngine, holes: Sequence[tuple[str, str]]) -> int:
    """The median length, in tokens, of holes given as (prefix, reference).

    Taken from the very holes that are tested: better than what anybody could know beforehand.
    Raises ValueError if there are none.
    """
    if not holes:
        raise ValueError("there are no holes to measure")
    return median_low(true_length(engine.tokenizer, *hole) for hole in holes)


def add_fixed_length(parser: argparse.ArgumentParser) -> None:
    """The flag for the length of "fixed"."""
    parser.add_argument(
        "--fixed-length",
        type=int,
        metavar="N",
        help='tokens of a hole for the method "fixed" (default: the median of all holes, which '
        "nobody could know; the slots that the engine gives a hole say what slack alone is worth)",
    )


class Methods:
    """Makes answerers for one engine. What takes long to load is loaded once, when it is needed."""

    def __init__(self, engine: InfillEngine, options: argparse.Namespace) -> None:
        self.engine, self.model, self.seed = engine, model_of(options), options.seed
        self.params = sampling_of(options)

    @cached_property
    def stock(self) -> Stock:
        """transformers' own class, with the same weights."""
        return Stock.load(locate(self.model), self.engine, self.params, self.seed)

    def chosen(self, names: Sequence[str], length: int, constant: str = "") -> dict[str, Answerer]:
        """An answerer for each name. length: of "fixed", in tokens. constant: that answer."""
        engine, params, seed = self.engine, self.params, self.seed
        makers: dict[str, Callable[[], Answerer]] = {
            OURS: lambda: Denoised(engine, params, seed),
            CAUSAL: lambda: Causal(engine),
            ONE_PASS: lambda: FewPasses(engine, params, seed),
            FIXED: lambda: FixedLength(engine, params, seed, length),
            TRUE: lambda: TrueLength(engine, params, seed),
            STOCK: lambda: self.stock,
            CONSTANT: lambda: Constant(constant),
            REFERENCE: Reference,
        }
        return {name: makers[name]() for name in names}
