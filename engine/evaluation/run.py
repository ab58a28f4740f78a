"""One-line holes in held-out Python: the denoiser against baselines, with error bars.

python -m engine.evaluation.run --count 400 --out results/holes.json

Three answer each hole: the denoiser as it is served; the same weights causally, from the prefix
alone; and the most frequent line of the very holes that are tested, the best that any constant
answer can do. An interrupted run goes on where it was: its log lies beside the result (.jsonl).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from engine.engine import InfillEngine
from engine.evaluation.answers import Answer, Answerer, Causal, Constant, Denoised
from engine.evaluation.holes import (
    KINDS,
    Cut,
    Kind,
    held_out_folders,
    most_frequent,
    population,
    read_sources,
)
from engine.evaluation.journal import Journal, Record
from engine.evaluation.metrics import (
    Estimate,
    compiles,
    edit_similarity,
    exact,
    mean,
    paired_difference,
    percentile,
    proportion,
    token_accuracy,
)
from engine.evaluation.setup import (
    add_flags,
    add_source,
    command,
    describe_machine,
    describe_model,
    load_engine,
    names,
    progress_bar,
    sampling_of,
    write_json,
)

SCORES = ("exact", "token_accuracy", "edit_similarity")
OURS, CAUSAL, CONSTANT = "denoiser", "causal", "constant"
ANSWERERS = (OURS, CAUSAL, CONSTANT)

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


def report(answers: Sequence[dict[str, Record]]) -> dict[str, Any]:
    """The result for one kind of hole. answers: for each hole, a record by answerer."""
    by_name = {name: [one[name] for one in answers] for name in ANSWERERS}
    return {
        "holes": len(answers),
        "answerers": {name: summarize(records) for name, records in by_name.items()},
        "differences": {
            f"{OURS} - {name}": compare(by_name[OURS], by_name[name]) for name in (CAUSAL, CONSTANT)
        },
    }


def table(kind: str, result: dict[str, Any]) -> Table:
    """The result for one kind of hole, for people."""
    shown = Table(title=f"{result['holes']} holes, kind: {kind}")
    columns = ("exact", "token_accuracy", "edit_similarity", "empty", "parses", "passes")
    for column in ("", *columns, "ms p50 / p95"):
        shown.add_column(column.replace("_", " "))
    for name, summary in result["answerers"].items():
        times = f"{summary['ms_p50']:.0f} / {summary['ms_p95']:.0f}"
        shown.add_row(name, *(str(Estimate(**summary[c])) for c in columns), times)
    for name, differences in result["differences"].items():
        cells = [differences[score] for score in SCORES]
        shown.add_row(name, *(f"{c['low']:+.3f} … {c['high']:+.3f}" for c in cells))
    return shown


def evaluate(
    engine: InfillEngine,
    cuts: Sequence[Cut],
    constant: str,
    journal: Journal,
    options: argparse.Namespace,
    console: Console,
) -> list[dict[str, Record]]:
    """Has every hole answered that the journal does not know yet."""
    answerers: dict[str, Answerer] = {
        OURS: Denoised(engine, sampling_of(options), options.seed),
        CAUSAL: Causal(engine),
        CONSTANT: Constant(constant),
    }
    hits = 0
    with progress_bar(console) as progress:
        task = progress.add_task("holes", total=len(cuts), note="")
        for number, cut in enumerate(cuts, start=1):
            if cut.key not in journal.records:
                record = {
                    name: judge(answerer(cut.prefix, cut.suffix), cut, engine.tokenizer.encode)
                    for name, answerer in answerers.items()
                }
                journal.add(cut.key, {"reference": cut.reference, **record})
            hits += journal.records[cut.key][OURS]["exact"]
            progress.update(task, advance=1, note=f"exact {hits / number:.3f}")
    return [journal.records[cut.key] for cut in cuts]


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Evaluates all kinds that were asked for; writes and returns the result."""
    folders: list[Path] = options.source or held_out_folders()
    sources = read_sources(folders)
    engine = load_engine(options)
    settings = {
        "model": describe_model(engine, options),
        "seed": options.seed,
        "sources": sorted(folder.name for folder in folders),
        "files": len(sources),
    }
    result: dict[str, Any] = {"settings": {**settings, "count": options.count}, "kinds": {}}
    with Journal(options.out.with_suffix(".jsonl"), settings) as journal:
        for kind in options.kinds:
            holes = population(sources, kind, options.seed)
            constant = most_frequent(holes)
            cuts = holes[: options.count]
            answers = evaluate(engine, cuts, constant, journal, options, console)
            result["kinds"][kind] = {"constant": constant, **report(answers)}
            console.print(table(kind, result["kinds"][kind]))
    result["machine"] = describe_machine()
    write_json(options.out, result)
    return result


def build_parser() -> argparse.ArgumentParser:
    """All flags."""
    parser = argparse.ArgumentParser(prog="engine.evaluation.run", description=__doc__)
    add = parser.add_argument
    add("--count", type=int, default=200, metavar="N", help="holes of each kind (default: 200)")
    add_source(parser, "a folder of held-out files")
    kinds: Callable[[str], tuple[str, ...]] = partial(names, allowed=KINDS)
    default: tuple[Kind, ...] = ("line",)
    add("--kinds", type=kinds, default=default, help=f"of {','.join(KINDS)} (default: line)")
    add_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command; 2 where it can't be done."""
    return command(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
