"""A program that Ctrl-C ends at any moment, with the exit code 130 and without a traceback.

`python -m engine.program MODULE ...` runs a module's `main`. Imports next to nothing, so that there
is hardly a moment before it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module

INTERRUPTED = 130


def interruptible(module: str, words: Sequence[str]) -> int:
    """Runs `main(words)` of a module; its exit code.

    Ctrl-C ends the process at once while modules are read and when all is done: an exception that
    is raised in an import, or in the interpreter's end, may be lost or be printed. Between the two
    `main` takes it by `take_interrupts`.
    """
    signal.signal(signal.SIGINT, _leave)
    try:
        return import_module(module).main(words)
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGINT, _leave)


def take_interrupts() -> None:
    """From here on Ctrl-C is a KeyboardInterrupt, whatever whoever started this does with it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(number: int, frame: object) -> None:
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    sys.exit(interruptible(sys.argv[1], sys.argv[2:]))
