"""What a keystroke costs the server itself, in a small document and in a huge one; and its memory.

    python tests/bench/keystrokes.py

A keystroke is a didChange and a request that is answered without the model: suppressed, or from
what was suggested before. Everything is in one process, without pipes; the time is the processor's.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "lsp")]

from fake_engine import FakeEngine  # noqa: E402
from in_process import InProcessClient  # noqa: E402
from lsp_client import completion, did_change, did_open, insertion, position  # noqa: E402

TYPED = "abcdefghijklmnopqrstuvwxyz012345"
OPTIONS = {"warm_up": False, "look_ahead": False}


def code(lines: int) -> str:
    return "".join(f"value_{n} = compute({n}, other)\n" for n in range(lines))


async def connected(engine: FakeEngine) -> InProcessClient:
    client = InProcessClient()
    client.connect(lambda settings: engine)
    await client.initialize(**OPTIONS)
    return client


async def per_key(lines: int, suppressed: bool, rounds: int) -> float:
    """Microseconds of a keystroke in the middle of a document: the median of many."""
    engine = FakeEngine()
    engine.texts = (TYPED,)
    client = await connected(engine)
    uri, middle, version = f"file:///{lines}.py", lines // 2, 1
    ending = "x + y\n" if suppressed else "\n"  # with code right of the cursor nothing is shown
    text = code(lines).splitlines(keepends=True)
    text[middle] = "x = " + ending
    client.send(did_open(uri, "".join(text)))
    await client.request(*completion(uri, middle, 4, 1))
    took: list[float] = []
    for _ in range(rounds):
        for at, char in enumerate(TYPED[:-1]):
            version += 1
            began = time.process_time()
            client.send(did_change(uri, version, insertion(middle, 4 + at, char)))
            answer = client.ask(*completion(uri, middle, 5 + at))
            await answer
            took.append((time.process_time() - began) * 1e6)
        version += 1
        whole = {"start": position(middle, 4), "end": position(middle, 4 + len(TYPED) - 1)}
        client.send(did_change(uri, version, {"range": whole, "text": ""}))
    assert engine.runs <= 3, engine.runs
    return statistics.median(took)


async def memory(documents: int, keys: tuple[int, ...]) -> list[int]:
    """Bytes of this process after so many keystrokes, in turn over the documents."""
    client = await connected(FakeEngine())
    for n in range(documents):
        client.send(did_open(f"file:///{n}.py", code(1_000)))
    found, done = [], 0
    for many in keys:
        while done < many:
            uri, at = f"file:///{done % documents}.py", done // documents
            client.send(did_change(uri, at + 2, insertion(500 + at // 60, at % 60, "x")))
            await client.ask(*completion(uri, 500 + at // 60, at % 60 + 1))
            client.forget_answered()
            done += 1
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        found.append(pages * os.sysconf("SC_PAGE_SIZE"))
    return found


def main() -> None:
    """Prints a table for LOG.md."""
    logging.getLogger("diffgemma_lsp").propagate = False
    keys = (1_000, 10_000)
    # First, while nothing large has been here yet.
    first, last = asyncio.run(memory(20, keys))
    print(f"| memory, 20 documents, after | {keys[0]:,} keys | {keys[1]:,} keys | growth |")
    print("|---|---|---|---|")
    print(f"| MB | {first / 1e6:.1f} | {last / 1e6:.1f} | {last / first - 1:.1%} |\n")
    small, large = 1_000, 100_000
    print(f"| keystroke, µs of processor | {small:,} lines | {large:,} lines | ratio |")
    print("|---|---|---|---|")
    for name, suppressed in (("suppressed", True), ("from what is known", False)):
        # In turn, so that whatever else the machine does meets both.
        pairs = [
            [asyncio.run(per_key(lines, suppressed, 8)) for lines in (small, large)]
            for _ in range(5)
        ]
        one, other = (min(column) for column in zip(*pairs, strict=True))
        print(f"| {name} | {one:.0f} | {other:.0f} | {other / one:.2f} |")


if __name__ == "__main__":
    main()
