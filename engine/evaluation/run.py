"""Holes in held-out Python: the denoiser against baselines, with error bars.

diffgemma-lsp eval holes --count 400 --kinds line,block --out results/holes.json

Each hole is answered by the denoiser as it is served and by baselines on the same weights, which
engine.evaluation.methods describes; "constant" is the most frequent of the very holes that are
drawn from, the best that any constant answer can do. Where "fixed" and "true" are among them, the
result says how much of the gap between the two slack closes. An interrupted run goes on where it
was: its log lies beside the result (.jsonl).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from rich.console import Console
from rich.table import Table

from engine.evaluation.answers import Answer, Answerer
from engine.evaluation.holes import (
    Cut,
    most_frequent,
    population,
)
from engine.evaluation.journal import Journal, Record
from engine.evaluation.methods import (
    CAUSAL,
    CONSTANT,
    FIXED,
    METHODS,
    OURS,
    TRUE,
    Methods,
    add_fixed_length,
    common_length,
    journal_name,
)
from engine.evaluation.metrics import (
    Estimate,
    compiles,
    edit_similarity,
    exact,
    interval,
    mean,
    paired_difference,
    percentile,
    proportion,
    ratio,
    share_of_gap,
    token_accuracy,
)
from engine.evaluation.setup import (
    add_holes,
    command,
    describe_machine,
    describe_model,
    held_out,
    load_engine,
    names,
    open_journal,
    progress_bar,
    share_of,
    write_result,
)

SCORES = ("exact", "token_accuracy", "edit_similarity")

Encode = Callable[[str], list[int]]


def judge(answer: Answer, cut: Cut, encode: Encode) -> Record:
    """All that is to know of one answer. parses: None where the file did not compile before."""
    reference = cut.reference.rstrip()
    text = answer.text.rstrip()
    parses = None
    if compiles(cut.source.text):
        parses = exact(text, reference) or compiles(cut.prefix + answer.text + cut.suffix)
    return {
        **asdict(answer),
        "exact": exact(text, reference),
        "token_accuracy": token_accuracy(encode(text), encode(reference)),
        "edit_similarity": edit_similarity(text, reference),
        "empty": not text.strip(),
        "parses": parses,
        "tokens": len(encode(answer.text)),
    }


def summarize(records: Sequence[Record]) -> dict[str, Any]:
    """Means, errors and percentiles of one answerer's records."""
    times = [record["ms"] for record in records]
    return {
        "exact": asdict(proportion([record["exact"] for record in records])),
        "token_accuracy": asdict(mean([record["token_accuracy"] for record in records])),
        "edit_similarity": asdict(mean([record["edit_similarity"] for record in records])),
        "empty": asdict(proportion([record["empty"] for record in records])),
        "parses": asdict(proportion([r["parses"] for r in records if r["parses"] is not None])),
        "passes": asdict(mean([record["passes"] for record in records])),
        "forward_passes": asdict(mean([record["forward_passes"] for record in records])),
        "tokens_per_pass": asdict(
            ratio([r["tokens"] for r in records], [r["passes"] for r in records])
        ),
        "ms_p50": percentile(times, 0.5),
        "ms_p95": percentile(times, 0.95),
    }


def compare(records: Sequence[Record], others: Sequence[Record]) -> dict[str, Any]:
    """How far the first are ahead of the others on the same holes, by score.

    ahead: the 95% interval of the difference lies above 0.
    """
    result: dict[str, Any] = {}
    for score in SCORES:
        difference = paired_difference(
            [float(record[score]) for record in records], [float(other[score]) for other in others]
        )
        result[score] = {**asdict(difference), "ahead": difference.low > 0}
    return result


def gap_closed(by_name: Mapping[str, Sequence[Record]]) -> dict[str, Any]:
    """How much of what knowing the length is worth slack brings, by score: 1 is all of it.

    Nothing if the baselines of a fixed and of the true length are not there.
    """
    if not {OURS, FIXED, TRUE} <= by_name.keys():
        return {}

    def values(name: str, score: str) -> list[float]:
        return [float(record[score]) for record in by_name[name]]

    return {
        score: asdict(share_of_gap(values(OURS, score), values(FIXED, score), values(TRUE, score)))
        for score in SCORES
    }


def report(by_name: Mapping[str, Sequence[Record]]) -> dict[str, Any]:
    """The result for one kind of hole. by_name: for each method, its records of the same holes."""
    ours = by_name.get(OURS)
    others = {} if ours is None else {n: r for n, r in by_name.items() if n != OURS}
    return {
        "holes": len(next(iter(by_name.values()))),
        "methods": {name: summarize(records) for name, records in by_name.items()},
        "differences": {
            f"{OURS} - {name}": compare(ours or (), records) for name, records in others.items()
        },
        "gap_closed_by_slack": gap_closed(by_name),
    }


def table(kind: str, result: dict[str, Any]) -> Table:
    """The result for one kind of hole, for people."""
    shown = Table(title=f"{result['holes']} holes, kind: {kind}")
    columns = ("exact", "token_accuracy", "edit_similarity", "empty", "parses", "passes")
    columns += ("tokens_per_pass",)
    for column in ("", *columns, "ms p50 / p95"):
        shown.add_column(column.replace("_", " "))
    for name, summary in result["methods"].items():
        times = f"{summary['ms_p50']:.0f} / {summary['ms_p95']:.0f}"
        shown.add_row(name, *(str(Estimate(**summary[c])) for c in columns), times)
    for name, differences in result["differences"].items():
        cells = [differences[score] for score in SCORES]
        shown.add_row(name, *(interval(c["low"], c["high"], "+.3f") for c in cells))
    if result["gap_closed_by_slack"]:
        cells = [result["gap_closed_by_slack"][score] for score in SCORES]
        shown.add_row("slack closes", *(interval(c["low"], c["high"], ".2f") for c in cells))
    return shown


def evaluate(
    cuts: Sequence[Cut],
    methods: Mapping[str, Answerer],
    keys: Mapping[str, str],
    encode: Encode,
    journal: Journal,
    console: Console,
) -> dict[str, list[Record]]:
    """Has every hole answered in every way that the journal does not know yet.

    keys: what each method is called in the journal.
    """
    found: dict[str, list[Record]] = {name: [] for name in methods}
    with progress_bar(console) as progress:
        task = progress.add_task("holes", total=len(cuts), note="")
        for number, cut in enumerate(cuts, start=1):
            for name, answerer in methods.items():
                key = f"{keys[name]} {cut.key}"
                if key not in journal.records:
                    answer = answerer(cut.prefix, cut.suffix, cut.reference)
                    record = judge(answer, cut, encode)
                    journal.add(key, {"reference": cut.reference, **record})
                found[name].append(journal.records[key])
            rates = [f"{n} {sum(r['exact'] for r in found[n]) / number:.2f}" for n in found]
            progress.update(task, advance=1, note="exact: " + ", ".join(rates))
    return found


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Evaluates all kinds that were asked for; writes and returns the result."""
    sources, described = held_out(options)
    engine = load_engine(options)
    settings = {
        "model": describe_model(engine, options),
        "seed": options.seed,
        **described,
    }
    result: dict[str, Any] = {"settings": {**settings, "count": options.count}, "kinds": {}}
    methods = Methods(engine, options)
    with open_journal(options, settings) as journal:
        for kind in options.kinds:
            holes = population(sources, kind, options.seed)
            constant = most_frequent(holes)
            length = options.fixed_length or common_length(
                engine, [(cut.prefix, cut.reference) for cut in holes]
            )
            chosen = methods.chosen(options.methods, length, constant)
            keys = {name: journal_name(name, length) for name in chosen}
            cuts = share_of(holes[: options.count], options)
            encode = engine.tokenizer.encode
            found = evaluate(cuts, chosen, keys, encode, journal, console)
            own = {"constant": constant, "fixed_length": length}
            result["kinds"][kind] = {**own, **report(found)}
            console.print(table(kind, result["kinds"][kind]))
    result["machine"] = describe_machine()
    write_result(options, result, console)
    return result


def own_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this evaluation alone."""
    add = parser.add_argument
    add_holes(parser, 200, ("line",))
    methods: Callable[[str], tuple[str, ...]] = partial(names, allowed=METHODS)
    usual = (OURS, CAUSAL, CONSTANT)
    shown = ",".join(usual)
    add("--methods", type=methods, default=usual, help=f"of {','.join(METHODS)} (default: {shown})")
    add_fixed_length(parser)


main = command("holes", __doc__, run, own_flags)


if __name__ == "__main__":
    sys.exit(main())
