"""The subcommands of `diffgemma-lsp`, one file each, and what they share.

A subcommand module has `add_parser(subparsers)`, which also says what to run.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # What argparse's add_subparsers() returns has no public name.
    Subparsers = argparse._SubParsersAction[Any]  # pyright: ignore[reportPrivateUsage]


class UsageError(Exception):
    """What the user asked for can't be done as asked; the message is one line that says why."""
