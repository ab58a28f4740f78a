"""The session and its engine: what fails, what hangs, what is left behind. In process."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from typing import Any

import pytest
from fake_engine import FakeEngine
from in_process import InProcessClient
from lsp_client import (
    AUTOMATIC,
    INVOKED,
    PATIENCE_S,
    completion,
    did_change,
    did_close,
    did_open,
    insertion,
    until,
)
from lsprotocol import types

from diffgemma_lsp.engine_client import EngineClient
from diffgemma_lsp.engine_process import EngineOptions
from diffgemma_lsp.lsp.client import Client
from diffgemma_lsp.server import engine_client
from diffgemma_lsp.session.engine import Engine
from diffgemma_lsp.session.requests import Nothing
from diffgemma_lsp.session.session import Session
from diffgemma_lsp.settings.schema import Settings
from diffgemma_lsp.suggest.read_ahead import AWAKE_S, read_ahead
from diffgemma_lsp.text.snapshot import DocumentSnapshot
from diffgemma_lsp.text.text import Point
from engine.errors import EngineError, EngineUnavailable

URI = "file:///a.py"


async def connected(make: Callable[[Settings], Engine], **options: Any) -> InProcessClient:
    client = InProcessClient()
    client.connect(make)
    await client.initialize(**options)
    client.send(did_open(URI, "x = "))
    return client


async def test_an_engine_that_cannot_be_made_is_tried_again() -> None:
    failures = [EngineUnavailable("no socket here: set TMPDIR"), ImportError("httpx")]

    def make(settings: Settings) -> Engine:
        if failures:
            raise failures.pop(0)
        return FakeEngine()

    client = await connected(make, warm_up=False)
    assert await client.request(*completion(URI, 0, 4)) == []
    assert await client.request(*completion(URI, 0, 4)) == []
    assert await client.request(*completion(URI, 0, 4)) != []
    told = [message["message"] for message in client.shown]
    assert told[0] == "diffgemma-lsp: no socket here: set TMPDIR"
    assert "internal error (ImportError at test_session.py" in told[1]
    assert len(told) == 2


@pytest.mark.parametrize("error", [EngineUnavailable("it can't be started: look"), OSError("x")])
async def test_a_warm_up_that_fails_is_told(error: Exception) -> None:
    class Cold(FakeEngine):
        async def warm_up(self) -> None:
            raise error

    client = await connected(lambda settings: Cold())
    for _ in range(500):
        await asyncio.sleep(0.01)
        if client.shown:
            break
    assert len(client.shown) == 1
    assert await client.request(*completion(URI, 0, 4)) != []
    assert (await client.request("diffgemma/status"))["state"] == "ready"


@pytest.mark.parametrize(
    ("options", "language", "begins"),
    [
        ({}, "python", True),
        ({}, "markdown", False),
        ({"warm_up": False}, "python", False),
        ({"enable": False}, "python", False),
        ({"languages_off": ["python"]}, "python", False),
        ({"enable": False, "languages": {"python": {"enable": True}}}, "python", True),
        ({"model": "owner/unknown"}, "markdown", True),
    ],
)
async def test_the_model_is_loaded_for_a_document_that_it_serves(
    options: dict[str, Any], language: str, begins: bool
) -> None:
    engine = FakeEngine()
    client = InProcessClient()
    client.connect(lambda settings: engine)
    await client.initialize(**options)
    warm_up = client.server.session.warm_up
    await until(lambda: warm_up.allowed)
    assert not warm_up.begun, "there is nothing to serve"
    client.send(did_open(URI, "x = ", language=language))
    assert bool(warm_up.begun) == begins
    await client.request("diffgemma/status")
    if begins:
        await until(lambda: engine.warmed_up)


async def test_a_cursor_that_moves_keeps_no_model_loaded(
    client: InProcessClient, engine: FakeEngine
) -> None:
    await client.initialize(warm_up=False)
    client.send(did_open(URI, "x = 1\ny = 2\n"))
    await client.request(*completion(URI, 0, 5))
    session = client.server.session
    document = session.documents.get(URI)
    assert document is not None
    snapshot = DocumentSnapshot.of(document, Point(1, 0))
    await until(lambda: session.requests.idle)
    asked = len(engine.requests)
    await read_ahead(session, snapshot)
    assert len(engine.requests) == asked + 1, "somebody was at work a moment ago"
    assert session.requests.quiet_s < AWAKE_S
    session.requests.rest()
    await read_ahead(session, snapshot)
    assert len(engine.requests) == asked + 1
    await client.request(*completion(URI, 1, 5))
    await until(lambda: session.requests.idle)
    asked = len(engine.requests)
    await read_ahead(session, snapshot)
    assert len(engine.requests) == asked + 1, "somebody is at work again"


async def test_the_engine_gets_the_settings() -> None:
    seen: list[Settings] = []

    def make(settings: Settings) -> Engine:
        seen.append(settings)
        return FakeEngine()

    options = {"model": "/m", "device": "cpu", "idleUnloadS": 5, "idleExitS": 6, "seed": 9}
    client = await connected(make, **options)
    await client.request(*completion(URI, 0, 4))
    (given,) = seen
    assert (given.model, given.device, given.idle_unload_s, given.idle_exit_s, given.seed) == (
        "/m",
        "cpu",
        5,
        6,
        9,
    )


async def test_status_never_waits_long_and_starts_nothing() -> None:
    class Silent(FakeEngine):
        async def status(self) -> dict[str, Any] | None:
            await asyncio.sleep(60)
            return None

    client = await connected(lambda settings: Silent(), warm_up=False)
    assert (await client.request("diffgemma/status"))["state"] == "idle"
    assert await client.request(*completion(URI, 0, 4)) != []
    assert (await client.request("diffgemma/status"))["state"] == "idle"


@pytest.mark.parametrize(
    ("engine_status", "state"),
    [
        ({"state": "loading", "fraction": 0.5, "model": None}, "loading"),
        ({"state": "loading", "fraction": None, "model": None}, "loading"),
        ({"state": "busy", "model": "m"}, "ready"),
        ({"state": "unloaded", "model": "m"}, "idle"),
        (None, "idle"),
    ],
)
async def test_states(engine_status: dict[str, Any] | None, state: str) -> None:
    class Told(FakeEngine):
        async def status(self) -> dict[str, Any] | None:
            return engine_status

    client = await connected(lambda settings: Told())
    await client.request(*completion(URI, 0, 4))
    assert (await client.request("diffgemma/status"))["state"] == state


async def test_shutdown_does_not_wait_for_what_hangs() -> None:
    class Hanging(FakeEngine):
        async def aclose(self) -> None:
            await asyncio.sleep(60)

    engine = Hanging()
    client = await connected(lambda settings: engine, invoked_budget_ms=60_000)
    client.send(did_change(URI, 2, insertion(0, 0, '# fake: {"delay": 60, "stubborn": 60}\n')))
    answer = client.ask(*completion(URI, 1, 4, INVOKED))
    await until(lambda: engine.runs == 1)
    assert await client.request("shutdown") is None
    assert await answer == []
    for task in client.server.session.requests._background:  # pyright: ignore[reportPrivateUsage]
        task.cancel()


async def test_a_stream_without_an_end_is_an_error() -> None:
    class Endless(FakeEngine):
        async def stream(self, request: Any) -> Any:  # pyright: ignore
            for _ in ():
                yield _

    client = await connected(lambda settings: Endless())
    assert await client.request(*completion(URI, 0, 4)) == []
    assert "had no end" in client.shown[0]["message"]


class Heard:
    """A connection on which messages are shown."""

    def __init__(self, told: list[str]) -> None:
        self.told = told

    def notify(self, method: str, params: Any = None) -> None:
        assert method == "window/showMessage"
        self.told.append(params.message)

    async def ask(self, method: str, params: Any) -> Any:
        raise AssertionError(method)


def test_what_is_told() -> None:
    told: list[str] = []
    client = Client(Heard(told))
    session = Session(lambda settings: FakeEngine(), client)
    for error in (EngineError("a"), EngineError("b"), EngineUnavailable("c"), EngineError("d")):
        session.engines.default.trouble.report(error)
    assert told == ["diffgemma-lsp: a", "diffgemma-lsp: c", "diffgemma-lsp: d"]
    session.engines.default.trouble.report(EngineError("e"), invoked=True)
    assert told[-1] == "diffgemma-lsp: e"


async def test_nothing_grows_with_the_messages() -> None:
    client = await connected(lambda settings: FakeEngine())
    rpc, session = client.server.rpc, client.server.session
    for n in range(60):
        client.send(did_change(URI, n + 2, insertion(0, 0, "y\n")))
        client.notify("$/setTrace", {"value": "off"})
        await client.request(*completion(URI, n + 1, 4, AUTOMATIC))
    client.send(did_close(URI))
    sizes = (
        rpc._request_futures,  # pyright: ignore[reportPrivateUsage]
        rpc._result_types,  # pyright: ignore[reportPrivateUsage]
        session.requests._pending,  # pyright: ignore[reportPrivateUsage]
        session.requests._background,  # pyright: ignore[reportPrivateUsage]
        session.documents._open,  # pyright: ignore[reportPrivateUsage]
    )
    await until(lambda: not any(sizes))


async def test_what_the_client_answers_arrives() -> None:
    client = await connected(lambda settings: FakeEngine())
    rpc = client.server.rpc
    asked = rpc.send_request_async(
        types.WORKSPACE_CONFIGURATION, types.ConfigurationParams([]), msg_id="mine"
    )
    client.send({"id": "mine", "result": [{"a": 1}]}, {"id": "yours", "result": 1})
    assert list(await asyncio.wait_for(asked, PATIENCE_S)) == [{"a": 1}]
    (request,) = client.unexpected
    assert request["method"] == "workspace/configuration"


def test_never_is_infinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFGEMMA_LSP_RUNTIME_DIR", "/tmp/never-made")
    engine = engine_client(Settings(idle_unload_s=None, idle_exit_s=7.0, device="cpu"))
    assert isinstance(engine, EngineClient)
    assert engine.options == EngineOptions(None, "cpu", math.inf, 7.0)


async def test_an_error_in_the_background_reaches_the_log(
    client: InProcessClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await client.initialize(warm_up=False)
    monkeypatch.setattr(logging.getLogger("diffgemma_lsp"), "propagate", True)

    async def fails(error: Exception) -> None:
        raise error

    requests = client.server.session.requests
    for error in (Nothing("there is nothing"), EngineUnavailable("told elsewhere")):
        requests.spawn(fails(error))
    requests.spawn(asyncio.sleep(PATIENCE_S)).cancel()
    waited_for = requests.keep(fails(KeyError("whoever waits says so")))
    requests.spawn(fails(ZeroDivisionError("the text of a document")))
    await until(lambda: "ZeroDivisionError" in caplog.text)
    with pytest.raises(KeyError):
        await waited_for
    (record,) = [one for one in caplog.records if one.name.startswith("diffgemma_lsp.session")]
    said = "internal error in the background: ZeroDivisionError at test_session.py:"
    assert record.getMessage().startswith(said)
