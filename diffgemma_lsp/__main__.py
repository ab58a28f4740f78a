"""The program: `diffgemma-lsp`, and `python -m diffgemma_lsp`."""

from __future__ import annotations

import sys

from engine.program import interruptible


def run() -> int:
    """Runs the command line and returns its exit code."""
    return interruptible("diffgemma_lsp.cli", sys.argv[1:])


if __name__ == "__main__":
    sys.exit(run())
