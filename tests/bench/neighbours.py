"""How well the pool finds what a hole needs of other files, and how long that takes.

python tests/bench/neighbours.py --source PACKAGE --count 200

Each hole needs a name that an imported file defines (see engine/evaluation/neighbours.py). The pool
has the other files of the package, in a random order, and behind them what following the imports
gives, as in a session. Found means that a chunk which defines the name is among the first so many.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import track

from diffgemma_lsp.context.chunks import Chunk, ChunkPool, words_of
from diffgemma_lsp.context.python_imports import imports_of
from diffgemma_lsp.context.ranking import Rankings, _surroundings
from diffgemma_lsp.context.reader import Reader
from diffgemma_lsp.text.snapshot import DocumentSnapshot
from diffgemma_lsp.text.text import Text
from engine.evaluation.holes import read_sources
from engine.evaluation.metrics import percentile, proportion
from engine.evaluation.neighbours import Need, needs

T = TypeVar("T")
FIRST = (1, 4, 16)


def jaccard(words: frozenset[str], chunk: Chunk) -> float:
    return len(words & chunk.words) / len(words | chunk.words)


def defines(chunk: Chunk, need: Need) -> bool:
    names = "|".join(map(re.escape, need.names))
    pattern = rf"^\s*(?:(?:async )?def|class) (?:{names})\b|^\s*(?:self\.)?(?:{names})\s*[:=]"
    return any(chunk.path.endswith(s.path) for s in need.context) and bool(
        re.search(pattern, chunk.text, re.MULTILINE)
    )


class Bench:
    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = {folder.name: folder.resolve() for folder in folders}
        self.times: dict[str, list[float]] = {"follow": [], "choose": [], "again": []}
        self.ranks: dict[str, list[int | None]] = {"pool": [], "jaccard": []}

    def run(self, need: Need, rng: random.Random) -> None:
        package, _, inner = need.cut.source.name.partition("/")
        folder = self.folders[package]
        path = folder / inner
        text = Text.of(need.cut.prefix + need.cut.suffix)
        cursor = text.point(need.cut.start)
        snapshot = DocumentSnapshot(path.as_uri(), 1, "python", text, cursor, cursor)
        pool, reader = ChunkPool(), Reader([folder.parent])
        others = sorted(folder.rglob("*.py"))
        for other in rng.sample(others, min(8, len(others))):
            if other != path and (read := reader.read(other)) is not None:
                pool.put(str(other), read.chunks)
        words = words_of(need.cut.prefix[-32_768:])
        found = self._timed(
            "follow", lambda: reader.follow(path, imports_of(need.cut.source.text), words)
        )
        for read in reversed(found):
            pool.put(str(read.path), read.chunks)
        rankings = Rankings(pool)
        self._timed("choose", lambda: rankings.of(snapshot, str(path)))
        self._timed("again", lambda: rankings.of(snapshot, str(path)))
        query = words_of(_surroundings(snapshot))
        ranked = [chunk for _, chunk in pool.ranked(query, str(path))]
        by_jaccard = sorted(ranked, key=lambda chunk: -jaccard(query, chunk))
        for name, chunks in (("pool", ranked), ("jaccard", by_jaccard)):
            hits = (rank for rank, chunk in enumerate(chunks) if defines(chunk, need))
            self.ranks[name].append(next(hits, None))

    def _timed(self, name: str, work: Callable[[], T]) -> T:
        began = time.perf_counter()
        result = work()
        self.times[name].append((time.perf_counter() - began) * 1000)
        return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, action="append", required=True, metavar="DIR")
    parser.add_argument("--count", type=int, default=200, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    options = parser.parse_args()
    bench, rng = Bench(options.source), random.Random(options.seed)
    chosen = list(islice(needs(read_sources(options.source), options.seed), options.count))
    for need in track(chosen, "holes", console=Console(stderr=True)):
        bench.run(need, rng)
    result = {
        "holes": len(chosen),
        "found": {
            name: {n: str(proportion([r is not None and r < n for r in ranks])) for n in FIRST}
            for name, ranks in bench.ranks.items()
        },
        "ms": {
            name: {"p50": percentile(ms, 0.5), "p95": percentile(ms, 0.95)}
            for name, ms in bench.times.items()
        },
    }
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
