"""What a user gets of each action in code that the model has never seen, through a whole session.

    python tests/bench/actions.py --source PACKAGE --count 50

    docstring  a function without its docstring
    hints      a function without its type hints
    rewrite    a line in which a name is wrong, selected
    holes      one or two expressions of a function, each of them `...`
    body       a function whose two to eight lines are `...`

Of the places with an edit: whether the file still compiles, how often exactly that stands there
which stood there before, and how often something like it (edit similarity of 0.8 or more, all
places of an edit joined). Prints a table; with --out everything as JSON, the answers included.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from action_places import KINDS, Place, places
from live import as_json, position_of, seconds, session, share, uri_of
from rich.console import Console
from rich.table import Table

from engine.evaluation.holes import held_out_folders, read_sources
from engine.evaluation.metrics import Estimate, compiles, edit_similarity, proportion
from engine.evaluation.setup import (
    describe_machine,
    names,
    number,
    progress_bar,
    screen,
    write_json,
)

# isort: split
from applying import applied  # in tests/lsp, which `live` has put on the path
from in_process import InProcessClient
from lsp_client import did_close, did_open

ALIKE = 0.8


@dataclass(frozen=True, slots=True)
class Got:
    """What came of an action at a place. reason: why there was no edit."""

    place: Place
    seconds: float
    answers: tuple[str | None, ...] = ()
    confidence: float | None = None
    reason: str | None = None
    compiles: bool = False

    @property
    def exact(self) -> bool:
        """Whether all stands there again that did."""
        return self.reason is None and [a and a.strip() for a in self.answers] == [
            reference.strip() for reference in self.place.references
        ]

    @property
    def similarity(self) -> float:
        """How much what came is like what stood there."""
        said = "\n".join((answer or "").strip() for answer in self.answers)
        return edit_similarity(said, "\n".join(map(str.strip, self.place.references)))

    def to_json(self) -> dict[str, Any]:
        """For a file."""
        place = self.place
        return {
            "kind": place.kind,
            "source": place.source.name,
            "start": place.start,
            "references": place.references,
            "answers": self.answers,
            "confidence": self.confidence,
            "reason": self.reason,
            "compiles": self.compiles,
            "similarity": self.similarity if self.reason is None else None,
            "seconds": self.seconds,
        }


async def act(client: InProcessClient, uri: str, place: Place) -> Got:
    """Carries an action out at a place."""
    client.send(did_open(uri, place.text))
    where = {
        "start": position_of(place.text, place.start),
        "end": position_of(place.text, place.end),
    }
    order = {"textDocument": {"uri": uri}, "range": where, "apply": False}
    began = time.perf_counter()
    result = await client.ask(
        "workspace/executeCommand",
        {"command": f"diffgemma.{place.kind}", "arguments": [order]},
    )
    took = time.perf_counter() - began
    client.send(did_close(uri))
    if result["edit"] is None:
        return Got(place, took, reason=result["message"])
    changed = applied(place.text, uri, result["edit"], version=None)
    answers = tuple(result["fillings"])
    return Got(place, took, answers, result["confidence"], None, compiles(changed))


async def measure(options: argparse.Namespace, folders: Sequence[Path]) -> list[Got]:
    """All actions at all places, in turn."""
    sources = read_sources(folders)
    chosen = [
        place
        for kind in options.kinds
        for place in places(sources, kind, options.seed, options.count)
    ]
    found: list[Got] = []
    async with session(options.model, folders) as client:
        with progress_bar(screen()) as bar:
            task = bar.add_task("places", total=len(chosen), note="")
            for place in chosen:
                found.append(await act(client, uri_of(place.source, folders), place))
                if options.show:
                    print(json.dumps(found[-1].to_json()), flush=True)
                bar.update(task, advance=1, note=place.kind)
    return found


def shares(found: Sequence[Got]) -> dict[str, Estimate]:
    """Of places of a kind. compiles: of those with an edit; the rest is of all."""
    edits = [one for one in found if one.reason is None]
    return {
        "edit": proportion([one.reason is None for one in found]),
        "compiles": proportion([one.compiles for one in edits]),
        "exact": proportion([one.exact for one in found]),
        "alike": proportion([one.reason is None and one.similarity >= ALIKE for one in found]),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--count", type=number, default=50, metavar="N", help="places of a kind (default: 50)")
    add("--kinds", type=lambda text: names(text, [*KINDS]), default=tuple(KINDS), metavar="LIST")
    add("--seed", type=int, default=0, metavar="N", help="of the places (default: 0)")
    add("--model", metavar="NAME", help="a model's name or folder (default: the embedded one)")
    add("--source", type=Path, action="append", metavar="DIR", help="Python files")
    add("--out", type=Path, metavar="FILE", help="for everything, as JSON")
    add("--show", action="store_true", help="each answer, as it comes")
    options = parser.parse_args(argv)
    found = asyncio.run(measure(options, options.source or held_out_folders()))
    table = Table(title="Actions; shares of all places, compiles: of those with an edit")
    for column in (
        "action",
        "n",
        "edit",
        "compiles",
        "exact",
        f"alike ≥ {ALIKE}",
        "p50 s",
        "p95 s",
    ):
        table.add_column(column)
    result: dict[str, Any] = {"machine": describe_machine(), "model": options.model}
    for kind in options.kinds:
        own = [one for one in found if one.place.kind == kind]
        counted, times = shares(own), seconds([one.seconds for one in own])
        cells = [*map(share, counted.values()), *(f"{value:.1f}" for value in times.values())]
        table.add_row(kind, str(len(own)), *cells)
        result[kind] = {
            **{name: as_json(one) for name, one in counted.items()},
            "seconds": times,
            "reasons": dict(Counter(one.reason for one in own if one.reason).most_common()),
        }
    Console(width=130).print(table)
    for kind in options.kinds:
        for reason, count in result[kind]["reasons"].items():
            print(f"{kind}: {count} × {reason}")
    if options.out:
        result["places"] = [one.to_json() for one in found]
        write_json(options.out, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
