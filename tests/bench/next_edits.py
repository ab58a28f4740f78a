"""How often a next edit is where it must be and says what it must, and how often one is offered
where nothing must follow; on edits made from code that the models have not seen.

python tests/bench/next_edits.py --source DIR --count 500

Over the protocol, with the real engine in this process and no deadline. Unless said otherwise half
of the cases are unchanged: after their edit nothing must follow. Position right: what is offered is
a line that must follow. Text right: of those offered on a case that has followers, the line is as
it must be.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "lsp")]

from in_process import InProcessClient  # noqa: E402
from lsp_client import did_change, did_close, did_open, position, span  # noqa: E402
from next_edit_cases import CHANGED, UNCHANGED, Case, drawn  # noqa: E402

from diffgemma_lsp.features.inline_edit import METHOD  # noqa: E402
from engine.engine import InfillEngine  # noqa: E402
from engine.evaluation.holes import read_sources  # noqa: E402
from engine.evaluation.metrics import percentile, proportion  # noqa: E402
from engine.types import EngineInfo, Frame, Infill, InfillRequest  # noqa: E402


class Local:
    """The engine of this process as a session's."""

    def __init__(self, engine: InfillEngine) -> None:
        self._engine = engine

    async def stream(self, request: InfillRequest) -> AsyncGenerator[Frame | Infill]:
        yield self._engine.fill(request)

    async def status(self) -> dict[str, Any] | None:
        info: EngineInfo = self._engine.info
        return {"state": "ready", "info": {"model": info.model, "can": info.can}}

    async def warm_up(self) -> None:
        """It is."""

    async def unload(self) -> bool:
        return False

    async def aclose(self) -> None:
        """Nothing is open."""


class Outcome(NamedTuple):
    offered: tuple[int, str] | None
    seconds: float


async def outcome(client: InProcessClient, case: Case, number: int) -> Outcome:
    uri = f"file:///work/case_{number}.py"
    lines, version = case.text.split("\n"), 1
    client.send(did_open(uri, case.text))
    for edit in case.edits:
        version += 1
        old = lines[edit.line]
        head = next(
            (n for n, pair in enumerate(zip(old, edit.new, strict=False)) if len(set(pair)) > 1),
            min(len(old), len(edit.new)),
        )
        change = {"range": span(edit.line, head, edit.line, len(old)), "text": edit.new[head:]}
        client.send(did_change(uri, version, change))
        lines[edit.line] = edit.new
    last = case.edits[-1]
    params = {
        "textDocument": {"uri": uri, "version": version},
        "position": position(last.line, len(last.new)),
    }
    began = time.perf_counter()
    result = await asyncio.wait_for(client.ask(METHOD, params), 600)
    seconds = time.perf_counter() - began
    client.send(did_close(uri))
    for edit in result["edits"]:
        return Outcome((edit["range"]["start"]["line"], edit["text"]), seconds)
    return Outcome(None, seconds)


async def run(model: str | None, cases: Sequence[Case], out: Path | None) -> None:
    engine = InfillEngine.load(model, "cpu")
    client = InProcessClient()
    client.connect(lambda settings: Local(engine))
    budget = {"automatic_budget_ms": 60_000, "warm_up": False, "look_ahead": False}
    await client.initialize(["utf-32"], **budget, stats=False)
    rows: list[dict[str, Any]] = []
    for number, case in enumerate(cases):
        found = await outcome(client, case, number)
        row: dict[str, Any] = {
            "kind": case.kind,
            "name": case.name,
            "followers": len(case.expected),
            "edits": case.edits,
            "offered": found.offered,
            "seconds": found.seconds,
        }
        if found.offered is not None:
            line, text = found.offered
            row["position"] = line in case.expected
            row["text"] = case.expected.get(line) == text
            row["was"] = case.text.split("\n")[line]
        rows.append(row)
        if out is not None:  # as it goes, so that nothing is lost
            with out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        print(f"\r{number + 1}/{len(cases)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    report(rows)


def share(hits: int, of: int) -> str:
    if not of:
        return "-"
    estimate = proportion([True] * hits + [False] * (of - hits))
    return f"{estimate.value:.1%} (95% {estimate.low:.1%} … {estimate.high:.1%})"


def report(rows: Sequence[dict[str, Any]]) -> None:
    print("| kind | n | offered | position right | text right, of those offered |")
    print("|---|---|---|---|---|")
    changed = [row for row in rows if row["followers"]]
    for kind in [*dict.fromkeys(row["kind"] for row in changed), None]:
        some = [row for row in changed if kind in (None, row["kind"])]
        offered = [row for row in some if row["offered"]]
        right, exact = sum(r["position"] for r in offered), sum(r["text"] for r in offered)
        print(
            f"| {kind or 'all'} | {len(some)} | {share(len(offered), len(some))} | "
            f"{share(right, len(some))} | {share(exact, len(offered))} |"
        )
    print("\n| nothing must follow | n | offered |\n|---|---|---|")
    rest = [row for row in rows if not row["followers"]]
    for kind in [*dict.fromkeys(row["kind"] for row in rest), None]:
        some = [row for row in rest if kind in (None, row["kind"])]
        offers = sum(bool(row["offered"]) for row in some)
        print(f"| {kind or 'all'} | {len(some)} | {share(offers, len(some))} |")
    seconds = [row["seconds"] for row in rows]
    half, most = (percentile(seconds, part) * 1000 for part in (0.5, 0.95))
    print(f"\nanswer ms p50 {half:.0f} p95 {most:.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, action="append", required=True)
    parser.add_argument("--model", help="default: mini where its base is, else nano")
    parser.add_argument("--count", type=int, default=500, help="cases that have followers")
    parser.add_argument("--unchanged", type=int, help="those that have none; default: as many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a file for a line of JSON for each case")
    chosen = parser.parse_args()
    sources = read_sources(chosen.source)
    cases = drawn(CHANGED, sources, chosen.count, chosen.seed)
    cases += drawn(UNCHANGED, sources, chosen.unchanged or len(cases), chosen.seed + 1)
    random.Random(chosen.seed).shuffle(cases)
    asyncio.run(run(chosen.model, cases, chosen.out))


if __name__ == "__main__":
    main()
