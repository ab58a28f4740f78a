"""`diffgemma-lsp serve` as a program, with nano, and what its clients ask in these tests."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE_S = 300.0
BEFORE = "def add(first, second):\n    return "
AFTER = "\n\n\nprint(add(1, 2))\n"
COMMAND = [sys.executable, "-m", "diffgemma_lsp", "serve"]

README = Path(__file__).resolve().parents[2] / "README.md"
DEFAULT = "http://127.0.0.1:8012"


@contextmanager
def serving(env: dict[str, str], *more: str, told: str = "") -> Iterator[str]:
    """Where the server is. Its budget is never used up: with little time left the model does not
    choose among its answers, and answers another than it would on a machine that is less busy.

    more: further flags. told: what it says meanwhile, as a regular expression.
    """
    flags = ["--port", "0", "--budget-ms", "600000", *more]
    flags += [] if "--engine-url" in more else ["--model", "nano"]
    process = subprocess.Popen([*COMMAND, *flags], env=env, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    line = process.stderr.readline()
    assert re.match(r"serving .+ on http://127\.0\.0\.1:", line), line
    try:
        yield line.split()[-1]
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) in (0, -signal.SIGTERM)
        said = process.stderr.read()
        assert re.fullmatch(told, said), said


def configured(client: str, url: str) -> str:
    """What a client's row of the README's table says to configure, for a server at that place."""
    rows = README.read_text(encoding="utf-8").splitlines()
    row = next(line for line in rows if line.startswith(f"| {client} |"))
    pieces = row.split(" | ")[1].split("<br>")  # those that are all code, the others are prose
    found = "\n".join(piece.strip("`") for piece in pieces if re.fullmatch("`[^`]+`", piece))
    assert DEFAULT in found, f"the row of {client} has lost its configuration"
    return found.replace(DEFAULT, url)
