"""How far something has come, for people: a bar on a terminal, lines in a log."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)


@contextlib.contextmanager
def bar(
    console: Console, title: str, total: int, done: int = 0, *, bytes_too: bool = False
) -> Generator[Callable[[int], None]]:
    """What to tell of progress: a bar on a terminal, elsewhere a line at each quarter."""
    if not console.is_terminal:
        yield _Lines(console, title, total, done)
        return
    more = (DownloadColumn(), TransferSpeedColumn()) if bytes_too else ()
    columns = (TextColumn("  {task.description:10}"), BarColumn(), *more, TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=total, completed=done)
        yield lambda now: progress.update(task, completed=now)


class _Lines:
    """Progress in whole lines, for logs."""

    def __init__(self, console: Console, title: str, total: int, done: int) -> None:
        self._console, self._title, self._total = console, title, total
        self._told = 4 * done // total

    def __call__(self, done: int) -> None:
        quarter = 4 * done // self._total
        if quarter > self._told:
            self._told = quarter
            self._console.print(f"  {self._title}: {25 * quarter} %", markup=False)
