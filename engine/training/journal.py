"""What a run writes down: a line of JSON a step, from which its table and its curves are made."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self, TextIO

from rich.table import Table

from engine.charts import Chart, Line, Point
from engine.training.checkpoint import saving, write_text

Record = dict[str, Any]

SMOOTHED_OVER = 20
"""Steps over which the curve's line is averaged."""

LOSSES = {"causal": "next token", "fill": "hole slot", "frontier": "next in a hole"}


class Journal:
    """`log.jsonl` of a run's folder. Opened at a step, it forgets what a killed run did later.

    losses: what is drawn and told of, by the keys of a record, with the names that people read.
    """

    def __init__(self, out: Path, steps: int, losses: Mapping[str, str] = LOSSES) -> None:
        self._losses = losses
        self.path = out / "log.jsonl"
        self.records = [r for r in read_records(self.path) if r["step"] <= steps]
        self._file: TextIO | None = None

    def __enter__(self) -> Self:
        write_text("".join(json.dumps(r) + "\n" for r in self.records), self.path)
        self._file = self.path.open("a", encoding="utf-8")
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, record: Record) -> None:
        """Writes a record down at once. Raises TrainingError if there is no room for it."""
        assert self._file is not None
        self.records.append(record)
        with saving(self.path.parent):
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()

    def curve(self) -> str:
        """All losses over the steps, as SVG: each step's, their running average, and held back."""
        lines: list[Line] = []
        for key, name in self._losses.items():
            raw = [(r["step"], r[key]) for r in self.records if key in r]
            averaged = zip([x for x, _ in raw], smoothed([y for _, y in raw]), strict=True)
            held_back = [
                (r["step"], r[f"valid_{key}"]) for r in self.records if f"valid_{key}" in r
            ]
            lines += [
                Line(name, _points(raw), faint=True),
                Line(name, _points(averaged), dots=False),
                Line(name, _points(held_back)),
            ]
        return Chart("Training; dots: held back", "step", "nats", lines, y_from_0=False).svg()

    def table(self) -> Table:
        """Losses on held-back data, before and after."""
        validated = [r for r in self.records if f"valid_{next(iter(self._losses))}" in r]
        first, last = validated[0], validated[-1]
        table = Table(title=f"{last['step']} steps, {last['minutes']:.1f} minutes")
        table.add_column("nats, held back")
        for header in (f"at step {first['step']}", f"at step {last['step']}", "change"):
            table.add_column(header, justify="right")
        for key, name in self._losses.items():
            if not (f"valid_{key}" in first and f"valid_{key}" in last):
                continue
            before, after = first[f"valid_{key}"], last[f"valid_{key}"]
            table.add_row(name, f"{before:.3f}", f"{after:.3f}", f"{after - before:+.3f}")
        return table


def smoothed(values: Iterable[float]) -> list[float]:
    """The running average of values over SMOOTHED_OVER of them, fair at the start."""
    out: list[float] = []
    mean = share = 0.0
    for value in values:
        mean += (value - mean) / SMOOTHED_OVER
        share += (1.0 - share) / SMOOTHED_OVER
        out.append(mean / share)
    return out


def _points(pairs: Iterable[tuple[float, float]]) -> list[Point]:
    return [Point(x, y, math.nan, math.nan) for x, y in pairs]


def read_records(path: Path) -> list[Record]:
    """The records of a log; a last line that a kill has torn is left out."""
    if not path.is_file():
        return []
    return list(_parsed(path.read_text(encoding="utf-8", errors="replace").splitlines()))


def _parsed(lines: Iterable[str]) -> Iterable[Record]:
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            return
        yield record
