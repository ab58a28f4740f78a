"""The tests' own measure of what holds the event loop up."""

from __future__ import annotations

import time
from typing import Any

import pytest
from fake_engine import FakeEngine
from heartbeat import MOST_S, Heartbeat
from in_process import InProcessClient
from lsp_client import INVOKED, completion, did_open

from diffgemma_lsp.session.requests import Nothing

URI = "file:///work/a.py"


def work(busy_s: float) -> None:
    """Keeps the thread at work for so long, however busy the machine is."""
    end = time.thread_time() + busy_s
    while time.thread_time() < end:
        pass


async def test_what_holds_the_loop_up_is_named(
    client: InProcessClient,
    engine: FakeEngine,
    heart: Heartbeat,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def slow(*arguments: Any) -> Any:
        work(2 * MOST_S)  # some of it may be a collection of garbage
        raise Nothing("the loop was held up")

    monkeypatch.setattr("diffgemma_lsp.features.inline_completion.suggest", slow)
    await client.initialize(warm_up=False)
    client.send(did_open(URI, "x = "))
    assert await client.request(*completion(URI, 0, 4)) == []
    assert (heart.longest_s >= MOST_S, heart.what) == (True, "_answer")
    heart.begin()


async def test_a_long_text_where_a_list_belongs_is_refused_at_once(client: InProcessClient) -> None:
    await client.initialize(warm_up=False)
    event = {"added": [], "removed": "a" * 20_000}
    client.notify("workspace/didChangeWorkspaceFolders", {"event": event})
    change = {"textDocument": {"uri": URI, "version": 2}, "contentChanges": "a" * 1_000_000}
    client.notify("textDocument/didChange", change)
    assert (await client.request("diffgemma/status"))["state"]


@pytest.mark.parametrize(
    "line",
    [
        "# so" + " " * 100_000 + ".",
        "from " + "." * 50_000 + " x",
        "x = '" + "\\" * 50_000,
        "(" * 50_000,
    ],
    ids=["comment", "import", "string", "brackets"],
)
async def test_a_long_line_is_read_once(client: InProcessClient, line: str) -> None:
    """No expression looks at the same place again and again."""
    await client.initialize(warm_up=False)
    client.send(did_open(URI, f"{line}\nx = 1 + 1\n"))
    where = {"start": {"line": 1, "character": 0}, "end": {"line": 1, "character": 9}}
    params = {"textDocument": {"uri": URI}, "range": where, "context": {"diagnostics": []}}
    assert await client.request("textDocument/codeAction", params)
    await client.request(*completion(URI, 1, 4, INVOKED))


async def test_what_is_not_the_server_s_does_not_count(heart: Heartbeat) -> None:
    work(MOST_S)
    assert heart.longest_s < MOST_S
