"""`diffgemma-lsp stats`: what suggestions were worth, by language and by confidence."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable
from datetime import date, timedelta
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from diffgemma_lsp.commands import UsageError
from diffgemma_lsp.stats.counts import Counts, Group, read, stats_file, together

if TYPE_CHECKING:
    from diffgemma_lsp.commands import Subparsers

_DAYS = 30


def add_parser(subparsers: Subparsers) -> None:
    """Adds `stats` to the command line."""
    parser = subparsers.add_parser(
        "stats",
        help="what was shown, accepted and kept of the suggestions",
        description="Prints how many suggestions editors showed, how many of them were accepted, "
        "at least in part, and how many of those still stood there after half a minute and after "
        "five. It is counted on this machine, in one file without text or paths; the setting "
        "stats turns it off.",
    )
    parser.add_argument(
        "--days", type=_whole, default=_DAYS, metavar="N", help=f"of the last N days ({_DAYS})"
    )
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints the numbers; 1 if there are none."""
    path = stats_file()
    try:
        known = read(path)
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror or error}") from error
    first = (date.today() - timedelta(days=arguments.days - 1)).isoformat()
    counts = {group: numbers for group, numbers in known.items() if group.day >= first}
    if arguments.json:
        rows = [{**group._asdict(), **numbers} for group, numbers in sorted(counts.items())]
        print(json.dumps({"file": str(path), "since": first, "counts": rows}, indent=2))
        return 0 if counts else 1
    console = Console(highlight=False)
    if not counts:
        console.print(f"No suggestion was shown since {first}.", markup=False)
        return 1
    console.print(f"Since {first}", markup=False)
    console.print(_table("language", counts, lambda group: group.language))
    console.print(_table("confidence", counts, lambda group: _band(group.confidence)))
    return 0


def _table(title: str, counts: Counts, key: Callable[[Group], str]) -> Table:
    table = Table(title, box=None, pad_edge=False)
    for heading in ("shown", "accepted", "whole", "characters", "kept 30 s", "kept 5 min"):
        table.add_column(heading, justify="right")
    rows = sorted({key(group) for group in counts})
    for row in rows:
        table.add_row(row, *_cells(together(i for i in counts.items() if key(i[0]) == row)))
    if len(rows) > 1:
        table.add_row("all", *_cells(together(counts.items())))
    return table


def _cells(numbers: Counter[str]) -> list[str]:
    return [
        f"{numbers['shown']}",
        f"{numbers['accepted']} {_share(numbers['accepted'], numbers['shown'])}",
        f"{numbers['accepted_whole']}",
        f"{numbers['characters']}",
        _share(numbers["kept_30s"], numbers["seen_after_30s"]),
        _share(numbers["kept_5min"], numbers["seen_after_5min"]),
    ]


def _share(part: int, whole: int) -> str:
    return f"{part / whole:4.0%}" if whole else "-"


def _band(confidence: str) -> str:
    return f"{float(confidence):.0%} and more" if confidence else "not measured"


def _whole(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if not 0 < number < 100_000:
        raise argparse.ArgumentTypeError(f"{text} is not a number of days")
    return number
