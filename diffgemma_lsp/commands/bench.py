"""`diffgemma-lsp bench`: how fast this machine would run the large models.

A program of the engine does it, in a process of its own: this side never loads torch.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from diffgemma_lsp.commands.child import run_program

if TYPE_CHECKING:
    from diffgemma_lsp.commands import Subparsers

PROGRAM = "engine.benchmark.run"


def add_parser(subparsers: Subparsers) -> None:
    """Adds `bench` to the command line."""
    # All flags, --help among them, are the program's own.
    parser = subparsers.add_parser(
        "bench",
        help="measure how fast this machine runs the large models, without having one",
        add_help=False,
        prefix_chars="\0",
    )
    parser.add_argument("flags", nargs=argparse.REMAINDER)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the benchmark; its exit code is ours."""
    return run_program(PROGRAM, arguments.flags)
