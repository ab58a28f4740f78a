"""Suggestions as entries of a list, and beside ghost text."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fake_engine import FakeEngine, slow
from in_process import InProcessClient
from lsp_client import (
    INVOKED,
    RpcError,
    answered_at_once,
    completion,
    did_close,
    did_open,
    position,
    until,
)
from suggesting import PLAN, URI


async def test_completion_for_editors_without_inline_completion(
    client: InProcessClient, engine: FakeEngine
) -> None:
    await client.initialize(["utf-16"])
    assert "completionProvider" in client.capabilities
    client.send(did_open(URI, PLAN.replace("foo", "éa\\nb") + "x = 😀na\n"))
    params = {
        "textDocument": {"uri": URI},
        "position": position(1, 8),
        "context": {"triggerKind": 1},
    }
    result = await client.request("textDocument/completion", params)
    assert result["isIncomplete"] is True
    (item,) = result["items"]
    assert item["textEdit"]["newText"].startswith("naéa")
    assert item["textEdit"]["range"] == {"start": position(1, 6), "end": position(1, 8)}
    assert item["filterText"] == "na"
    assert item["sortText"] > "zzzz"
    assert "preselect" not in item
    params["position"] = position(1, 2)
    assert (await client.request("textDocument/completion", params))["items"] == []


def both_ask(client: InProcessClient, column: int) -> tuple[asyncio.Future[Any], ...]:
    """Both methods at one place, as from an editor that uses both."""
    request = {"textDocument": {"uri": URI}, "position": position(1, column)}
    methods = completion(URI, 1, column), ("textDocument/completion", request)
    return tuple(client.ask(*asked) for asked in methods)


async def test_both_methods_at_one_place_share_a_run(
    client: InProcessClient, engine: FakeEngine
) -> None:
    await client.initialize(look_ahead=False, automatic_budget_ms=60_000)
    client.send(did_open(URI, slow(0.2, text="foo") + "x = \n"))
    inline, entries = both_ask(client, 4)
    assert [item["insertText"] for item in await inline] == ["foo"]
    (entry,) = (await entries)["items"]
    assert entry["textEdit"]["newText"] == "foo"
    assert engine.runs == 1


async def test_each_method_ends_its_own_older_request(
    client: InProcessClient, engine: FakeEngine
) -> None:
    await client.initialize(look_ahead=False, automatic_budget_ms=60_000)
    client.send(did_open(URI, slow(60, text="foo") + "x = \n"))
    inline, entries = both_ask(client, 4)
    newer = client.ask(*completion(URI, 1, 2, INVOKED))
    assert await answered_at_once(inline) == []
    assert (await answered_at_once(entries))["items"] == []
    assert not newer.done()
    client.send(did_close(URI))
    assert await answered_at_once(newer) == []


async def test_who_shares_a_run_goes_on_when_the_other_one_is_withdrawn(
    client: InProcessClient, engine: FakeEngine
) -> None:
    await client.initialize(look_ahead=False, automatic_budget_ms=60_000)
    client.send(did_open(URI, slow(0.3, text="foo") + "x = \n"))
    inline, entries = both_ask(client, 4)
    await until(lambda: engine.runs == 1)
    client.cancel(inline)
    with pytest.raises(RpcError):
        await inline
    (entry,) = (await entries)["items"]
    assert entry["textEdit"]["newText"] == "foo"
    assert engine.runs == 2
    assert not client.server.session.suggestions.under_way


async def test_why_there_is_nothing_is_shared_too(
    client: InProcessClient, engine: FakeEngine
) -> None:
    await client.initialize(look_ahead=False, automatic_budget_ms=60_000)
    client.send(did_open(URI, slow(0.2, text=" ") + "x = \n"))
    inline, entries = both_ask(client, 4)
    assert (await inline, (await entries)["items"]) == ([], [])
    assert engine.runs == 1
    state = await client.request("diffgemma/status", {"textDocument": {"uri": URI}})
    said = set(state["document"]["reasons"].values())
    assert said == {"the model has nothing to add here"}
    assert len(state["document"]["reasons"]) == 2


AS_IS, ADJUST = 1, 2


@pytest.mark.parametrize(
    ("supported", "default", "mode", "adjusted"),
    [
        ([AS_IS, ADJUST], None, AS_IS, False),
        ([AS_IS], ADJUST, AS_IS, False),
        ([ADJUST], None, ADJUST, True),
        (None, ADJUST, ADJUST, True),
        (None, AS_IS, None, False),
        (None, None, None, False),
    ],
)
async def test_several_lines_are_indented_once(
    client: InProcessClient,
    engine: FakeEngine,
    supported: list[int] | None,
    default: int | None,
    mode: int | None,
    adjusted: bool,
) -> None:
    item = {"insertTextModeSupport": {"valueSet": supported}} if supported else {}
    said = {"completionItem": item, **({"insertTextMode": default} if default else {})}
    await client.initialize(capabilities={"textDocument": {"completion": said}}, look_ahead=False)
    engine.texts = ("if x:\n            y()\n        z()",)
    client.send(did_open(URI, "class A:\n    def f(self):\n        \n"))
    request = {"textDocument": {"uri": URI}, "position": position(2, 8)}
    (entry,) = (await client.request("textDocument/completion", request))["items"]
    blanks = "" if adjusted else "        "
    assert entry["textEdit"]["newText"] == f"if x:\n{blanks}    y()\n{blanks}z()"
    assert entry.get("insertTextMode") == mode


async def test_completion_keeps_out_of_the_way_of_inline_completion(
    client: InProcessClient,
) -> None:
    await client.initialize(capabilities={"textDocument": {"inlineCompletion": {}}})
    assert "completionProvider" not in client.capabilities
    assert "inlineCompletionProvider" in client.capabilities
