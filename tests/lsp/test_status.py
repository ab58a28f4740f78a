"""How the server is doing, told and asked for, and why there was nothing to show. In process."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from acting import RESOLVES, URI, asking
from fake_engine import FakeEngine, slow
from in_process import InProcessClient
from lsp_client import (
    INVOKED,
    completion,
    did_change,
    did_close,
    did_open,
    insertion,
    position,
    span,
    until,
)

from diffgemma_lsp.session import status
from diffgemma_lsp.session.trouble import still
from engine.errors import EngineError, EngineUnavailable, ModelError, OutOfMemory

NEWS = {"experimental": {"diffgemma": {"status": True}}}
CODE = "x = 1\n\n"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "DELAY_S", 0.005)
    monkeypatch.setattr(status, "POLL_S", 0.01)


async def asked(client: InProcessClient, uri: str | None = URI) -> dict[str, Any]:
    params = {"textDocument": {"uri": uri}} if uri else None
    return await client.request("diffgemma/status", params)


async def listening(client: InProcessClient, **options: Any) -> list[dict[str, Any]]:
    """Everything that the client is told of the status from here on."""
    told: list[dict[str, Any]] = []
    client.heard["diffgemma/didChangeStatus"] = told.append
    await client.initialize(capabilities={**RESOLVES, **NEWS}, **options)
    return told


# ---- told ----


async def test_loading_is_told_with_its_percent_and_then_ready(
    client: InProcessClient, engine: FakeEngine
) -> None:
    engine.says = {"state": "loading", "fraction": 0.25}
    told = await listening(client)
    client.send(did_open(URI, CODE))
    await until(lambda: told and told[-1]["percent"] == 25)
    assert told[-1] == {"state": "loading", "message": "loading the model: 25%", "percent": 25}
    engine.says = {"state": "loading", "fraction": 0.754}
    await until(lambda: told[-1]["percent"] == 75)
    engine.says = {"state": "ready"}
    await until(lambda: told[-1]["state"] == "ready")
    assert told[-1]["percent"] is None
    assert [one for one, next in itertools.pairwise(told) if one == next] == []


async def test_an_engine_that_is_silent_while_it_imports_is_still_loading(
    client: InProcessClient, engine: FakeEngine
) -> None:
    engine.says = {"state": "loading", "fraction": 0.0}
    told = await listening(client)
    client.send(did_open(URI, CODE))
    await until(lambda: told and told[-1]["percent"] == 0)
    engine.says = None
    before = engine.asked
    await until(lambda: engine.asked > before + 3)
    assert told[-1]["percent"] == 0
    await until(lambda: told[-1]["state"] == "idle")  # and one that has died is not


async def test_a_run_is_told_and_its_end(client: InProcessClient, engine: FakeEngine) -> None:
    told = await listening(client)
    client.send(did_open(URI, slow() + "x = \n"))
    await until(lambda: told and told[-1]["state"] == "ready")
    answer = client.ask(*completion(URI, 1, 4, INVOKED))
    await until(lambda: told[-1]["state"] == "filling")
    client.send(did_change(URI, 2, insertion(0, 0, "\n")))
    assert await answer == []
    await until(lambda: told[-1]["state"] == "ready")


async def test_when_there_is_nothing_to_do_there_are_no_timers(
    client: InProcessClient, engine: FakeEngine
) -> None:
    told = await listening(client, look_ahead=False)
    client.send(did_open(URI, CODE))
    await client.request(*completion(URI, 0, 4, INVOKED))
    session = client.server.session
    await until(lambda: told and told[-1]["state"] == "ready" and not session.requests._background)
    before = engine.asked
    await asyncio.sleep(0.05)
    assert engine.asked == before
    assert session.requests._background == set()


async def test_asking_starts_nothing(engine: FakeEngine) -> None:
    made: list[object] = []
    client = InProcessClient()
    client.connect(lambda settings: made.append(settings) or engine)
    told = await listening(client, warm_up=False)
    client.send(did_open(URI, CODE))
    assert (await asked(client))["state"] == "idle"
    await until(lambda: told and not client.server.session.requests._background)
    assert [one["state"] for one in told] == ["idle"]
    assert made == []


async def test_who_does_not_ask_for_news_gets_none(
    client: InProcessClient, engine: FakeEngine
) -> None:
    engine.says = {"state": "loading", "fraction": 0.5}
    await client.initialize(warm_up=False)
    client.send(did_open(URI, CODE))
    await client.request(*completion(URI, 0, 4, INVOKED))
    await until(
        lambda: not client.server.session.requests._background
    )  # though it is still loading
    before = engine.asked
    await asyncio.sleep(0.05)
    assert engine.asked == before


async def test_an_error_is_told_with_the_way_out_until_it_is_over() -> None:
    failures = [EngineUnavailable("no socket here: set TMPDIR")]

    class Failing(FakeEngine):
        async def warm_up(self) -> None:
            raise failures[0]

    engine = Failing()
    engine.says = None  # it is not there
    client = InProcessClient()
    client.connect(lambda settings: engine)
    told = await listening(client)
    client.send(did_open(URI, CODE))
    await until(lambda: told and told[-1]["state"] == "error")
    assert told[-1]["message"] == "no socket here: set TMPDIR"
    engine.says = {"state": "ready"}
    await client.request(*completion(URI, 0, 4, INVOKED))
    await until(lambda: told[-1]["state"] == "ready")


async def test_a_model_that_cannot_be_loaded_is_told(
    client: InProcessClient, engine: FakeEngine
) -> None:
    engine.says = {"state": "unloaded", "last_error": "no model in /m: name another one"}
    told = await listening(client)
    client.send(did_open(URI, CODE))
    await until(lambda: told and told[-1]["state"] == "error")
    assert told[-1]["message"] == "no model in /m: name another one"


@pytest.mark.parametrize(
    ("error", "gone"),
    [
        (None, True),
        (ModelError("no model"), True),
        (EngineUnavailable("no engine"), True),
        (OutOfMemory("too large"), False),
        (EngineError("a bug"), False),
    ],
)
def test_an_error_is_over_when_there_is_an_engine(error: EngineError | None, gone: bool) -> None:
    assert still(error) is (None if gone else error)


async def test_what_was_wrong_is_over_when_the_model_is_there(
    client: InProcessClient, engine: FakeEngine
) -> None:
    told = await listening(client)
    client.send(did_open(URI, CODE))
    await until(lambda: told and told[-1]["state"] == "ready")
    client.server.session.engines.default.trouble.report(
        EngineUnavailable("others can enter the folder")
    )
    await until(lambda: client.server.session.engines.default.trouble.last_error is None)
    await until(lambda: told[-1]["state"] == "ready")


async def test_an_engine_that_is_late_again_and_again_is_slow(
    client: InProcessClient, engine: FakeEngine
) -> None:
    told = await listening(client, automatic_budget_ms=50)
    client.send(did_open(URI, slow(deaf=True) + "x = \n"))
    await until(lambda: told and told[-1]["state"] == "ready")
    engine.says = {"state": "loading", "fraction": 0.5}
    where = {"textDocument": {"uri": URI}, "position": position(1, 4)}
    await client.request("textDocument/completion", where)  # late, which it has a reason for
    await until(lambda: told[-1]["state"] == "loading")
    engine.says = {"state": "ready"}
    for _ in range(status.SLOW):
        assert told[-1]["state"] != "slow"
        assert await client.request(*completion(URI, 1, 4)) == []
    await until(lambda: told[-1]["state"] == "slow")
    assert "automatic_budget_ms" in told[-1]["message"]
    assert (await asked(client))["state"] == "slow"
    line = {"start": position(0, 0), "end": position(1, 0)}
    client.send(did_change(URI, 2, {"range": line, "text": ""}, insertion(0, 0, "y = 1\n")))
    assert await client.request(*completion(URI, 1, 4, INVOKED)) != []
    await until(lambda: told[-1]["state"] == "ready")


async def test_turned_off_and_on_again(client: InProcessClient) -> None:
    told = await listening(client, enable=False)
    client.send(did_open(URI, CODE))
    await until(lambda: told and told[-1]["state"] == "off")
    client.notify("workspace/didChangeConfiguration", {"settings": {"diffgemma": {"enable": True}}})
    await until(lambda: told[-1]["state"] == "ready")


async def test_unloaded_is_told(client: InProcessClient, engine: FakeEngine) -> None:
    told = await listening(client)
    client.send(did_open(URI, CODE))
    await until(lambda: told and told[-1]["state"] == "ready")
    await client.request("workspace/executeCommand", {"command": "diffgemma.unload"})
    await until(lambda: told[-1]["state"] == "idle")


async def test_an_engine_that_unloads_by_itself_is_told(
    client: InProcessClient, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "UNLOAD_S", 0.02)
    engine.says = {"state": "ready", "idle_unload_s": 0.1, "idle_s": 0.0}
    told = await listening(client)
    client.send(did_open(URI, CODE))
    await until(lambda: told and told[-1]["state"] == "ready")
    await until(lambda: not client.server.session.requests._background)
    engine.says = {"state": "unloaded", "idle_unload_s": 0.1, "idle_s": 0.1}
    await until(lambda: told[-1]["state"] == "idle")
    await until(lambda: not client.server.session.requests._background)
    before = engine.asked
    await asyncio.sleep(0.2)
    assert engine.asked == before, "there is nothing more to wait for"


async def test_no_news_after_shutdown(client: InProcessClient, engine: FakeEngine) -> None:
    told = await listening(client)
    client.send(did_open(URI, slow() + "x = \n"))
    answer = client.ask(*completion(URI, 1, 4, INVOKED))
    await until(lambda: told and told[-1]["state"] == "filling")
    count = len(told)
    await client.request("shutdown")
    assert await answer == []
    await asyncio.sleep(0.03)
    assert len(told) == count


# ---- asked for ----


WRONG = {"range": span(0, 0, 0, 1), "message": "x is not used"}


@pytest.mark.parametrize(
    ("where", "context", "word"),
    [
        (span(1, 0, 1, 0), {"triggerKind": 2}, "a cursor that moves"),
        (span(1, 0, 2, 0), {}, "nothing to fill, rewrite or add"),
        (span(0, 0, 0, 5), {"only": ["source"]}, "source"),
        (
            span(0, 0, 0, 0),
            {"triggerKind": 2, "diagnostics": [WRONG]},
            "does not follow instructions",
        ),
    ],
)
async def test_why_no_action_was_offered(
    client: InProcessClient, where: dict[str, Any], context: dict[str, Any], word: str
) -> None:
    await client.initialize(capabilities=RESOLVES)
    client.send(did_open(URI, CODE))
    assert await client.request(*asking(where, **context)) == []
    state = await asked(client)
    assert word in state["document"]["reasons"]["textDocument/codeAction"]
    assert state["lastReason"] is None
    assert await client.request(*asking(span(0, 0, 0, 5))) != []
    assert (await asked(client))["document"]["reasons"] == {}


async def test_each_method_says_why_it_came_to_nothing(
    client: InProcessClient, engine: FakeEngine
) -> None:
    engine.texts = ("",)
    await client.initialize(capabilities=RESOLVES, look_ahead=False)
    client.send(did_open(URI, "x = \n"))
    where = {"textDocument": {"uri": URI}, "range": span(0, 4, 0, 4)}
    assert await client.request(*completion(URI, 0, 4)) == []
    request = {"textDocument": {"uri": URI}, "position": position(0, 4)}
    assert (await client.request("textDocument/completion", request))["items"] == []
    (fill, *_) = await client.request(*asking(where["range"]))
    assert "edit" not in await client.request("codeAction/resolve", fill)
    order = {**where, "apply": False}
    command = {"command": "diffgemma.holes", "arguments": [order]}
    assert (await client.request("workspace/executeCommand", command))["applied"] is False
    reasons = (await asked(client))["document"]["reasons"]
    assert {method: bool(reason) for method, reason in reasons.items()} == {
        "textDocument/inlineCompletion": True,
        "textDocument/completion": True,
        "codeAction/resolve": True,
        "workspace/executeCommand": True,
    }
    engine.texts = ("more",)
    assert await client.request(*completion(URI, 0, 4, INVOKED)) != []
    assert "textDocument/inlineCompletion" not in (await asked(client))["document"]["reasons"]


async def test_an_engine_that_fails_is_a_reason_too(client: InProcessClient) -> None:
    await client.initialize(capabilities=RESOLVES)
    client.send(did_open(URI, '# fake: {"error": "out_of_memory"}\nold\n'))
    (rewrite, *_) = await client.request(*asking(span(1, 0, 1, 3)))
    assert "edit" not in await client.request("codeAction/resolve", rewrite)
    assert "told to fail" in (await asked(client))["document"]["reasons"]["codeAction/resolve"]


async def test_what_is_said_of_a_document(client: InProcessClient) -> None:
    await client.initialize(languages_off=["markdown"])
    client.send(did_open(URI, CODE), did_open("file:///b.md", "", language="markdown"))
    assert (await asked(client))["document"] == {"uri": URI, "off": None, "reasons": {}}
    assert "markdown" in (await asked(client, "file:///b.md"))["document"]["off"]
    assert (await asked(client, "file:///c.py"))["document"]["off"] == "the document is not open"
    assert (await asked(client, None))["document"] is None
    for odd in ([], {"textDocument": 3}, {"textDocument": {"uri": 3}}):
        assert (await client.request("diffgemma/status", odd))["document"] is None


async def test_reasons_go_with_their_document(client: InProcessClient) -> None:
    await client.initialize(enable=False)
    client.send(did_open(URI, CODE))
    await client.request(*completion(URI, 0, 4))
    assert (await asked(client))["document"]["reasons"] != {}
    client.send(did_close(URI))
    await client.request(*completion(URI, 0, 4))
    assert client.server.session.outcomes.reasons(URI) == {}
    client.send(did_open(URI, CODE))
    assert (await asked(client))["document"]["reasons"] == {}


async def test_what_the_model_can_is_known_once_it_is_loaded(
    client: InProcessClient, engine: FakeEngine
) -> None:
    engine.can = ("fill", "instruct")
    await client.initialize(warm_up=False)
    assert (await asked(client))["can"] == ["fill"], "what every model can"
    assert (await asked(client))["languages"] is None
    client.send(did_open(URI, "x = \n"))
    assert await client.request(*completion(URI, 0, 4, INVOKED)) != []
    assert (await asked(client))["can"] == ["fill", "instruct"]
    assert (await asked(client))["languages"] == ["*"]
    for languages in ((), ("python", "c")):
        engine.languages = languages
        assert (await asked(client))["languages"] == list(languages)


async def test_a_model_that_can_t_be_loaded_ahead_is_told_once(
    client: InProcessClient, engine: FakeEngine
) -> None:
    engine.says = {"state": "unloaded", "last_error": "no model at /nowhere; name another"}
    told = await listening(client)
    client.send(did_open(URI, CODE))
    await until(lambda: client.shown and told and told[-1]["state"] == "error")
    assert [one["message"] for one in client.shown] == [
        "diffgemma-lsp: no model at /nowhere; name another"
    ]
    assert told[-1]["message"] == "no model at /nowhere; name another"
