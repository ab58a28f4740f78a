"""An editor that uses everything: a client of the real server that hears all that it tells."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "lsp"))

from lsp_client import LspClient, completion, did_open  # noqa: E402

URI = "file:///work/shapes.py"
SERVER = (sys.executable, "-m", "diffgemma_lsp")

RESOLVES = {
    "codeAction": {
        "codeActionLiteralSupport": {"codeActionKind": {"valueSet": [""]}},
        "dataSupport": True,
        "resolveSupport": {"properties": ["edit"]},
    }
}
INLINE = {"inlineCompletion": {}}
WORKSPACE = {"applyEdit": True, "workspaceEdit": {"documentChanges": True}}
ALL: dict[str, Any] = {
    "textDocument": {**RESOLVES, **INLINE},
    "workspace": WORKSPACE,
    "window": {"workDoneProgress": True},
    "experimental": {"diffgemma": {"frames": True, "status": True}},
}

# What has not settled by then is taken as it is: a slow machine makes a test no slower than this.
OPTIONS = {"invoked_budget_ms": 8_000, "action_budget_ms": 15_000, "look_ahead": False}


class Editor(LspClient):
    """A client that hears all that the server has to tell, and whose requests leave reasons."""

    def __init__(self) -> None:
        super().__init__()
        self.states: list[dict[str, Any]] = []
        self.frames: list[dict[str, Any]] = []
        self.progress: list[dict[str, Any]] = []
        self.heard["diffgemma/didChangeStatus"] = self.states.append
        self.heard["diffgemma/frame"] = self.frames.append
        self.heard["$/progress"] = self.progress.append
        self.replies["window/workDoneProgress/create"] = lambda params: None

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(90):
            while not condition():
                await asyncio.sleep(0.02)

    async def until_it_is(self, state: str) -> None:
        await self.until(lambda: self.states and self.states[-1]["state"] == state)

    async def begin(self, text: str, capabilities: Any = ALL, **options: Any) -> None:
        """Opens the document; the model is loaded then."""
        await self.initialize(capabilities=capabilities, **{**OPTIONS, **options})
        self.send(did_open(URI, text))
        if capabilities is ALL:
            await self.until_it_is("ready")

    async def wait(self, method: str, params: Any) -> Any:
        """The answer to what may take as long as it likes."""
        return await asyncio.wait_for(self.ask(method, params), 90)

    async def reason(self, method: str, uri: str = URI) -> str | None:
        """Why the method last came to nothing in the document."""
        state = await self.request("diffgemma/status", {"textDocument": {"uri": uri}})
        return state["document"]["reasons"].get(method)

    async def suggestions(self, line: int, character: int, kind: int, uri: str = URI) -> Any:
        """What is suggested there; where that is nothing, there is a reason."""
        items = await self.wait(*completion(uri, line, character, kind))
        reason = await self.reason("textDocument/inlineCompletion", uri)
        assert (items == []) == (reason is not None)
        return items

    async def actions(self, where: dict[str, Any], uri: str = URI, **context: Any) -> Any:
        """The actions that are offered there."""
        return await self.request(
            "textDocument/codeAction",
            {
                "textDocument": {"uri": uri},
                "range": where,
                "context": {"diagnostics": [], **context},
            },
        )

    async def execute(self, name: str, where: dict[str, Any], **more: Any) -> Any:
        """The result of a command."""
        token = more.pop("workDoneToken", None)
        order = {"textDocument": {"uri": URI, "version": 1}, "range": where, **more}
        params = {"command": f"diffgemma.{name}", "arguments": [order], "workDoneToken": token}
        return await self.wait("workspace/executeCommand", params)
