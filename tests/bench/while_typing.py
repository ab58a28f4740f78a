"""What the server shows by itself while code is typed that the model has never seen.

    python tests/bench/while_typing.py --source PACKAGE --count 100

At two of three places the rest of the line is gone, and the last character in front of it is typed;
at the third the whole line is gone, and it is begun with the enter key. What stands in front of the
cursor has been read by then, as after a moment's rest. The server has its defaults. Of what is
shown: whether it is what stood there, or begins it and ends with a whole word; and why nothing is
shown elsewhere. Prints a table; with --out everything as JSON, the answers included.
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

from live import as_json, position_of, seconds, session, share, uri_of
from rich.console import Console
from rich.table import Table

from engine.evaluation.holes import Cut, held_out_folders, population, read_sources
from engine.evaluation.metrics import Estimate, exact, proportion
from engine.evaluation.setup import describe_machine, number, progress_bar, screen, write_json

# isort: split
from in_process import InProcessClient  # in tests/lsp, which `live` has put on the path
from lsp_client import completion, did_change, did_close, did_open, until

METHOD = "textDocument/inlineCompletion"
WARM_UP = 2  # places before anything counts


@dataclass(frozen=True, slots=True)
class Shown:
    """What came at a place; an empty text if nothing did, and the reason."""

    cut: Cut
    text: str
    reason: str | None
    seconds: float

    @property
    def exact(self) -> bool:
        """Whether it is what stood there."""
        return exact(self.text, self.cut.reference)

    @property
    def begins(self) -> bool:
        """Whether it is what stood there, or begins it with whole words."""
        said, reference = self.text.rstrip(), self.cut.reference.rstrip()
        rest = reference[len(said) :]
        in_word = said[-1:].isidentifier() and (rest[:1] == "_" or rest[:1].isalnum())
        return bool(said) and reference.startswith(said) and not in_word

    def to_json(self) -> dict[str, Any]:
        """For a file."""
        return {
            "kind": self.cut.kind,
            "source": self.cut.source.name,
            "start": self.cut.start,
            "line": self.cut.prefix.rpartition("\n")[2],
            "reference": self.cut.reference,
            "shown": self.text,
            "reason": self.reason,
            "seconds": self.seconds,
        }


def typed(cut: Cut) -> tuple[str, str]:
    """What stands before the cursor until a key is pressed, and what the key brings."""
    before = cut.prefix[:-1]
    if cut.kind == "line" and "\n" in cut.prefix:
        before = cut.prefix[: cut.prefix.rindex("\n")]
    return before, cut.prefix[len(before) :]


async def type_at(client: InProcessClient, uri: str, cut: Cut) -> Shown:
    """Opens the file, goes to the place and types."""
    before, key = typed(cut)
    client.send(did_open(uri, before + cut.suffix))
    at, then = position_of(before, len(before)), position_of(cut.prefix, len(cut.prefix))
    here = {"textDocument": {"uri": uri}, "range": {"start": at, "end": at}}
    # As editors do when the cursor moves.
    moved = {"diagnostics": [], "triggerKind": 2}
    await client.ask("textDocument/codeAction", {**here, "context": moved})
    await until(lambda: client.server.session.requests.idle)
    client.send(did_change(uri, 2, {"range": here["range"], "text": key}))
    began = time.perf_counter()
    items = await client.ask(*completion(uri, then["line"], then["character"]))
    took = time.perf_counter() - began
    text = ""
    if items:
        start = items[0]["range"]["start"]["character"]
        text = items[0]["insertText"][then["character"] - start :]
    reason = client.server.session.outcomes.reasons(uri).get(METHOD)
    client.send(did_close(uri))
    return Shown(cut, text, reason, took)


async def measure(options: argparse.Namespace, folders: Sequence[Path]) -> list[Shown]:
    """All places."""
    sources = read_sources(folders)
    count = options.count + WARM_UP
    rests, lines = (population(sources, kind, options.seed) for kind in ("rest", "line"))
    lines = [cut for cut in lines if cut.prefix[-1:] == " "]
    cuts = [lines.pop() if n % 3 == 2 else rests.pop() for n in range(count)]
    found: list[Shown] = []
    budget = {} if options.budget is None else {"automatic_budget_ms": options.budget}
    async with session(options.model, folders, **budget) as client:
        with progress_bar(screen()) as bar:
            task = bar.add_task("places", total=count, note="")
            for cut in cuts:
                found.append(await type_at(client, uri_of(cut.source, folders), cut))
                if options.show:
                    print(json.dumps(found[-1].to_json()), flush=True)
                bar.advance(task)
    return found[WARM_UP:]


def shares(found: Sequence[Shown]) -> dict[str, Estimate]:
    """shown: of all places; the others of what is shown."""
    shown = [one for one in found if one.text]
    return {
        "shown": proportion([bool(one.text) for one in found]),
        "exact": proportion([one.exact for one in shown]),
        "exact or begins": proportion([one.begins for one in shown]),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--count", type=number, default=100, metavar="N", help="places (default: 100)")
    add("--seed", type=int, default=0, metavar="N", help="of the places (default: 0)")
    add("--model", metavar="NAME", help="a model's name or folder (default: the embedded one)")
    add("--source", type=Path, action="append", metavar="DIR", help="Python files")
    add("--out", type=Path, metavar="FILE", help="for everything, as JSON")
    add("--budget", type=number, metavar="MS", help="instead of the server's default")
    add("--show", action="store_true", help="each answer, as it comes")
    options = parser.parse_args(argv)
    found = asyncio.run(measure(options, options.source or held_out_folders()))
    table = Table(title="While typing; shown: of all places, the rest: of what is shown")
    for column in ("place", "n", "shown", "exact", "exact or begins", "p50 s", "p95 s"):
        table.add_column(column)
    result: dict[str, Any] = {"machine": describe_machine(), "model": options.model}
    for name, kinds in (("in a line", "rest"), ("new line", "line"), ("all", ("rest", "line"))):
        own = [one for one in found if one.cut.kind in kinds]
        counted, times = shares(own), seconds([one.seconds for one in own])
        cells = [*map(share, counted.values()), *(f"{value:.2f}" for value in times.values())]
        table.add_row(name, str(len(own)), *cells)
        result[name] = {
            **{key: as_json(one) for key, one in counted.items()},
            "seconds": times,
            "seconds where something is shown": seconds([one.seconds for one in own if one.text]),
            "reasons": dict(Counter(one.reason for one in own if not one.text).most_common()),
        }
    Console(width=130).print(table)
    for reason, count in result["all"]["reasons"].items():
        print(f"{count} × {reason}")
    if options.out:
        result["places"] = [one.to_json() for one in found]
        write_json(options.out, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
