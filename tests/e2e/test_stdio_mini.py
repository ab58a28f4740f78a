"""The language server over standard input and output, with the real engine and mini, which is the
default as soon as its base is here."""

from __future__ import annotations

import ast
import asyncio
import os
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_stdio_nano import PATIENT, SERVER, URI, fill
from tests.lsp.lsp_client import LspClient, did_change, did_open, position, span

pytestmark = pytest.mark.timeout(600)

STACK = (
    "class Stack:\n    def __init__(self):\n        self.items = []\n\n    def push(self, item):\n"
    "        \n\n    def pop(self):\n        return self.items.pop()\n"
)
HERE = STACK.index("        \n\n    def pop") + 8


@pytest.fixture
async def client(mini_base: Path) -> AsyncIterator[LspClient]:
    """With an engine of its own, beside that of the other tests. A socket's path must be short."""
    with tempfile.TemporaryDirectory(prefix="dgmini-", ignore_cleanup_errors=True) as folder:
        models = os.environ.get("DIFFGEMMA_MODELS", str(mini_base.parent))
        places = {"DIFFGEMMA_LSP_RUNTIME_DIR": folder, "DIFFGEMMA_MODELS": models}
        env = {**os.environ, **places, "PYTHONPATH": str(Path(__file__).parents[2])}
        client = LspClient()
        await client.start(*SERVER, env=env)
        try:
            yield client
            assert await client.finish() == 0
        finally:
            if client.process.returncode is None:
                client.process.kill()
            subprocess.run([*SERVER, "engine", "stop", "--all"], env=env, check=True)


async def test_what_is_suggested_is_what_one_would_write(client: LspClient) -> None:
    await client.initialize(["utf-16"], **PATIENT)
    client.send(did_open(URI, STACK))
    items: list[dict[str, Any]] = await fill(client, STACK, HERE)
    assert items
    assert items[0]["insertText"] == "self.items.append(item)"
    for item in items:
        ast.parse(STACK[:HERE] + item["insertText"] + STACK[HERE:])
    status = await client.request("diffgemma/status")
    assert status["model"] == "mini"


AREA = "def area(width, height):\n    total = width * height\n    return total\n"


async def test_what_must_follow_is_offered_until_nothing_does(client: LspClient) -> None:
    await client.initialize(["utf-16"], **PATIENT, automatic_budget_ms=60_000)
    client.send(did_open(URI, AREA))
    lines, version = AREA.split("\n"), 2
    lines[0] = lines[0].replace("width", "length")
    client.send(did_change(URI, 2, {"range": span(0, 9, 0, 14), "text": "length"}))

    async def offered() -> list[dict[str, Any]]:
        params = {
            "textDocument": {"uri": URI, "version": version},
            "position": position(0, 15),
        }
        return (await asyncio.wait_for(client.ask("textDocument/copilotInlineEdit", params), 300))[
            "edits"
        ]

    (edit,) = await offered()
    assert edit["text"] == "    total = length * height"
    assert edit["range"] == span(1, 0, 1, len(lines[1]))
    version = 3
    client.send(did_change(URI, 3, {"range": edit["range"], "text": edit["text"]}))
    assert await offered() == []
