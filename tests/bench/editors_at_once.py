"""The engine service's throughput with several editors at once, against one after the other.

python tests/bench/editors_at_once.py --editors 8 --count 20

Every editor fills at a place of a document of its own. In turn they do it one after the other and
all at once, so that both meet the same load, and each finds what the other has read as often.
Prints fills a second of both and their ratio; the last line is JSON. On an idle machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from diffgemma_lsp.commands.streaming import follow
from diffgemma_lsp.engine_client import EngineClient
from diffgemma_lsp.engine_process import EngineOptions
from engine.evaluation.holes import Cut, held_out_folders, population, read_sources
from engine.evaluation.setup import describe_machine
from engine.types import InfillRequest, fill_in_the_middle


async def fill(client: EngineClient, cut: Cut) -> None:
    """A fill at a hole, of at most 32 tokens."""
    await follow(client, InfillRequest(fill_in_the_middle(cut.prefix, cut.suffix, 32)))


async def measure(model: str, rounds: Sequence[Sequence[Cut]]) -> tuple[float, float]:
    """Seconds of all rounds, one after the other and all at once. The first round warms up."""
    alone = together = 0.0
    with tempfile.TemporaryDirectory(prefix="bench") as folder:
        client = EngineClient(EngineOptions(model=model, runtime_dir=Path(folder) / "run"))
        try:
            for number, cuts in enumerate(rounds):
                for at_once in (False, True) if number % 2 else (True, False):
                    began = time.perf_counter()
                    if at_once:
                        await asyncio.gather(*(fill(client, cut) for cut in cuts))
                    else:
                        for cut in cuts:
                            await fill(client, cut)
                    took = time.perf_counter() - began
                    if number:
                        together += took if at_once else 0.0
                        alone += 0.0 if at_once else took
        finally:
            await client.stop()
            await client.aclose()
    return alone, together


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--editors", type=int, default=8, metavar="N", help="(default: 8)")
    add("--count", type=int, default=20, metavar="N", help="fills of each editor (default: 20)")
    add("--model", default="nano", metavar="PATH", help="a folder or a name (default: nano)")
    add("--source", type=Path, action="append", metavar="DIR", help="Python files")
    options = parser.parse_args(argv)
    cuts = population(read_sources(options.source or held_out_folders()), "line", 0)
    editors, rounds = options.editors, options.count + 1
    parted = [cuts[i * editors : (i + 1) * editors] for i in range(rounds)]
    alone, together = asyncio.run(measure(options.model, parted))
    fills = options.count * editors
    result = {
        "machine": describe_machine(),
        "editors": editors,
        "fills": fills,
        "one after the other": round(fills / alone, 3),
        "at once": round(fills / together, 3),
        "ratio": round(alone / together, 3),
    }
    print(f"{result['ratio']} times the fills a second", file=sys.stderr)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
