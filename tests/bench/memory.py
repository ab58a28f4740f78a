"""What the engine service's memory comes to: 10,000 requests over 20 documents that are edited.

python tests/bench/memory.py --count 10000

Every request is for one of the documents in turn, at another of its lines, so that prefix caches
are cut, grown, copied and dropped; every tenth is given up after its first frame, as by a
keystroke, every seventh has a draft. Prints resident memory as it goes; the last line is JSON, in
MiB. It is memory that counts, and any machine will do.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from diffgemma_lsp.engine_client import EngineClient
from diffgemma_lsp.engine_process import EngineOptions
from engine.errors import EngineError
from engine.evaluation.holes import held_out_folders, read_sources
from engine.serve.scheduler import REST_S
from engine.types import Frame, InfillRequest, SamplingParams, fill_in_the_middle, rewrite

DOCUMENTS, FIRST = 20, 1000
MIB = 2**20
PATIENCE_S = 60.0


def request(lines: Sequence[str], rng: random.Random, number: int) -> InfillRequest:
    """A fill at one of the document's lines, or a rewrite of it."""
    at = rng.randrange(len(lines))
    before, after = "".join(lines[:at]), "".join(lines[at + 1 :])
    params = SamplingParams(max_steps=4)
    if number % 7 == 0:
        template = rewrite(before, lines[at], after, 0.5)
        return InfillRequest(template, params, budget_s=PATIENCE_S, seed=number)
    begun = lines[at][: rng.randrange(len(lines[at]))]
    template = fill_in_the_middle(before + begun, "\n" + after, 8)
    return InfillRequest(template, params, budget_s=PATIENCE_S, seed=number)


async def measure(client: EngineClient, documents: Sequence[Sequence[str]], count: int) -> int:
    """Prints MiB after each thousand requests; returns 1 if memory grew by more than 5%."""
    rng = random.Random(0)
    found: dict[int, float] = {}
    failed = 0
    began = time.monotonic()
    for number in range(1, count + 1):
        events = client.stream(request(documents[number % DOCUMENTS], rng, number))
        try:
            async with contextlib.aclosing(events):
                async for event in events:
                    if number % 10 == 0 and isinstance(event, Frame):
                        break
        except EngineError:
            failed += 1
        if number % FIRST == 0 or number == count:
            await asyncio.sleep(REST_S + 0.5)  # what is freed goes back at rest
            status = await client.status()
            assert status is not None
            found[number] = status["memory_bytes"] / MIB
            print(f"{number:6} requests: {found[number]:.1f} MiB, {failed} late", file=sys.stderr)
    first, last = found[min(found)], found[count]
    result = {"after_first": first, "after_all": last, "growth": last / first - 1}
    rest = {"requests": count, "failed": failed, "seconds": time.monotonic() - began}
    print(json.dumps({name: round(value, 4) for name, value in {**result, **rest}.items()}))
    return 1 if result["growth"] > 0.05 else 0


async def run(options: argparse.Namespace) -> int:
    """Starts a service of its own, and stops it at the end."""
    sources = [one for one in read_sources(options.source or held_out_folders()) if one.text]
    sources = random.Random(0).sample(sources, DOCUMENTS)
    documents = [one.text.splitlines(keepends=True) for one in sources]
    with tempfile.TemporaryDirectory(prefix="bench") as folder:
        place = EngineOptions(model=options.model, runtime_dir=Path(folder) / "run")
        client = EngineClient(place)
        try:
            return await measure(client, documents, options.count)
        finally:
            await client.stop()
            await client.aclose()


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, metavar="N", help="requests")
    parser.add_argument(
        "--model", metavar="PATH", default="nano", help="a folder or a name (default: nano)"
    )
    parser.add_argument("--source", type=Path, action="append", metavar="DIR", help="Python files")
    return asyncio.run(run(parser.parse_args(argv)))


if __name__ == "__main__":
    raise SystemExit(main())
