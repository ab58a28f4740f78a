"""HumanEval-Infilling, single-line and random spans: does the filled program pass its tests?

python -m engine.evaluation.humaneval HumanEval-SingleLineInfilling.jsonl.gz --run-code \\
    --out results/humaneval.json

The benchmark (github.com/openai/human-eval-infilling) is a file that the user brings. Without
--run-code nothing that the model wrote is run, and only text is compared. With it each program runs
in a child process behind the fences of engine.evaluation.sandbox; the result says which. An
interrupted run goes on where it was: its log lies beside the result (.jsonl).
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from engine.engine import InfillEngine
from engine.errors import BadRequest
from engine.evaluation.answers import Answer, Answerer, Causal, Constant, Denoised
from engine.evaluation.journal import Journal, Record
from engine.evaluation.metrics import (
    Estimate,
    edit_similarity,
    exact,
    mean,
    paired_difference,
    percentile,
    proportion,
)
from engine.evaluation.sandbox import Sandbox
from engine.evaluation.setup import (
    add_flags,
    command,
    describe_machine,
    describe_model,
    load_engine,
    names,
    progress_bar,
    sampling_of,
    write_json,
)

METHODS = ("denoiser", "causal", "reference")
"""Who fills: the model as served, the same weights causally, or the benchmark's own solutions,
which all have to pass where the tests are run properly."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One task. `test` defines check(candidate), which raises where `entry_point` is wrong."""

    task_id: str
    prompt: str
    suffix: str
    canonical_solution: str
    test: str
    entry_point: str

    def program(self, completion: str) -> str:
        """The filled program with its tests."""
        code = self.prompt + completion + self.suffix
        return f"{code}\n{self.test}\ncheck({self.entry_point})\n"


def read_problems(path: Path) -> list[Problem]:
    """The tasks of a .jsonl or .jsonl.gz file. Raises OSError or BadRequest."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as lines:
            return [Problem(**json.loads(line)) for line in lines if line.strip()]
    except (ValueError, TypeError) as error:
        raise BadRequest(f"{path} is not HumanEval-Infilling: {error}") from error


class WholeLine:
    """An answerer for holes that are whole lines, asked for what stands before the line's end.

    The end of the line joins the suffix, and is put back behind the answer.
    """

    def __init__(self, answerer: Answerer) -> None:
        self.answerer = answerer

    def __call__(self, prefix: str, suffix: str) -> Answer:
        answer = self.answerer(prefix, "\n" + suffix)
        return replace(answer, text=answer.text + "\n")


def judge(problem: Problem, answer: Answer, sandbox: Sandbox | None) -> Record:
    """All that is to know of one answer. outcome: None where nothing is run."""
    result = None if sandbox is None else sandbox.run(problem.program(answer.text))
    reference = problem.canonical_solution
    return {
        **asdict(answer),
        "exact": exact(answer.text, reference),
        "edit_similarity": edit_similarity(answer.text.rstrip(), reference.rstrip()),
        "empty": not answer.text.strip(),
        "outcome": result and result.outcome,
        "error": result and result.error,
    }


def summarize(records: Sequence[Record]) -> dict[str, Any]:
    """Rates, means and percentiles of one method's records."""
    times = [record["ms"] for record in records]
    ran = [record["outcome"] for record in records if record["outcome"] is not None]
    return {
        "pass_at_1": asdict(proportion([outcome == "passed" for outcome in ran])),
        "timeouts": ran.count("timeout"),
        "exact": asdict(proportion([record["exact"] for record in records])),
        "edit_similarity": asdict(mean([record["edit_similarity"] for record in records])),
        "empty": asdict(proportion([record["empty"] for record in records])),
        "passes": asdict(mean([record["passes"] for record in records])),
        "ms_p50": percentile(times, 0.5),
        "ms_p95": percentile(times, 0.95),
    }


def table(result: dict[str, Any]) -> Table:
    """The result for people."""
    shown = Table(title=f"HumanEval-Infilling, {result['problems']} problems")
    columns = ("pass_at_1", "exact", "edit_similarity", "empty", "passes")
    for column in ("", *columns, "ms p50 / p95"):
        shown.add_column(column.replace("_", " "))
    for name, summary in result["methods"].items():
        times = f"{summary['ms_p50']:.0f} / {summary['ms_p95']:.0f}"
        shown.add_row(name, *(str(Estimate(**summary[c])) for c in columns), times)
    return shown


def answer_all(
    problems: Sequence[Problem],
    method: str,
    answerer: Answerer | None,
    sandbox: Sandbox | None,
    journal: Journal,
    console: Console,
) -> list[Record]:
    """Answers and judges what the journal does not know yet. No answerer: the solutions."""
    records: list[Record] = []
    with progress_bar(console) as progress:
        task = progress.add_task(method, total=len(problems), note="")
        for problem in problems:
            key = f"{method} {problem.task_id}"
            if key not in journal.records:
                answer = (answerer or Constant(problem.canonical_solution))(
                    problem.prompt, problem.suffix
                )
                journal.add(key, judge(problem, answer, sandbox))
            records.append(journal.records[key])
            passed = sum(record["outcome"] == "passed" for record in records)
            progress.update(task, advance=1, note=f"passed {passed}" if sandbox else "")
    return records


def answerers(engine: InfillEngine, options: argparse.Namespace) -> dict[str, Answerer | None]:
    """The methods that were asked for."""
    # Causal decoding ends at the end of the line and leaves it out: it is always asked by line.
    ours: Answerer = Denoised(engine, sampling_of(options), options.seed)
    known: dict[str, Answerer | None] = {
        "denoiser": WholeLine(ours) if options.whole_lines else ours,
        "causal": WholeLine(Causal(engine)),
        "reference": None,
    }
    return {method: known[method] for method in options.methods}


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Evaluates all methods that were asked for; writes and returns the result."""
    problems = read_problems(options.problems)[: options.limit]
    sandbox = Sandbox(options.timeout) if options.run_code else None
    engine = load_engine(options)
    settings = {
        "benchmark": options.problems.name,
        "model": describe_model(engine, options),
        "seed": options.seed,
        "whole_lines": options.whole_lines,
        "isolation": sandbox.isolation if sandbox else "nothing was run",
        "timeout_s": options.timeout,
    }
    console.print(f"Programs: {settings['isolation']}", highlight=False)
    with Journal(options.out.with_suffix(".jsonl"), settings) as journal:
        records = {
            method: answer_all(problems, method, answerer, sandbox, journal, console)
            for method, answerer in answerers(engine, options).items()
        }
    result: dict[str, Any] = {
        "settings": settings,
        "problems": len(problems),
        "methods": {method: summarize(found) for method, found in records.items()},
        "machine": describe_machine(),
    }
    if sandbox and {"denoiser", "causal"} <= records.keys():
        ours, theirs = (
            [float(record["outcome"] == "passed") for record in records[name]]
            for name in ("denoiser", "causal")
        )
        result["denoiser - causal"] = asdict(paired_difference(ours, theirs))
    console.print(table(result))
    write_json(options.out, result)
    return result


def build_parser() -> argparse.ArgumentParser:
    """All flags."""
    parser = argparse.ArgumentParser(prog="engine.evaluation.humaneval", description=__doc__)
    add = parser.add_argument
    add("problems", type=Path, metavar="FILE.jsonl.gz", help="the benchmark")
    add("--run-code", action="store_true", help="run what the model wrote, to test it")
    add("--limit", type=int, metavar="N", help="the first N problems only")
    methods: Callable[[str], tuple[str, ...]] = partial(names, allowed=METHODS)
    add("--methods", type=methods, default=("denoiser",), help=f"of {','.join(METHODS)}")
    add("--whole-lines", action="store_true", help="give the line's end to the suffix")
    add("--timeout", type=float, default=10.0, metavar="S", help="for each program (default: 10)")
    add_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command; 2 where it can't be done."""
    return command(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
