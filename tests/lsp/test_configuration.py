"""Settings as they come and change: pushed or pulled, by clients that are more or less sane."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from fake_engine import FakeEngine, slow
from in_process import InProcessClient
from lsp_client import (
    AUTOMATIC,
    INVOKED,
    PATIENCE_S,
    LspClient,
    answered_at_once,
    completion,
    did_close,
    did_open,
    until,
)

from diffgemma_lsp.features import configuration
from diffgemma_lsp.settings.schema import Settings

URI = "file:///work/a.py"
PULL, REGISTER = "workspace/configuration", "client/registerCapability"
CHANGED = "workspace/didChangeConfiguration"
PULLS = {"workspace": {"configuration": True}}


async def connected(
    engine: FakeEngine | None = None,
    pull: Callable[[Any], Any] | None = None,
    registers: bool = False,
    **more: Any,
) -> InProcessClient:
    """A client after its handshake. `pull` is how it answers, if it does."""
    client = InProcessClient()
    engine = engine or FakeEngine()
    client.connect(lambda settings: engine)
    workspace: dict[str, Any] = {"configuration": pull is not None}
    if pull is not None:
        client.replies[PULL] = pull
    if registers:
        workspace["didChangeConfiguration"] = {"dynamicRegistration": True}
        client.replies[REGISTER] = lambda params: None
    await client.initialize(capabilities={"workspace": workspace}, **more)
    await quiet(client)
    return client


async def quiet(client: InProcessClient) -> None:
    """Waits until what was sent has had its effect."""
    for _ in range(3):
        await client.request("diffgemma/status")


async def push(client: InProcessClient, settings: Any) -> None:
    client.notify(CHANGED, {"settings": settings})
    await quiet(client)


def holding(client: InProcessClient) -> Settings:
    return client.server.session.settings.everywhere


# ---- pushed ----


@pytest.mark.parametrize("wrap", [lambda s: {"diffgemma": s}, lambda s: {**s, "pylsp": {"x": 1}}])
async def test_what_is_pushed_holds(wrap: Callable[[dict], dict]) -> None:
    client = await connected(seed=1, max_lines=2)
    await push(client, wrap({"maxLines": 3}))
    assert (holding(client).seed, holding(client).max_lines) == (1, 3)
    await push(client, wrap({"max_tokens": 5}))
    assert (holding(client).max_lines, holding(client).max_tokens) == (2, 5)
    await push(client, None)
    assert holding(client) == Settings(seed=1, max_lines=2)
    assert client.shown == client.unexpected == []


async def test_a_complaint_is_told_once_until_it_was_mended() -> None:
    client = await connected(seed=4)
    wrong = {"diffgemma": {"seed": "x", "enable": 3}}
    for _ in range(3):
        await push(client, wrong)
    (message,) = client.shown
    assert "seed: expected a whole number" in message["message"]
    assert 'got "x"; using 4' in message["message"]
    assert holding(client) == Settings(seed=4)
    await push(client, {"diffgemma": {"seed": "x", "enable": 3, "colour": 1}})
    assert "colour" in client.shown[1]["message"]
    assert "seed" not in client.shown[1]["message"]
    await push(client, {"diffgemma": {}})
    await push(client, wrong)
    assert len(client.shown) == 3


async def test_very_many_complaints_fit_a_message() -> None:
    client = await connected()
    await push(client, {"diffgemma": {f"x{n}": n for n in range(500)}})
    (message,) = client.shown
    assert "and 492 more" in message["message"]


@pytest.mark.parametrize("settings", [{}, [], "x", 3, True, {"diffgemma": []}, {"diffgemma": "x"}])
async def test_odd_pushes_change_nothing(settings: Any) -> None:
    client = await connected(seed=4)
    await push(client, settings)
    assert holding(client) == Settings(seed=4)
    assert len(client.shown) == (settings in ("x", 3, True, {"diffgemma": "x"}))


# ---- pulled ----


async def test_the_client_is_asked_at_the_start_and_at_each_change() -> None:
    answers = iter([{"seed": 5}, {"seed": 6}, None])
    client = await connected(pull=lambda params: [next(answers)], seed=1, max_lines=2)
    assert client.asked == [(PULL, {"items": [{"section": "diffgemma"}]})]
    assert holding(client) == Settings(seed=5, max_lines=2)
    await push(client, None)
    assert holding(client).seed == 6
    await push(client, {"diffgemma": {"seed": 7}})
    assert holding(client).seed == 7
    assert len(client.asked) == 3


async def test_who_can_not_answer_is_not_asked() -> None:
    client = await connected()
    await push(client, None)
    assert client.asked == client.unexpected == []


async def test_changes_are_registered_for_if_the_client_wants_it() -> None:
    client = await connected(registers=True)
    ((method, params),) = client.asked
    assert method == REGISTER
    (registration,) = params["registrations"]
    assert registration["method"] == CHANGED
    assert registration["registerOptions"] == {"section": "diffgemma"}


async def test_a_registration_that_fails_is_survived() -> None:
    error = {"error": {"code": -32603, "message": "no"}}
    client = InProcessClient()
    client.connect(lambda settings: FakeEngine())
    client.replies[REGISTER] = lambda params: error
    dynamic = {"workspace": {"didChangeConfiguration": {"dynamicRegistration": True}}}
    await client.initialize(capabilities=dynamic)
    await quiet(client)
    assert len(client.asked) == 1
    assert client.shown == []


@pytest.mark.parametrize(
    "answer",
    [
        {"error": {"code": -32603, "message": "no"}},
        {"error": {"code": 7, "message": "", "data": [1]}},
        {"error": {}},
        None,
        [],
        [{"seed": 2}, {"seed": 3}],
        {},
        3,
    ],
)
async def test_answers_that_make_no_sense(answer: Any) -> None:
    answers = iter([[{"seed": 5}], answer, [{"seed": 6}]])
    client = await connected(pull=lambda params: next(answers))
    await push(client, None)
    assert holding(client) == Settings(seed=5)
    assert client.shown == client.unexpected == []
    await push(client, None)
    assert holding(client).seed == 6


@pytest.mark.parametrize("answer", [[3], ["x"], "x", {"a b": {"type_name": "1 2"}}])
async def test_answers_that_are_no_settings(answer: Any) -> None:
    client = await connected(pull=lambda params: answer, seed=4)
    assert holding(client) == Settings(seed=4)
    (message,) = client.shown
    assert "settings: expected an object" in message["message"]


async def test_a_client_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuration, "ANSWER_S", 0.05)
    engine = FakeEngine()
    client = await connected(engine, pull=lambda params: ..., registers=True)
    client.replies[REGISTER] = lambda params: ...
    for _ in range(5):
        await push(client, None)
    client.send(did_open(URI, "x = "))
    await until(lambda: engine.warmed_up)
    assert await client.request(*completion(URI, 0, 4)) != []
    waiting = client.server.rpc._request_futures  # pyright: ignore[reportPrivateUsage]
    assert len(waiting) == 1  # the last one
    await client.request("shutdown")
    assert client.server.session.requests._background == set()  # pyright: ignore[reportPrivateUsage]
    assert waiting == {}
    assert client.unexpected == []


async def test_an_answer_that_comes_too_late_is_ignored() -> None:
    ids: list[str] = []
    client = await connected(pull=lambda params: ...)
    asks = client._hear

    def hear(message: dict[str, Any]) -> None:
        ids.extend([message["id"]] if message.get("method") == PULL else [])
        asks(message)

    client._hear = hear  # pyright: ignore[reportAttributeAccessIssue]
    await push(client, None)
    await push(client, None)
    old, new = ids
    client.send(
        {"id": old, "result": [{"seed": 5}]}, {"id": old, "error": {"code": 1, "message": ""}}
    )
    await quiet(client)
    assert holding(client).seed == 0
    client.send({"id": new, "result": [{"seed": 6}]}, {"id": new, "result": [{"seed": 7}]})
    await quiet(client)
    assert holding(client).seed == 6
    assert client.shown == client.unexpected == []


async def test_odd_capabilities_don_t_keep_the_client_from_being_asked() -> None:
    client = InProcessClient()
    client.connect(lambda settings: FakeEngine())
    client.replies[PULL] = lambda params: [{"seed": 5}]
    odd = {"textDocument": {"codeAction": {"codeActionLiteralSupport": 7}}}
    await client.initialize(
        ["utf-8"], {**PULLS, **odd, "general": {"positionEncodings": ["utf-8"]}}
    )
    await quiet(client)
    assert holding(client).seed == 5
    assert client.capabilities["positionEncoding"] == "utf-8"


# ---- folders ----


async def test_each_folder_has_settings_of_its_own() -> None:
    def pull(params: Any) -> Any:
        per_folder = {"file:///work": {"enable": False}, "file:///other": {"max_lines": 1}}
        return [per_folder.get(item.get("scopeUri"), {}) for item in params["items"]]

    client = await connected(pull=pull, folders=["file:///work"])
    client.send(did_open(URI, "x = "), did_open("file:///other/a.py", "x = "))
    assert await client.request(*completion(URI, 0, 4)) == []
    assert "setting enable" in (await client.request("diffgemma/status"))["lastReason"]
    assert await client.request(*completion("file:///other/a.py", 0, 4)) != []
    event = {
        "added": [{"uri": "file:///other", "name": "o"}] * 2,
        "removed": [{"uri": "file:///work", "name": "w"}, {"uri": "file:///never", "name": "n"}],
    }
    client.notify("workspace/didChangeWorkspaceFolders", {"event": event})
    await quiet(client)
    scopes = [item.get("scopeUri") for item in client.asked[-1][1]["items"]]
    assert scopes == [None, "file:///other"]
    assert await client.request(*completion(URI, 0, 4)) != []
    settings = client.server.session.settings
    assert settings.for_document("file:///other/b.py", "python").max_lines == 1


# ---- what only the user's own configuration sets ----


async def test_a_workspace_can_not_choose_what_is_run() -> None:
    seen: list[Settings] = []

    def make(settings: Settings) -> FakeEngine:
        seen.append(settings)
        return FakeEngine()

    evil = {"model": "/evil", "device": "cuda:7", "languages": {"python": {"model": "/evil"}}}
    client = InProcessClient()
    client.connect(make)
    client.replies[PULL] = lambda params: [{**evil, "seed": 1}, evil]
    await client.initialize(capabilities=PULLS, folders=["file:///work"], model="/m", warm_up=False)
    await push(client, {"diffgemma": evil})
    client.send(did_open(URI, "x = "))
    assert await client.request(*completion(URI, 0, 4)) != []
    (made,) = seen
    assert (made.model, made.device, made.seed) == ("/m", None, 1)
    (message,) = client.shown
    assert "model: only initializationOptions set it" in message["message"]
    assert 'languages["python"].model' in message["message"]


# ---- what follows ----


@pytest.mark.parametrize(
    "change",
    [
        {"enable": False},
        {"languages_off": ["python"]},
        {"languages": {"python": {"enable": False}}},
        {"globs": {"work/*": {"enable": False}}},
    ],
)
async def test_what_is_in_flight_ends_where_suggestions_are_turned_off(change: Any) -> None:
    client = await connected(invoked_budget_ms=1_000)
    other = "file:///else/a.lua"
    client.send(did_open(URI, slow(text="t") + "x = "))
    client.send(did_open(other, slow(text="t") + "x = ", language="lua"))
    here, there = (client.ask(*completion(uri, 1, 4, INVOKED)) for uri in (URI, other))
    await push(client, {"diffgemma": {"seed": 3}})
    assert not here.done()
    client.notify(CHANGED, {"settings": {"diffgemma": change}})
    assert await answered_at_once(here) == []
    assert "turned off" in (await client.request("diffgemma/status"))["lastReason"]
    assert bool(await there) == ("enable" not in change)


async def test_the_warm_up_waits_for_the_answer() -> None:
    engine = FakeEngine()
    client = await connected(engine, pull=lambda params: [{"enable": False}])
    client.send(did_open(URI, "x = "))
    warm_up = client.server.session.warm_up
    await until(lambda: warm_up.allowed)
    assert not warm_up.begun
    client.replies[PULL] = lambda params: [{"enable": True, "warm_up": False}]
    await push(client, None)
    assert not warm_up.begun
    client.replies[PULL] = lambda params: [None]
    await push(client, None)
    await until(lambda: engine.warmed_up)


@pytest.mark.parametrize("kind", [AUTOMATIC, INVOKED])
async def test_what_is_suggested_waits_for_the_answer(kind: int) -> None:
    engine, asked = FakeEngine(), asyncio.Event()

    def reply(params: Any) -> Any:
        asked.set()
        return ...

    client = await connected(engine, pull=reply, automatic_budget_ms=60_000)
    (id,) = client.server.rpc._request_futures  # pyright: ignore[reportPrivateUsage]
    client.send(did_open(URI, "x = "))
    answer = client.ask(*completion(URI, 0, 4, kind))
    await asyncio.wait_for(asked.wait(), PATIENCE_S)
    await asyncio.sleep(0.05)
    assert (answer.done(), engine.runs) == (False, 0)
    client.send({"id": id, "result": [{"seed": 7, "enable": kind == INVOKED}]})
    assert bool(await answer) == (kind == INVOKED)
    assert [request.seed for request in engine.requests[:1]] == ([7] if kind == INVOKED else [])


async def test_only_an_answer_to_what_was_never_asked_is_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "diffgemma_lsp")
    client = await connected(FakeEngine(), pull=lambda params: ...)
    (id,) = client.server.rpc._request_futures  # pyright: ignore[reportPrivateUsage]
    await push(client, None)  # asks anew
    client.send({"id": id, "result": [{"seed": 7}]})
    await quiet(client)
    assert (caplog.records, holding(client).seed) == ([], 0)
    client.send({"id": "another", "result": None})
    await quiet(client)
    assert "nobody waits for" in caplog.text


async def test_what_waits_for_an_answer_keeps_to_its_deadline() -> None:
    engine = FakeEngine()
    client = await connected(engine, pull=lambda params: ..., automatic_budget_ms=50)
    client.send(did_open(URI, "x = "))
    assert await client.request(*completion(URI, 0, 4)) == []
    assert engine.runs == 0
    status = await client.request("diffgemma/status", {"textDocument": {"uri": URI}})
    (reason,) = status["document"]["reasons"].values()
    assert reason == "the editor has not yet said what its settings are"
    first, second = (client.ask(*completion(URI, 0, 4, INVOKED)) for _ in range(2))
    assert await answered_at_once(first) == [], "a newer one took its place"
    assert not second.done()
    client.send(did_close(URI))
    assert await answered_at_once(second) == []


async def test_nothing_is_started_again() -> None:
    made: list[Settings] = []

    def make(settings: Settings) -> FakeEngine:
        made.append(settings)
        return FakeEngine()

    client = InProcessClient()
    client.connect(make)
    await client.initialize(model="/m")
    client.send(did_open(URI, "x = "))
    for enable in (True, False, True):
        await push(client, {"diffgemma": {"enable": enable, "seed": 2, "model": "/m"}})
        assert bool(await client.request(*completion(URI, 0, 4))) == enable
    assert len(made) == 1
    assert client.shown == []


async def test_over_stdio(stdio_client: LspClient) -> None:
    stdio_client.replies[PULL] = lambda params: [{"enable": False}]
    await stdio_client.initialize(capabilities=PULLS)
    stdio_client.send(did_open(URI, "x = "))
    while (await stdio_client.request("diffgemma/status"))["state"] != "off":
        await asyncio.sleep(0.02)
    assert await stdio_client.request(*completion(URI, 0, 4)) == []
    stdio_client.replies[PULL] = lambda params: ...
    stdio_client.notify(CHANGED, {"settings": None})
    stdio_client.notify("textDocument/didSave", {"textDocument": {"uri": URI}})
    assert not (await stdio_client.request("test/report"))["warmed_up"]
