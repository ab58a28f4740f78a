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

BOX = """\
class Box {
  area(width, { height }) {
    const { depth = width } = this;
    rows.map((width) => width * 2);
    this.width = { width: 1, ...width };
  }
  grow(width) { return width; }
}
"""
GROWN = BOX.replace("area(width", "area(length").replace("depth = width", "depth = length")
GROWN = GROWN.replace("...width", "...length")


@pytest.mark.parametrize(
    ("text", "line", "language", "wanted"),
    [
        (AREA, 0, "python", AREA.replace("width", "length")),
        (BOX, 1, "javascript", GROWN),
    ],
)
async def test_what_must_follow_is_offered_until_nothing_does(
    client: LspClient, text: str, line: int, language: str, wanted: str
) -> None:
    """A parameter is renamed, and what is offered is taken up, in a method as in a function."""
    await client.initialize(["utf-16"], **PATIENT, automatic_budget_ms=60_000)
    client.send(did_open(URI, text, language=language))
    lines, version = text.split("\n"), 2
    at = lines[line].index("width")
    lines[line] = lines[line].replace("width", "length")
    client.send(did_change(URI, 2, {"range": span(line, at, line, at + 5), "text": "length"}))
    while True:
        params = {
            "textDocument": {"uri": URI, "version": version},
            "position": position(line, at + 6),
        }
        asked = client.ask("textDocument/copilotInlineEdit", params)
        edits: list[dict[str, Any]] = (await asyncio.wait_for(asked, 300))["edits"]
        if not edits:
            break
        (edit,) = edits
        number, version = edit["range"]["start"]["line"], version + 1
        assert edit["range"] == span(number, 0, number, len(lines[number]))
        lines[number] = edit["text"]
        client.send(did_change(URI, version, {"range": edit["range"], "text": edit["text"]}))
        assert version < 9, "it comes to an end"
    assert "\n".join(lines) == wanted
