"""A session that shows and accepts a suggestion, as a program to be run without a network: prints
what the status and `stats` count, and how many packets found no way out, then and after one try."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

# First: it says where the clients of tests are.
from editor import SERVER, URI, Editor  # isort: skip
from lsp_client import AUTOMATIC, did_change, did_close, insertion

BEGUN = "def add(first, second):\n    retur\n"


def lost() -> int:
    """Packets that something in this network namespace wanted to send, and that had nowhere to go,
    and those that went."""
    names, numbers = re.findall(r"^Ip: (.*)$", Path("/proc/self/net/snmp").read_text(), re.M)
    four = dict(zip(names.split(), map(int, numbers.split()), strict=True))
    six = dict(line.split() for line in Path("/proc/self/net/snmp6").read_text().splitlines())
    sent = four["OutNoRoutes"] + four["OutRequests"]
    return sent + int(six["Ip6OutNoRoutes"]) + int(six["Ip6OutRequests"])


async def session() -> dict[str, int]:
    """What the status counts in the end."""
    editor = Editor()
    await editor.start(*SERVER)
    await editor.begin(BEGUN, model="nano", automatic_budget_ms=60_000)
    editor.send(did_change(URI, 2, insertion(1, 9, "n ")))
    (item,) = await editor.suggestions(1, 11, AUTOMATIC)
    editor.send(did_change(URI, 3, {"range": item["range"], "text": item["insertText"]}))
    status = await editor.request("diffgemma/status", {"textDocument": {"uri": URI}})
    editor.send(did_close(URI))
    assert await editor.finish() == 0
    return status["suggestions"]


def ours(*arguments: str) -> Any:
    command = [sys.executable, "-m", "diffgemma_lsp", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main() -> None:
    try:
        counted = asyncio.run(session())
    finally:
        ours("engine", "stop", "--all")
    told = {"status": counted, "stats": json.loads(ours("stats", "--json")), "lost": lost()}
    with contextlib.suppress(OSError):
        socket.create_connection(("192.0.2.1", 80), timeout=1).close()
    print(json.dumps({**told, "lost_then": lost()}))


if __name__ == "__main__":
    main()
