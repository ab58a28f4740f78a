"""The command line: which subcommand runs, and what its failures look like.

Exit codes: 0 done; 1 the subcommand's own "no" (`fill` has nothing to give, `doctor` found
something, `setup` has not written all, no engine is running); 2 bad input or an engine that can't
do it, with one line on stderr; 130 after Ctrl-C; 141 when whoever read the output has gone.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

from diffgemma_lsp.commands import UsageError
from engine.errors import EngineError, complaint
from engine.paths import NO_WINDOWS, package_version
from engine.program import INTERRUPTED, take_interrupts

# What LSP has clients say to a server on its command line.
_SERVE = re.compile(r"(?:(?:--stdio|--clientProcessId[= ](?P<client>\d{1,18}))(?: |\Z))*")

BROKEN_PIPE = 141


class _Parser(argparse.ArgumentParser):
    """Reports what is wrong in one line; the usage is for --help."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, complaint(message) + "\n")


def build_parser() -> argparse.ArgumentParser:
    """All flags and subcommands."""
    # Imported here: they bring an HTTP client and more, which a server has no time for when it
    # starts.
    from diffgemma_lsp.commands import (
        bench,
        demo,
        doctor,
        engine,
        evaluate,
        fill,
        models,
        pull,
        serve,
        setup,
        stats,
        train,
    )

    parser = _Parser(
        prog="diffgemma-lsp",
        description="A language server that fills the middle with a diffusion language model. "
        "Without a subcommand, or with --stdio, it speaks LSP on standard input and output.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {package_version()}")
    subparsers = parser.add_subparsers(
        title="subcommands",
        metavar="COMMAND",
        required=True,
        dest="subcommand",
        parser_class=_Parser,
    )
    commands = (fill, demo, doctor, engine, evaluate, models, pull, serve, setup, stats, train)
    for command in (*commands, bench):
        command.add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    if sys.platform == "win32":
        print(complaint(NO_WINDOWS), file=sys.stderr)
        return 2
    words = sys.argv[1:] if argv is None else list(argv)
    if (served := _SERVE.fullmatch(" ".join(words))) is not None:
        return _serve(int(served["client"]) if served["client"] else None)
    arguments = build_parser().parse_args(words)
    take_interrupts()
    try:
        code = arguments.run(arguments)
        sys.stdout.flush()
        return code
    except (UsageError, EngineError) as error:
        print(complaint(error), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The interpreter flushes stdout once more on its way out; let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE


def _serve(client: int | None) -> int:
    # Imported here: the subcommands need no language server.
    from diffgemma_lsp.server import run_stdio

    if sys.stdin.isatty():
        said = "waiting for an editor on standard input; --help lists the commands, Ctrl-C ends it"
        print(complaint(said), file=sys.stderr)
    take_interrupts()
    return run_stdio(client)
