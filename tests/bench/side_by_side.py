"""Fills of this checkout and of another one in turn, hole by hole, so that both meet the same load.

git worktree add ../before COMMIT
python tests/bench/side_by_side.py --against ../before --count 200

Each checkout runs in a process of its own with its own nano, on the same holes of held-out lines,
each at a place of its own and then once more (the prefix is known). Prints p50 and p95 of both and
their ratios, ours to theirs; the last line is JSON, times in milliseconds. On an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.evaluation.holes import held_out_folders, population, read_sources
from engine.evaluation.metrics import percentile
from engine.evaluation.setup import describe_machine

WARM_UP = 3  # holes before the clock counts
KINDS = ("new place", "again")

WORKER = """
import json, sys, time
from pathlib import Path
import engine.engine
from engine.types import InfillRequest, fill_in_the_middle
model = next(Path(engine.engine.__file__).parent.glob("*/nano/config.json")).parent
ours = engine.engine.InfillEngine.load(str(model))
print(json.dumps("ready"), flush=True)
for line in sys.stdin:
    before, after = json.loads(line)
    took = []
    for seed in range(2):
        began = time.perf_counter()
        ours.fill(InfillRequest(fill_in_the_middle(before, after, 32), seed=seed))
        took.append((time.perf_counter() - began) * 1000)
    print(json.dumps(took), flush=True)
"""


class Worker:
    """A process that fills with the engine of one checkout."""

    def __init__(self, checkout: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER],
            env={**os.environ, "PYTHONPATH": str(checkout.resolve())},
            cwd=checkout,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def fill(self, before: str, after: str) -> list[float]:
        """Milliseconds of a fill, and of the same place a second time."""
        assert self._process.stdin is not None
        print(json.dumps([before, after]), file=self._process.stdin, flush=True)
        return self._answer()

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("an engine ended: its last words stand above")
        return json.loads(line)


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--against", type=Path, required=True, metavar="DIR", help="the other checkout")
    add("--count", type=int, default=200, metavar="N", help="holes (default: 200)")
    add("--source", type=Path, action="append", metavar="DIR", help="Python files")
    options = parser.parse_args(argv)
    here = Path(__file__).resolve().parents[2]
    workers = {"ours": Worker(here), "theirs": Worker(options.against)}
    times: dict[str, dict[str, list[float]]] = {
        kind: {name: [] for name in workers} for kind in KINDS
    }
    sources = read_sources(options.source or held_out_folders())
    cuts = population(sources, "line", 0)[: options.count + WARM_UP]
    for number, cut in enumerate(cuts):
        # Who is first takes turns, too.
        for name in sorted(workers, reverse=bool(number % 2)):
            took = workers[name].fill(cut.prefix, cut.suffix)
            if number >= WARM_UP:
                for kind, one in zip(KINDS, took, strict=True):
                    times[kind][name].append(one)
    for worker in workers.values():
        worker.close()
    result: dict[str, Any] = {"machine": describe_machine(), "holes": len(cuts) - WARM_UP}
    for kind, found in times.items():
        result[kind] = {}
        for share in (50, 95):
            ours, theirs = (percentile(found[name], share / 100) for name in ("ours", "theirs"))
            figures = {"ours": ours, "theirs": theirs, "ratio": ours / theirs}
            result[kind][f"p{share}"] = {name: round(one, 3) for name, one in figures.items()}
            print(f"{kind}, p{share}: {ours:.0f} ms, theirs {theirs:.0f}, {ours / theirs:.3f}")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
