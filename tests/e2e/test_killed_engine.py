"""kill -9 of the engine service, whatever it is doing: a clear word, and then it works again."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "lsp"))

from lsp_client import INVOKED, LspClient, completion, did_change, did_open, position  # noqa: E402

URI = "file:///work/killed.py"
SERVER = (sys.executable, "-m", "diffgemma_lsp")
# So long that its prefix takes a while, with a place to fill and a line to rewrite.
LINES = (ROOT / "engine" / "serve" / "scheduler.py").read_text(encoding="utf-8").splitlines()[:150]
TEXT = "\n".join([*LINES, "result = ", "total = first + second", ""])
AT, REWRITTEN = len(LINES), len(LINES) + 1

PATIENT = {"invoked_budget_ms": 90_000, "action_budget_ms": 90_000, "candidates": 1}
CAPABILITIES = {
    "workspace": {"applyEdit": True, "workspaceEdit": {"documentChanges": True}},
    "experimental": {"diffgemma": {"frames": True}},
}


@pytest.fixture(scope="module")
def own_engine() -> Iterator[dict[str, str]]:
    """An engine of these tests alone: nobody else's is killed."""
    folder = tempfile.mkdtemp(prefix="dgkill-")
    yield {**os.environ, "DIFFGEMMA_LSP_RUNTIME_DIR": folder, "PYTHONPATH": str(ROOT)}
    pid = service(folder)
    if pid is not None:
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def service(folder: str) -> int | None:
    """The process that holds the lock, if it lives."""
    for lock in Path(folder).glob("*.lock"):
        if (written := lock.read_text().strip()) and Path(f"/proc/{written}").exists():
            return int(written)
    return None


class Victim:
    """A client, its document, and the engine that is killed."""

    def __init__(self, client: LspClient, folder: str) -> None:
        self.client, self.folder = client, folder
        self.applied: list[Any] = []
        self.frames = 0
        client.replies["workspace/applyEdit"] = self._apply
        client.heard["diffgemma/frame"] = self._frame

    def _apply(self, params: Any) -> dict[str, Any]:
        self.applied.append(params)
        return {"applied": True}

    def _frame(self, params: Any) -> None:
        self.frames += 1

    def ask(self, what: str) -> asyncio.Future[Any]:
        if what == "suggestion":
            return self.client.ask(*completion(URI, AT, 9, INVOKED))
        where = {"start": position(REWRITTEN, 0), "end": position(REWRITTEN, 22)}
        order = {"textDocument": {"uri": URI}, "range": where, "strength": 0.9}
        params = {"command": "diffgemma.rewrite", "arguments": [order]}
        return self.client.ask("workspace/executeCommand", params)

    async def status(self) -> dict[str, Any]:
        return await self.client.request("diffgemma/status")

    async def until(self, *states: str) -> None:
        """Waits until the engine is in one of these states."""
        for _ in range(3_000):
            if (await self.status())["state"] in states:
                return
            await asyncio.sleep(0.02)
        pytest.fail(f"never {states}")

    async def kill(self) -> None:
        for _ in range(3_000):
            if (pid := service(self.folder)) is not None:
                os.kill(pid, signal.SIGKILL)
                return
            await asyncio.sleep(0.01)
        pytest.fail("no service")


@pytest.fixture
async def victim(own_engine: dict[str, str]) -> AsyncIterator[Victim]:
    client = LspClient()
    await client.start(*SERVER, env=own_engine)
    try:
        victim = Victim(client, own_engine["DIFFGEMMA_LSP_RUNTIME_DIR"])
        await client.initialize(None, CAPABILITIES, warm_up=False, **PATIENT)
        client.send(did_open(URI, TEXT))
        yield victim
        assert await client.finish() == 0
    finally:
        if client.process.returncode is None:
            client.process.kill()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("what", ["suggestion", "rewrite"])
@pytest.mark.parametrize("phase", ["loading", "prefill", "streaming"])
async def test_killed_while(victim: Victim, phase: str, what: str) -> None:
    client = victim.client
    if phase == "loading":
        if service(victim.folder) is not None:  # of the test before
            await victim.kill()
        answer = victim.ask(what)
    else:
        await asyncio.wait_for(victim.ask("suggestion"), 100)  # now it is loaded
        victim.frames = 0
        # Another text, so that the prefix is to be read anew.
        new = {"text": TEXT.replace("import", "IMPORT")}
        client.send(did_change(URI, 2, new))
        answer = victim.ask(what)
        if phase == "streaming" and what == "rewrite":
            while not victim.frames and not answer.done():
                await asyncio.sleep(0.005)
        else:
            await asyncio.sleep(0.05 if phase == "prefill" else 0.4)
    await victim.kill()

    # Answered: with what a new engine made of it, or with what happened.
    result = await asyncio.wait_for(answer, 100)
    told = [message["message"] for message in client.shown]
    if what == "rewrite":
        message = result["message"]
        assert result["applied"] == (message is None)
        assert len(victim.applied) == result["applied"], "the document was touched"
    else:
        message = None if result else (await victim.status())["lastReason"]
    if message and "went away" in message:
        assert "ask again" in message
        assert any(message in one for one in told)
    assert not any("internal error" in one for one in told)

    # And the next one works, soon after the model is there again.
    # No suggestion: that may be known by now, and needs no engine.
    await asyncio.wait_for(victim.ask("rewrite"), 100)
    await victim.until("ready", "filling")
    began = time.perf_counter()
    after = await asyncio.wait_for(victim.ask("rewrite"), 100)
    took = time.perf_counter() - began
    assert isinstance(after, dict)
    assert "went away" not in str(after)
    # The aim is 3 s; a machine under load gets more, so that this is no game of chance.
    assert took < 30
