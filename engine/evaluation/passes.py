"""Does refinement pay? Quality against the number of passes and against time, as pictures.

diffgemma-lsp eval passes --kinds line,block --count 60 --out results/passes.json

Every hole is answered with each number of passes in turn, so that its prefix is encoded once, and
once as the model is served ("shipped": its own number of passes, and a hole that fills up slides
on). Written beside the JSON: FILE-passes.svg, FILE-time.svg. Error bars are one standard error;
times are those of denoising alone, on the machine that the result names, and mean little where it
was busy. Tokens per pass are those of the answers, counted anew, over all passes. An interrupted
run goes on where it was: its log lies beside the result (.jsonl).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

from rich.console import Console
from rich.table import Table

from engine.charts import Chart, Line, Point
from engine.engine import InfillEngine
from engine.evaluation.answers import Answerer, Denoised, FewPasses
from engine.evaluation.holes import (
    drawn,
)
from engine.evaluation.journal import Record
from engine.evaluation.metrics import Estimate, mean, paired_difference
from engine.evaluation.run import evaluate, summarize
from engine.evaluation.setup import (
    add_holes,
    command,
    describe_machine,
    describe_model,
    held_out,
    load_engine,
    open_journal,
    sampling_of,
    share_of,
    write_result,
)

SHIPPED = "shipped"
SCORES = ("edit_similarity", "token_accuracy", "exact")
BUDGETS = (1, 2, 4, 8, 16, 24)


def arms(
    engine: InfillEngine, options: argparse.Namespace, budgets: Sequence[int]
) -> dict[str, Answerer]:
    """An answerer for each number of passes, and the shipped one."""
    params, seed = sampling_of(options), options.seed
    few = {str(n): FewPasses(engine, params, seed, n) for n in budgets}
    return {**few, SHIPPED: Denoised(engine, params, seed)}


def report(by_arm: Mapping[str, Sequence[Record]]) -> dict[str, Any]:
    """The result of one kind. steps: what each larger budget adds to the one before it.

    falls: the steps at which quality drops by more than chance would explain (95%), by score.
    """
    budgets = [arm for arm in by_arm if arm != SHIPPED]
    steps: dict[str, dict[str, Any]] = {}
    for few, more in pairwise(budgets):
        steps[f"{few} -> {more}"] = {
            score: asdict(
                paired_difference(
                    [float(r[score]) for r in by_arm[more]], [float(r[score]) for r in by_arm[few]]
                )
            )
            for score in SCORES
        }
    return {
        "holes": len(by_arm[SHIPPED]),
        "arms": {
            arm: {
                **summarize(records),
                "denoise_ms": asdict(mean([record["denoise_ms"] for record in records])),
            }
            for arm, records in by_arm.items()
        },
        "steps": steps,
        "falls": {
            score: [step for step, found in steps.items() if found[score]["high"] < 0]
            for score in SCORES
        },
    }


def pictures(kinds: Mapping[str, dict[str, Any]], score: str) -> dict[str, Chart]:
    """The charts by the end of their file's name."""
    name = score.replace("_", " ")
    by_passes: list[Line] = []
    by_time: list[Line] = []
    for kind, result in kinds.items():
        found = {arm: one for arm, one in result["arms"].items() if arm != SHIPPED}
        by_passes.append(Line(kind, [_point(int(n), one[score]) for n, one in found.items()]))
        times = [(one["denoise_ms"]["value"], one[score]) for one in found.values()]
        by_time.append(Line(kind, [_point(ms, one) for ms, one in times]))
    budgets = [point.x for point in by_passes[0].points]
    return {
        "passes": Chart(
            "What refinement is worth", "passes at most", name, by_passes, True, budgets
        ),
        "time": Chart("Quality against time", "ms of denoising", name, by_time, True),
    }


def _point(x: float, estimate: dict[str, float]) -> Point:
    value, error = estimate["value"], estimate["error"]
    return Point(x, value, value - error, value + error)


def table(kind: str, result: dict[str, Any]) -> Table:
    """The result of one kind, for people."""
    columns = (*SCORES, "parses", "passes", "tokens_per_pass", "denoise_ms")
    shown = Table(title=f"{result['holes']} holes, kind: {kind}")
    for column in ("passes at most", *columns):
        shown.add_column(column.replace("_", " "))
    for arm, found in result["arms"].items():
        shown.add_row(arm, *(str(Estimate(**found[column])) for column in columns))
    return shown


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Evaluates, draws, writes and returns the result."""
    sources, described = held_out(options)
    engine = load_engine(options)
    settings = {
        "model": describe_model(engine, options),
        "seed": options.seed,
        **described,
    }
    answerers = arms(engine, options, options.passes)
    kinds: dict[str, Any] = {}
    with open_journal(options, settings) as journal:
        for kind in options.kinds:
            cuts = share_of(drawn(sources, kind, options.seed, options.count), options)
            keys = {arm: arm for arm in answerers}
            found = evaluate(cuts, answerers, keys, engine.tokenizer.encode, journal, console)
            kinds[kind] = report(found)
            console.print(table(kind, kinds[kind]))
    result = {
        "settings": {**settings, "count": options.count, "passes": options.passes},
        "kinds": kinds,
        "machine": describe_machine(),
    }
    write_result(options, result, console, pictures(kinds, options.score))
    return result


def _budgets(text: str) -> tuple[int, ...]:
    found = [int(word) if word.isascii() and word.isdigit() else 0 for word in text.split(",")]
    if min(found) < 1:
        raise argparse.ArgumentTypeError(f"expected numbers of at least 1 and commas, not {text!r}")
    return tuple(sorted(set(found)))


def own_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this evaluation alone."""
    add = parser.add_argument
    add_holes(parser, 60, ("line", "block"))
    add("--passes", type=_budgets, default=BUDGETS, help="numbers (default: 1,2,4,8,16,24)")
    add("--score", choices=SCORES, default=SCORES[0], help="of the pictures (default: %(default)s)")


main = command("passes", __doc__, run, own_flags)


if __name__ == "__main__":
    sys.exit(main())
