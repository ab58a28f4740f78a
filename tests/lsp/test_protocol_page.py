"""editors/README.md: its messages are played to the server, and its tables miss nothing."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from fake_engine import FakeEngine
from in_process import InProcessClient
from lsp_client import did_close, did_open, position

from diffgemma_lsp.actions.kinds import KINDS
from diffgemma_lsp.features.execute_command import NAMES
from diffgemma_lsp.server import build_server
from engine.types import Frame, Infill, InfillRequest, Piece

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "editors" / "README.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
URI = "file:///work/a.py"

MESSAGES: list[tuple[str, dict[str, Any]]] = [
    (side, json.loads(block))
    for side, block in re.findall(r"```json (client|server)\n(.*?)```", PAGE, re.DOTALL)
]


def told(method: str) -> list[dict[str, Any]]:
    """What the page has the server say by itself."""
    return [one["params"] for side, one in MESSAGES if one.get("method") == method]


class Scripted(FakeEngine):
    """Makes of a request what the page says; only the first run has a frame there. What nobody
    asked for, a run of one pass, does not count."""

    async def stream(self, request: InfillRequest) -> AsyncGenerator[Frame | Infill]:
        if request.choices:
            yield Infill("", ("",), 8, 9, "settled", None, {}, scores=(-9.0, -1.0))
            return
        self.runs += request.params.max_steps != 1
        if self.runs == 1:
            (frame,) = told("diffgemma/frame")
            pieces = tuple(Piece(*piece) for piece in frame["holes"][0]["pieces"])
            yield Frame(frame["step"], frame["planned"], (pieces,), frame["entropy"])
        text = "width * height"
        yield Infill(text, (text,), 8, 9, "settled", None, {})  # of a rewrite


class Reader(InProcessClient):
    """Plays the page's client, and keeps what the server says by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.said: dict[str, list[Any]] = {}
        self.answers: dict[int, asyncio.Future[Any]] = {}
        for method in ("diffgemma/didChangeStatus", "diffgemma/frame"):
            self.heard[method] = self.said.setdefault(method, []).append
        self.replies["workspace/applyEdit"] = self._apply

    def _apply(self, params: Any) -> dict[str, bool]:
        self.said.setdefault("workspace/applyEdit", []).append(params)
        return {"applied": True}

    def play(self, message: dict[str, Any]) -> None:
        method, params = message["method"], message["params"]
        if "id" in message:
            self.answers[message["id"]] = self.ask(method, params)
        else:
            self.notify(method, params)

    async def expect(self, message: dict[str, Any]) -> None:
        if "id" in message:
            assert await self.answers[message["id"]] == message["result"]
            return
        async with asyncio.timeout(20):
            while message["params"] not in self.said.get(message["method"], []):
                await asyncio.sleep(0.01)


async def test_the_messages_are_what_the_server_takes_and_sends() -> None:
    engine, client = Scripted(), Reader()
    client.connect(lambda settings: engine)
    engine.says = {"state": "loading", "fraction": 0.4}
    for side, message in MESSAGES:
        if side == "server":
            await client.expect(message)
            continue
        if message["method"] == "diffgemma/status":
            await something_that_comes_to_nothing(client)
            info = {"model": "nano", "can": ["fill"], "languages": ["python"]}
            engine.says = {"state": "ready", "info": info}
        client.play(message)
        if message["method"] == "initialize":
            await client.answers[message["id"]]
            client.notify("initialized", {})
            client.send(did_open("file:///work/first.py", ""))  # for which the model is loaded
        if message["method"] == "diffgemma/status":
            await client.answers[message["id"]]
            client.send(did_close(URI))
    assert client.unexpected == []
    # The last message of the page turned it off.
    state = await client.request("diffgemma/status", {"textDocument": {"uri": URI}})
    assert "setting enable" in state["document"]["off"]
    assert engine.runs == len([one for _, one in MESSAGES if "fillings" in one.get("result", {})])


async def something_that_comes_to_nothing(client: InProcessClient) -> None:
    client.send(did_open(URI, "\n"))
    here = {"start": position(0, 0), "end": position(0, 0)}
    params = {
        "textDocument": {"uri": URI},
        "range": here,
        "context": {"diagnostics": [], "triggerKind": 2},
    }
    assert await client.request("textDocument/codeAction", params) == []


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_the_tables_have_every_action(kind: Any) -> None:
    (row,) = re.findall(rf"^\| {kind.title} \|.*$", PAGE, re.MULTILINE)
    assert f"`{kind.lsp}`" in row
    assert f"`diffgemma.{kind.name}`" in row
    assert re.search(rf"^\| {kind.title} \|", README, re.MULTILINE)


def test_the_tables_have_every_method_and_command() -> None:
    # What an editor sends by itself needs no line.
    by_itself = ("initialize", "shutdown", "exit", "window/", "$/", "completionItem/resolve")
    for method in build_server(lambda settings: FakeEngine()).rpc.fm.features:
        if not method.startswith(by_itself) and "/did" not in method:
            assert f"`{method}`" in PAGE, method
            assert f"`{method}`" in README, method
    assert all(f"`{name}`" in PAGE for name in NAMES)
