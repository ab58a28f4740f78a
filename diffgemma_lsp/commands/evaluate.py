"""`diffgemma-lsp eval WHAT`: how good a model is, measured on held-out code or a benchmark.

The engine's evaluations run in a process of their own, which is theirs alone: they load the model
themselves, and this side never loads torch.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from diffgemma_lsp.commands.child import run_program

if TYPE_CHECKING:
    from diffgemma_lsp.commands import Subparsers

EVALUATIONS = {
    "holes": ("engine.evaluation.run", "holes in held-out code, against baselines"),
    "humaneval": ("engine.evaluation.humaneval", "HumanEval-Infilling, with its tests"),
    "passes": ("engine.evaluation.passes", "quality against passes and against time"),
    "calibration": ("engine.evaluation.calibration", "whether its confidence is kept"),
    "neighbours": ("engine.evaluation.neighbours", "what pieces of other files are worth"),
    "sudoku": ("engine.evaluation.sudoku", "Sudoku, against one pass and causal decoding"),
}


def add_parser(subparsers: Subparsers) -> None:
    """Adds `eval` to the command line."""
    parser = subparsers.add_parser(
        "eval",
        help="measure how good a model is",
        description="Measures how good a model is. `diffgemma-lsp eval WHAT --help` has the flags.",
    )
    what = parser.add_subparsers(title="what", metavar="WHAT", required=True, dest="what")
    for name, (_, summary) in EVALUATIONS.items():
        # All flags, --help among them, are the evaluation's own.
        one = what.add_parser(name, help=summary, add_help=False, prefix_chars="\0")
        one.add_argument("flags", nargs=argparse.REMAINDER)
        one.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the evaluation in the same folder; its exit code is ours."""
    module, _ = EVALUATIONS[arguments.what]
    return run_program(module, arguments.flags)
