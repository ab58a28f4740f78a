"""The language server over standard input and output, with the real engine and nano."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "lsp"))

from lsp_client import (  # noqa: E402
    INVOKED,
    LspClient,
    RpcError,
    completion,
    did_change,
    did_close,
    did_open,
    insertion,
)
from naive import naive_position  # noqa: E402

URI = "file:///work/real.py"
SERVER = (sys.executable, "-m", "diffgemma_lsp")

# A real file with the end of a line taken away.
SOURCE = (ROOT / "diffgemma_lsp" / "context" / "window.py").read_text(encoding="utf-8")
CUT = "excess = text.offset(cursor) - PREFIX_CHARS"
TEXT = SOURCE.replace(CUT, "excess = ")
CURSOR = TEXT.index("excess = ") + len("excess = ")

# Long enough for any machine: what is asked for then settles, and is the same each time.
PATIENT = {"invoked_budget_ms": 100_000}


@pytest.fixture
async def client(real_engine: dict[str, str]) -> AsyncIterator[LspClient]:
    client = LspClient()
    await client.start(*SERVER, env=real_engine)
    try:
        yield client
        assert await client.finish() == 0
    finally:
        if client.process.returncode is None:
            client.process.kill()


def asking(text: str, offset: int, kind: int, encoding: str) -> tuple[str, dict[str, Any]]:
    return completion(URI, *naive_position(text, offset, encoding), kind)


async def fill(client: LspClient, text: str, offset: int, encoding: str = "utf-16") -> Any:
    return await asyncio.wait_for(client.ask(*asking(text, offset, INVOKED, encoding)), 100)


async def test_ghost_text_the_same_in_every_encoding(real_engine: dict[str, str]) -> None:
    text = f"# 😀 e\u0301 \u2028 \f\r\n{TEXT}".replace(CUT, "")
    text = text.replace("excess = ", "'👩🏽'; excess = ")
    offset = text.index("excess = ") + len("excess = ")
    answers = []
    for encoding in ("utf-8", "utf-16", "utf-32"):
        client = LspClient()
        await client.start(*SERVER, env=real_engine)
        await client.initialize([encoding], **PATIENT)
        client.send(did_open(URI, text))
        items = await fill(client, text, offset, encoding)
        answers.append([item["insertText"] for item in items])
        reason = (await client.request("diffgemma/status"))["lastReason"]
        assert (items == []) == (reason is not None)
        assert await client.finish() == 0
    assert answers[0] == answers[1] == answers[2]


async def test_automatic_requests_are_answered_in_time(client: LspClient) -> None:
    await client.initialize(**PATIENT)
    client.send(did_open(URI, TEXT))
    await fill(client, TEXT, CURSOR)  # now the model is loaded
    took = []
    text, cursor = TEXT, CURSOR
    for version, letter in enumerate("text.of", 2):
        change = insertion(*naive_position(text, cursor, "utf-16"), letter)
        text, cursor = text[:cursor] + letter + text[cursor:], cursor + 1
        client.send(did_change(URI, version, change))
        began = time.perf_counter()
        items = await client.request(*asking(text, cursor, 2, "utf-16"))
        took.append(time.perf_counter() - began)
        for item in items:
            word = text[:cursor].rpartition("= ")[2].rpartition(".")[2]
            assert item["insertText"].startswith(word)
    # The server keeps to 550 ms whatever the engine does; the rest is for a machine under load.
    assert sorted(took)[len(took) // 2] < 1.5
    assert client.shown == []


async def test_what_ends_a_request_early(client: LspClient) -> None:
    await client.initialize(**PATIENT)
    client.send(did_open(URI, TEXT))
    message = asking(TEXT, CURSOR, INVOKED, "utf-16")
    superseded, cancelled = client.ask(*message), client.ask(*message)
    await asyncio.sleep(0.1)
    client.cancel(cancelled)
    assert await superseded == []
    with pytest.raises(RpcError) as caught:
        await cancelled
    assert caught.value.code == -32800
    changed = client.ask(*message)
    await asyncio.sleep(0.1)
    client.send(did_change(URI, 2, insertion(0, 0, "\n")))
    assert await changed == []
    closed = client.ask(*message)
    client.send(did_close(URI))
    assert await closed == []


async def test_a_killed_engine_is_started_again(
    client: LspClient, real_engine: dict[str, str]
) -> None:
    await client.initialize(**PATIENT)
    client.send(did_open(URI, TEXT))
    before = await fill(client, TEXT, CURSOR)
    (lock,) = Path(real_engine["DIFFGEMMA_LSP_RUNTIME_DIR"]).glob("*.lock")
    os.kill(int(lock.read_text()), signal.SIGKILL)
    assert await fill(client, TEXT, CURSOR) == before
    assert client.shown == []


async def test_shutdown_while_generating(client: LspClient) -> None:
    await client.initialize(**PATIENT)
    client.send(did_open(URI, TEXT))
    answer = client.ask(*asking(TEXT, CURSOR, INVOKED, "utf-16"))
    await asyncio.sleep(0.1)
    await asyncio.wait_for(client.request("shutdown"), 10)
    assert isinstance(await answer, list)
    client.notify("exit")
    await asyncio.wait_for(client.process.wait(), 30)
