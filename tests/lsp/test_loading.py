"""What is asked for while the model is being loaded: held until it is there. In process."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

import pytest
from fake_engine import FakeEngine, slow
from in_process import InProcessClient
from lsp_client import (
    AUTOMATIC,
    INVOKED,
    RpcError,
    answered_at_once,
    completion,
    did_change,
    did_close,
    did_open,
    insertion,
    position,
    span,
    until,
)

from diffgemma_lsp.features import inline_completion
from diffgemma_lsp.features.inline_edit import METHOD as NEXT_EDIT
from diffgemma_lsp.session import loading
from diffgemma_lsp.session.loading import was_without_model

URI = "file:///work/a.py"
PLAN = '# fake: {"text": "foo(bar)"}\n'
QUICK = {"automatic_budget_ms": 60, "invoked_budget_ms": 60, "look_ahead": False}
LIST: dict[str, Any] = {"textDocument": {"uri": URI}, "position": position(1, 4)}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, engine: FakeEngine) -> None:
    monkeypatch.setattr(loading, "LOOK_S", 0.01)
    monkeypatch.setattr("diffgemma_lsp.session.engine.FIRST_S", 1.0)
    engine.loading_until = math.inf


async def opened(client: InProcessClient, text: str = PLAN + "x = ", **options: Any) -> None:
    await client.initialize(**{**QUICK, **options})
    client.send(did_open(URI, text))


async def held(client: InProcessClient, kind: int = AUTOMATIC) -> asyncio.Future[Any]:
    """The answer to a request whose time is long up."""
    answer = client.ask(*completion(URI, 1, 4, kind))
    await asyncio.sleep(0.3)
    assert not answer.done()
    return answer


@pytest.mark.parametrize("kind", [AUTOMATIC, INVOKED])
async def test_it_is_answered_when_the_model_is_there(
    client: InProcessClient, engine: FakeEngine, kind: int
) -> None:
    await opened(client)
    answer = await held(client, kind)
    assert (await client.request("diffgemma/status"))["state"] == "loading"
    engine.loading_until = time.monotonic()
    assert [item["insertText"] for item in await answer][:1] == ["foo(bar)"]
    assert engine.requests[-1].budget_s == pytest.approx(0.9, abs=0.1), "time for a first pass"
    assert client.shown == []


async def test_a_model_that_came_at_the_last_moment(
    client: InProcessClient, engine: FakeEngine
) -> None:
    engine.loading_until, engine.says = -math.inf, {"state": "ready", "loaded_s": 0.0}
    await opened(client, slow(1e9, deaf=True) + "x = ", warm_up=False)
    answer = client.ask(*completion(URI, 1, 4))
    await until(lambda: engine.runs == 2)
    engine.says = {"state": "ready", "loaded_s": 1.0}
    assert await answer == [], "this time it had a model, and was too slow"
    assert engine.runs <= 3


async def test_an_engine_with_its_model_is_not_asked_twice(
    client: InProcessClient, engine: FakeEngine
) -> None:
    engine.loading_until = -math.inf
    await opened(client, slow(1e9, deaf=True) + "x = ")
    assert await client.request(*completion(URI, 1, 4)) == []
    assert engine.runs == 1


@pytest.mark.parametrize(
    "ending",
    [
        did_change(URI, 2, insertion(0, 0, "\n")),
        did_close(URI),
        {
            "jsonrpc": "2.0",
            "id": "newer",
            "method": completion(URI, 1, 4)[0],
            "params": completion(URI, 1, 3)[1],
        },
    ],
)
async def test_what_ends_any_request_ends_one_that_is_held(
    client: InProcessClient, engine: FakeEngine, ending: dict[str, Any]
) -> None:
    await opened(client)
    answer = await held(client)
    runs = engine.runs
    client.send(ending)
    assert await answered_at_once(answer) == []
    assert engine.runs <= runs + 1, "nothing is asked for it any more"


async def test_it_can_be_cancelled(client: InProcessClient, engine: FakeEngine) -> None:
    await opened(client)
    answer = await held(client)
    client.cancel(answer)
    with pytest.raises(RpcError) as caught:
        await answered_at_once(answer)
    assert caught.value.code == -32800
    session = client.server.session
    assert session.requests.idle
    engine.loading_until = time.monotonic()
    await until(lambda: not session.requests._background)


async def test_a_list_is_not_held(client: InProcessClient, engine: FakeEngine) -> None:
    # Those of other servers would come no sooner.
    await opened(client)
    waiting = await held(client)
    listed = client.ask("textDocument/completion", LIST)
    assert (await answered_at_once(listed))["items"] == []
    assert not waiting.done()
    engine.loading_until = time.monotonic()
    assert [item["insertText"] for item in await waiting] == ["foo(bar)"]


async def test_a_list_that_was_asked_for_first_ends_nothing(
    client: InProcessClient, engine: FakeEngine
) -> None:
    await opened(client)
    listed = client.ask("textDocument/completion", LIST)
    waiting = await held(client)
    assert (await listed)["items"] == []
    engine.loading_until = time.monotonic()
    assert [item["insertText"] for item in await waiting] == ["foo(bar)"]


async def test_next_edits_are_held_too(client: InProcessClient, engine: FakeEngine) -> None:
    await opened(client, "def f(width):\n    print(width)\n    return width\n")
    client.send(did_change(URI, 2, {"range": span(0, 6, 0, 11), "text": "w"}))
    where = {"textDocument": {"uri": URI, "version": 2}, "position": position(0, 7)}
    answer = client.ask(NEXT_EDIT, where)
    await asyncio.sleep(0.3)
    assert not answer.done()
    engine.loading_until = time.monotonic()
    (edit,) = (await answer)["edits"]
    assert edit["text"] == "    print(w)"


async def test_a_model_that_cannot_be_loaded_is_told_once(
    client: InProcessClient, engine: FakeEngine
) -> None:
    await opened(client, '# fake: {"error": "model_error"}\nx = ')
    answer = await held(client)
    failed = {"state": "unloaded", "last_error": "the fake engine was told to fail", "info": None}
    engine.says = failed
    engine.loading_until = time.monotonic()
    assert await answer == []
    reason = (await client.request("diffgemma/status"))["lastReason"]
    assert reason == "the fake engine was told to fail"
    await until(lambda: not client.server.session.requests._background)
    assert len(client.shown) == 1


async def test_nobody_is_waited_for_for_ever(
    client: InProcessClient, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inline_completion, "HELD_S", 0.5)
    await opened(client)
    began = time.monotonic()
    assert await client.request(*completion(URI, 1, 4)) == []
    assert time.monotonic() - began >= 0.4
    session = client.server.session
    engine.loading_until = time.monotonic()
    await until(lambda: not session.requests._background)
    assert session.engines.default.trouble.missed == 0


@pytest.mark.parametrize(
    ("status", "was"),
    [
        (None, True),
        ({"state": "unloaded", "last_error": "x"}, True),
        ({"state": "loading"}, True),
        ({"state": "stopping"}, True),
        ({"state": "ready", "loaded_s": 0.4}, True),
        ({"state": "busy", "loaded_s": 0.4}, True),
        ({"state": "ready", "loaded_s": 0.6}, False),
        ({"state": "ready"}, False),
    ],
)
def test_whether_there_was_a_model(status: dict[str, Any] | None, was: bool) -> None:
    assert was_without_model(status, 0.5) == was
