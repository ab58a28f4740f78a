"""Programs of the engine that a subcommand runs, each in its own process on the same terminal."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence

from diffgemma_lsp.engine_process import environment


def run_program(module: str, words: Sequence[str]) -> int:
    """Runs a module of the engine to its end and returns its exit code.

    Ctrl-C is for the program, which saves what it has.
    """
    # Not SIG_IGN: the program would begin with that, and hear of no Ctrl-C until torch is read.
    before = signal.signal(signal.SIGINT, _the_program_has_it_too)
    try:
        # -P: a folder named `engine` in the working directory is not ours.
        command = [sys.executable, "-P", "-m", "engine.program", module, *words]
        return subprocess.run(command, env=environment(), check=False).returncode
    finally:
        signal.signal(signal.SIGINT, before)


def ask_program(module: str) -> str:
    """What a module of the engine prints; empty if it fails."""
    command = [sys.executable, "-P", "-m", module]
    done = subprocess.run(
        command, env=environment(), check=False, capture_output=True, encoding="utf-8"
    )
    return done.stdout if done.returncode == 0 else ""


def _the_program_has_it_too(number: int, frame: object) -> None:
    """Goes on waiting."""
