"""The language server's memory after very many edits that replace a whole document, as formatters
and generators send them. The engine is not asked for anything.

    python tests/bench/edits_memory.py [--edits 10000] [--mb 1]
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "lsp"), str(ROOT)]

from lsp_client import LspClient, did_change, did_open  # noqa: E402

URI = "file:///work/large.py"
SERVER = (sys.executable, "-m", "diffgemma_lsp")


def texts(mb: float) -> list[str]:
    """Some texts of this size, each other than the one before in many places."""
    source = random.Random(0)
    lines = [f"name_{n} = compute({n}, {n * 7919 % 10_007})" for n in range(int(mb * 25_000))]
    found: list[str] = []
    for _ in range(8):
        for at in source.sample(range(len(lines)), len(lines) // 50):
            lines[at] = f"other_{at} = compute({source.random()})"
        found.append("\n".join(lines)[: int(mb * 1e6)])
    return found


def memory_mb(client: LspClient) -> dict[str, int]:
    """What the server has now, and the most that it ever had."""
    status = Path(f"/proc/{client.process.pid}/status").read_text()
    found = dict(re.findall(r"^Vm(RSS|HWM):\s*(\d+)", status, re.MULTILINE))
    return {name: int(value) // 1_000 for name, value in found.items()}


async def measure(edits: int, mb: float) -> None:
    """Prints the memory before, now and then, and after all edits."""
    client = LspClient()
    await client.start(*SERVER)
    await client.initialize(["utf-16"], warm_up=False)
    forms = texts(mb)
    client.send(did_open(URI, forms[0]))
    await client.request("diffgemma/status")
    print("before", memory_mb(client), flush=True)
    for number in range(1, edits + 1):
        client.send(did_change(URI, number + 1, {"text": forms[number % len(forms)]}))
        await client.request("diffgemma/status")  # the pipe is not filled ahead
        if number % max(1, edits // 10) == 0:
            print(number, memory_mb(client), flush=True)
    await client.finish()


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--edits", type=int, default=10_000)
    parser.add_argument("--mb", type=float, default=1.0)
    chosen = parser.parse_args()
    asyncio.run(measure(chosen.edits, chosen.mb))


if __name__ == "__main__":
    main()
