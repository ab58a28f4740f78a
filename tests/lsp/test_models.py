"""A model of its own for a language or a path: an engine for each. In process."""

from __future__ import annotations

from typing import Any

import pytest
from fake_engine import FakeEngine, slow
from hypothesis import given
from hypothesis import strategies as st
from in_process import InProcessClient
from lsp_client import INVOKED, completion, did_open, until

from diffgemma_lsp.session.engine import Engine
from diffgemma_lsp.settings.effective import EffectiveSettings
from diffgemma_lsp.settings.schema import Settings
from engine.errors import ModelError

PY, RUST, WORK = "file:///home/a.py", "file:///home/a.rs", "file:///work/a.py"
MODELS = {"rust": "second", "/work/**": "third"}


class Absent(FakeEngine):
    """One whose model is not there."""

    def stream(self, request: Any) -> Any:
        raise ModelError("no model at second")


class Desk:
    """A client of a server whose engines are told apart by their models."""

    def __init__(self, **odd: FakeEngine) -> None:
        self.engines: dict[str | None, FakeEngine] = {}
        self._odd = odd
        self.client = InProcessClient()
        self.client.connect(self._make)

    def _make(self, settings: Settings) -> Engine:
        engine = self._odd.get(str(settings.model)) or FakeEngine()
        engine.texts = (f"{settings.model}()",)
        self.engines[settings.model] = engine
        return engine

    async def begin(self, models: object = MODELS, **options: Any) -> None:
        usual = {"warm_up": False, "look_ahead": False, "model": "first", "models": models}
        await self.client.initialize(**{**usual, **options})
        for uri, language in ((PY, "python"), (RUST, "rust"), (WORK, "python")):
            self.client.send(did_open(uri, "x = ", language=language))

    async def fill(self, uri: str) -> str:
        (found, *_) = await self.client.request(*completion(uri, 0, 4, INVOKED))
        return found["insertText"]

    async def status(self, uri: str | None = None) -> dict[str, Any]:
        params = {"textDocument": {"uri": uri}} if uri else None
        return await self.client.request("diffgemma/status", params)

    @property
    def shown(self) -> list[str]:
        return [message["message"] for message in self.client.shown]


async def test_each_document_is_filled_by_its_model() -> None:
    desk = Desk()
    await desk.begin()
    assert await desk.fill(PY) == "first()"
    assert set(desk.engines) == {"first"}, "none is made before it is needed"
    assert await desk.fill(RUST) == "second()"
    assert await desk.fill(WORK) == "third()"
    assert await desk.fill(PY) == "first()"
    assert all(engine.runs for engine in desk.engines.values())
    assert desk.shown == []


async def test_the_status_is_that_of_the_document_s_engine() -> None:
    desk = Desk()
    await desk.begin()
    assert [(await desk.status(uri))["model"] for uri in (PY, RUST, WORK)] == [
        "first",
        "second",
        "third",
    ]
    for uri in (PY, RUST):
        await desk.fill(uri)
    desk.engines["second"].says = {"state": "loading", "fraction": 0.5}
    assert (await desk.status(RUST))["state"] == "loading"
    assert (await desk.status(PY))["state"] == "ready"
    whole = await desk.status()
    assert whole["state"] == "loading"
    assert whole["message"] == "second: loading the model: 50%"


async def test_the_status_names_the_engine_that_is_not_well() -> None:
    desk = Desk()
    await desk.begin()
    for uri in (PY, RUST):
        await desk.fill(uri)
    desk.engines["second"].says = {"state": "unloaded", "last_error": "too large"}
    whole = await desk.status()
    assert (whole["state"], whole["message"]) == ("error", "second: too large")
    assert (await desk.status(PY))["state"] == "ready"


async def test_each_is_warmed_up_when_a_document_of_its_language_is_open() -> None:
    desk = Desk()
    await desk.begin({"rust": "second"}, warm_up=True)
    await until(lambda: set(desk.engines) == {"first", "second"})
    await until(lambda: all(engine.warmed_up for engine in desk.engines.values()))


@pytest.mark.parametrize("warm_up", [True, False])
async def test_a_model_that_is_not_there_is_told_of_once(warm_up: bool) -> None:
    absent = Absent()
    if warm_up:
        absent.says = {"state": "unloaded", "last_error": "no model at second"}
    desk = Desk(second=absent)
    await desk.begin(warm_up=warm_up)
    if warm_up:
        await until(lambda: bool(desk.shown))
    for _ in range(3):
        assert await desk.fill(RUST) == "first()"
    assert len(desk.shown) == 1
    start = "diffgemma-lsp: second (setting models): no model at second; "
    assert desk.shown[0].startswith(start)
    assert desk.shown[0].endswith("answers instead")
    assert await desk.fill(WORK) == "third()"
    assert (await desk.status(RUST))["state"] == "ready"


async def test_an_error_names_its_model() -> None:
    desk = Desk()
    await desk.begin()
    uri = "file:///home/b.rs"
    desk.client.send(did_open(uri, '# fake: {"error": "oom"}\nx = ', language="rust"))
    await desk.client.request(*completion(uri, 1, 4, INVOKED))
    assert len(desk.shown) == 1
    assert "second" in desk.shown[0]


async def test_unloading_is_for_all_that_were_used() -> None:
    desk = Desk()
    await desk.begin()
    for uri in (PY, RUST):
        await desk.fill(uri)
    params = {"command": "diffgemma.unload"}
    assert (await desk.client.request("workspace/executeCommand", params))["message"] is None
    assert not any(engine.loaded for engine in desk.engines.values())
    assert "third" not in desk.engines


async def test_one_does_not_wait_for_the_other() -> None:
    desk = Desk()
    await desk.begin(invoked_budget_ms=600_000)
    uri = "file:///home/slow.rs"
    desk.client.send(did_open(uri, slow(3600) + "x = ", language="rust"))
    waiting = desk.client.ask(*completion(uri, 1, 4, INVOKED))
    assert await desk.fill(PY) == "first()"
    assert not waiting.done()


async def test_a_workspace_names_no_model() -> None:
    desk = Desk()
    await desk.begin({})
    settings = {"diffgemma": {"models": {"rust": "evil"}}}
    desk.client.notify("workspace/didChangeConfiguration", {"settings": settings})
    assert await desk.fill(RUST) == "first()"
    assert any("only initializationOptions" in message for message in desk.shown)


@pytest.mark.parametrize(
    "models", [[], None, 1, "mini", {"rust": 1}, {"": "mini"}, {"a/../b": "mini"}, {"c": "./m"}]
)
async def test_what_makes_no_sense_is_named_and_the_default_answers(models: object) -> None:
    desk = Desk()
    await desk.begin(models)
    assert await desk.fill(RUST) == "first()"
    assert len(desk.shown) == (0 if models == [] else 1)
    if isinstance(models, dict):  # which of many it is
        (key,) = models
        assert f"({key!r} is wrong)" in desk.shown[0]
        assert desk.shown[0].endswith("; using []")


NAMES = st.sampled_from(["one", "two", "all"])


@given(st.dictionaries(st.sampled_from(["rust", "go", "work/**", "*.rs", "~/x/"]), NAMES))
def test_the_last_path_that_fits_goes_before_the_language(models: dict[str, str]) -> None:
    settings = EffectiveSettings()
    settings.initialize({"model": "all", "models": models})
    fitting = [models[key] for key in models if key in ("work/**", "*.rs")]
    expected = fitting[-1] if fitting else models.get("rust")
    found = settings.model_for("file:///work/a.rs", "rust")
    assert found == (None if expected == "all" else expected)
    settings.initialize({"models": models, "engine_url": "https://gpu"})
    assert settings.model_for("file:///work/a.rs", "rust") is None
