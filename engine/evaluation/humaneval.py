"""HumanEval-Infilling, single-line and random spans: does the filled program pass its tests?

diffgemma-lsp eval humaneval HumanEval-SingleLineInfilling.jsonl.gz --run-code \\
    --methods denoiser,causal --out results/humaneval.json

engine.evaluation.methods describes the methods; "reference" are the benchmark's own solutions,
which all have to pass where the tests are run properly. The benchmark
(github.com/openai/human-eval-infilling) is a file that the user brings.

Without --run-code nothing that the model wrote is run, and only text is compared. With it each
program runs in a child process behind the fences of engine.evaluation.sandbox; the result says
which. An interrupted run goes on where it was: its log lies beside the result (.jsonl).
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

from engine.errors import BadRequest
from engine.evaluation.answers import Answer, Answerer
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
    edit_similarity,
    exact,
    mean,
    paired_difference,
    percentile,
    proportion,
    share_of_gap,
)
from engine.evaluation.sandbox import Sandbox
from engine.evaluation.setup import (
    command,
    describe_machine,
    describe_model,
    load_engine,
    names,
    number,
    open_journal,
    progress_bar,
    share_of,
    write_result,
)

CHOICES = tuple(method for method in METHODS if method != CONSTANT)


@dataclass(frozen=True, slots=True)
class Problem:
    """One task. `test` defines check(candidate), which raises where `entry_point` is wrong."""

    task_id: str
    prompt: str
    suffix: str
    canonical_solution: str
    test: str
    entry_point: str

    @property
    def whole_line(self) -> bool:
        """Whether the hole is a whole line with its end, as the benchmark's name says."""
        return self.task_id.startswith("SingleLine")

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

    def __call__(self, prefix: str, suffix: str, reference: str = "") -> Answer:
        answer = self.answerer(prefix, "\n" + suffix, reference.removesuffix("\n"))
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
    answerer: Answerer,
    sandbox: Sandbox | None,
    journal: Journal,
    console: Console,
) -> list[Record]:
    """Answers and judges what the journal does not know yet."""
    records: list[Record] = []
    with progress_bar(console) as progress:
        task = progress.add_task(method, total=len(problems), note="")
        for problem in problems:
            key = f"{method} {problem.task_id}"
            if key not in journal.records:
                answer = answerer(problem.prompt, problem.suffix, problem.canonical_solution)
                journal.add(key, judge(problem, answer, sandbox))
            records.append(journal.records[key])
            passed = sum(record["outcome"] == "passed" for record in records)
            progress.update(task, advance=1, note=f"passed {passed}" if sandbox else "")
    return records


def ask_by_line(
    methods: dict[str, Answerer], problems: Sequence[Problem], whole_lines: bool
) -> dict[str, Answerer]:
    """The methods as they are asked: by line those that were told so, and causal decoding, which
    ends at a line's end and leaves it out."""
    if not all(problem.whole_line for problem in problems):
        return methods
    return {
        name: WholeLine(answerer) if whole_lines or name == CAUSAL else answerer
        for name, answerer in methods.items()
    }


def compare(records: dict[str, list[Record]]) -> dict[str, Any]:
    """How far the denoiser's programs are ahead of each other method's, on the same problems."""
    passed = {
        name: [float(record["outcome"] == "passed") for record in found]
        for name, found in records.items()
    }
    ours = passed.pop(OURS, None)
    if ours is None:
        return {}
    found = {f"{OURS} - {n}": asdict(paired_difference(ours, p)) for n, p in passed.items()}
    if {FIXED, TRUE} <= passed.keys():
        found["gap_closed_by_slack"] = asdict(share_of_gap(ours, passed[FIXED], passed[TRUE]))
    return found


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Evaluates all methods that were asked for; writes and returns the result."""
    every = read_problems(options.problems)
    problems = share_of(every[: options.limit], options)
    sandbox = Sandbox(options.timeout, options.memory) if options.run_code else None
    engine = load_engine(options)
    settings = {
        "benchmark": options.problems.name,
        "model": describe_model(engine, options),
        "seed": options.seed,
        "whole_lines": options.whole_lines,
        "isolation": sandbox.isolation if sandbox else "nothing was run",
        "timeout_s": options.timeout,
        "memory_mib": options.memory,
    }
    console.print(f"Programs: {settings['isolation']}", highlight=False)
    end = "\n" if options.whole_lines else ""
    length = options.fixed_length or common_length(
        engine, [(p.prompt, p.canonical_solution.removesuffix(end)) for p in every]
    )
    methods = Methods(engine, options).chosen(options.methods, length)
    with open_journal(options, settings) as journal:
        records = {
            name: answer_all(
                problems, journal_name(name, length), answerer, sandbox, journal, console
            )
            for name, answerer in ask_by_line(methods, problems, options.whole_lines).items()
        }
    result: dict[str, Any] = {
        "settings": settings,
        "problems": len(problems),
        "fixed_length": length,
        "methods": {method: summarize(found) for method, found in records.items()},
        "machine": describe_machine(),
    }
    if sandbox:
        result["pass_at_1"] = compare(records)
    console.print(table(result))
    write_result(options, result, console)
    return result


def own_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this evaluation alone."""
    add = parser.add_argument
    add("problems", type=Path, metavar="FILE.jsonl.gz", help="the benchmark")
    add("--run-code", action="store_true", help="run what the model wrote, to test it")
    add("--limit", type=number, metavar="N", help="the first N problems only")
    methods: Callable[[str], tuple[str, ...]] = partial(names, allowed=CHOICES)
    add("--methods", type=methods, default=(OURS,), help=f"of {','.join(CHOICES)}")
    add("--whole-lines", action="store_true", help="give the line's end to the suffix")
    add("--timeout", type=float, default=10.0, metavar="S", help="for each program (default: 10)")
    add("--memory", type=int, default=1024, metavar="MIB", help="for each (default: 1024)")
    add_fixed_length(parser)


main = command("humaneval", __doc__, run, own_flags)


if __name__ == "__main__":
    sys.exit(main())
