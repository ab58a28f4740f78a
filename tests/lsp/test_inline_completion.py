"""textDocument/inlineCompletion: when there is a suggestion, and which. In process."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from fake_engine import FakeEngine, filling, slow
from in_process import InProcessClient
from lsp_client import (
    AUTOMATIC,
    INVOKED,
    answered_at_once,
    completion,
    did_change,
    did_open,
    position,
    until,
)

import diffgemma_lsp
from engine.types import Fixed

URI = "file:///work/a.py"
PACKAGE = Path(diffgemma_lsp.__file__ or "").parent
MOST_MODULES = 24


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (None, "utf-16"),
        (["utf-16"], "utf-16"),
        (["utf-8", "utf-16"], "utf-8"),
        (["utf-32", "utf-8", "utf-16"], "utf-32"),
        (["utf-7", "utf-16"], "utf-16"),
    ],
)
async def test_the_clients_first_encoding_is_taken(
    client: InProcessClient, offered: list[str] | None, chosen: str
) -> None:
    await client.initialize(offered)
    assert client.capabilities["positionEncoding"] == chosen


async def test_a_hole_inside_a_word_replaces_the_word(client: InProcessClient) -> None:
    await client.initialize()
    client.send(did_open(URI, "foo(bar)\nfoo(ba)\n"))
    (item,) = await client.request(*completion(URI, 1, 6))
    assert item["insertText"] == "ba" + filling("foo(bar)\nfoo(ba", ")\n")
    assert item["range"] == {"start": position(1, 4), "end": position(1, 6)}


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
async def test_line_ends_are_those_of_the_document(client: InProcessClient, newline: str) -> None:
    await client.initialize()
    plan = '# fake: {"text": "one\\ntwo\\r\\nthree"}'
    client.send(did_open(URI, newline.join([plan, "x = ", "y", ""])))
    (item,) = await client.request(*completion(URI, 1, 4))
    assert item["insertText"] == newline.join(["one", "two", "three"])


async def test_only_lsp_line_ends_end_lines(client: InProcessClient) -> None:
    text = "a\fb\x0bc\x1cd\x85e\u2028f\u2029g\nx\r\ny\rz = "
    await client.initialize()
    client.send(did_open(URI, text))
    (item,) = await client.request(*completion(URI, 3, 4))
    prefix = text.replace("\r\n", "\n").replace("\r", "\n")
    assert item["insertText"] == filling(prefix, "")


async def test_the_popups_selection_counts_as_typed(client: InProcessClient) -> None:
    await client.initialize()
    client.send(did_open(URI, "import os\nos.pa\n"))
    word = {"start": position(1, 3), "end": position(1, 5)}
    selected = {"range": word, "text": "path"}
    (item,) = await client.request(*completion(URI, 1, 5, selected=selected))
    assert item == {"insertText": "path" + filling("import os\nos.path", "\n"), "range": word}
    elsewhere = {"range": {"start": position(0, 0), "end": position(0, 3)}, "text": "x"}
    assert await client.request(*completion(URI, 1, 5, selected=elsewhere)) == []


@pytest.mark.parametrize(
    ("rest", "wanted"),
    [("", True), (")", True), (")]}'\"`:,;>  ", True), (" + 1", False), ("x", False)],
)
async def test_code_right_of_the_cursor(client: InProcessClient, rest: str, wanted: bool) -> None:
    await client.initialize()
    client.send(did_open(URI, f"f({rest}"))
    assert bool(await client.request(*completion(URI, 0, 2))) == wanted
    assert bool(await client.request(*completion(URI, 0, 2, INVOKED)))


@pytest.mark.parametrize(
    ("options", "word", "state"),
    [
        ({"enable": False}, "turned off", "off"),
        ({"languagesOff": ["python"]}, "for python", "idle"),
        ({"globs_off": ["secret/*"]}, "secret/*", "idle"),
        ({"min_confidence": 0.95}, "90% sure", "ready"),
    ],
)
async def test_no_suggestion_and_why(
    client: InProcessClient, options: dict, word: str, state: str
) -> None:
    uri = "file:///work/secret/a%20b.py"
    await client.initialize(**options)
    client.send(did_open(uri, "x = "))
    assert await client.request(*completion(uri, 0, 4)) == []
    for _ in range(2_000):  # the engine's client is made in the background
        status = await client.request("diffgemma/status", {})
        if status["state"] == state:
            break
        await asyncio.sleep(0.01)
    assert (status["state"], word in status["lastReason"]) == (state, True)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (" ", "nothing to add"),
        ("x = load()", "repeats what comes before"),
        ("y = load()", "repeats what follows"),
        (")", "brackets"),
        ("= 3", "syntax"),
    ],
)
async def test_why_a_filling_is_not_shown(client: InProcessClient, text: str, word: str) -> None:
    await client.initialize()
    plan = f'# fake: {{"text": "{text}"}}'
    client.send(did_open(URI, f"{plan}\nx = load()\n\ny = load()\n"))
    assert await client.request(*completion(URI, 2, 0, INVOKED)) == []
    assert word in (await client.request("diffgemma/status"))["lastReason"]


async def test_only_who_asks_is_shown_more_than_the_block(client: InProcessClient) -> None:
    await client.initialize()
    plan = '# fake: {"text": "y = 1\\nelse:\\n    z = 2"}'
    client.send(did_open(URI, f"{plan}\nif x:\n    \n"))
    (item,) = await client.request(*completion(URI, 2, 4))
    assert item["insertText"] == "y = 1"
    (item,) = await client.request(*completion(URI, 2, 4, INVOKED))
    assert item["insertText"] == "y = 1\nelse:\n    z = 2"


async def test_an_unknown_document(client: InProcessClient, engine: FakeEngine) -> None:
    await client.initialize()
    assert await client.request(*completion(URI, 0, 0)) == []
    assert engine.runs == 0
    assert "not open" in (await client.request("diffgemma/status"))["lastReason"]


@pytest.mark.parametrize(
    ("older", "newer", "ends"),
    [
        (AUTOMATIC, AUTOMATIC, True),
        (AUTOMATIC, INVOKED, True),
        (INVOKED, INVOKED, True),
        (INVOKED, AUTOMATIC, False),
    ],
)
async def test_supersede(client: InProcessClient, older: int, newer: int, ends: bool) -> None:
    await client.initialize(automatic_budget_ms=20_000, invoked_budget_ms=20_000)
    client.send(did_open(URI, slow(1.0, text="t") + "x = "))
    first, second = (client.ask(*completion(URI, 1, 4, kind)) for kind in (older, newer))
    if ends:
        assert await answered_at_once(first) == []
        assert not second.done()
    assert await second != []
    assert bool(await first) != ends


async def test_documents_do_not_supersede_each_other(client: InProcessClient) -> None:
    await client.initialize()
    uris = [f"{URI}{n}" for n in range(5)]
    client.send(*(did_open(uri, slow(0.2) + "x = ") for uri in uris))
    answers = [client.ask(*completion(uri, 1, 4)) for uri in uris]
    assert all([await answer for answer in answers])


async def test_an_engines_error_is_shown_once_until_it_changes(client: InProcessClient) -> None:
    await client.initialize()
    for n, code in enumerate(["model_error", "model_error", "out_of_memory", "cancelled"]):
        uri = f"{URI}{n}"
        client.send(did_open(uri, f'# fake: {{"error": "{code}"}}\nx = '))
        assert await client.request(*completion(uri, 1, 4)) == []
    assert len(client.shown) == 2
    assert (await client.request("diffgemma/status"))["state"] == "error"
    client.send(did_open(URI, "x = "))
    assert await client.request(*completion(URI, 0, 4)) != []
    assert (await client.request("diffgemma/status"))["state"] == "ready"
    assert await client.request(*completion(f"{URI}0", 1, 4)) == []
    assert len(client.shown) == 3


async def test_who_asks_is_always_told(client: InProcessClient) -> None:
    await client.initialize()
    client.send(did_open(URI, '# fake: {"error": "engine_unavailable"}\nx = '))
    for n in range(1, 3):
        assert await client.request(*completion(URI, 1, 4, INVOKED)) == []
        assert len(client.shown) == n


async def test_positions_beyond_everything(client: InProcessClient) -> None:
    await client.initialize()
    client.send(did_open(URI, "x = "))
    end = {"start": position(0, 4), "end": position(2**32 - 1, 2**53)}
    client.send(did_change(URI, 2, {"range": end, "text": "y\nz = "}))
    (item,) = await client.request(*completion(URI, 2**31, 10**30))
    assert item["insertText"] == filling("x = y\nz = ", "")


async def test_lone_surrogates(client: InProcessClient) -> None:
    await client.initialize()
    client.send(did_open(URI, "s = '\ud83d'\nx = "))
    (item,) = await client.request(*completion(URI, 1, 4))
    assert item["insertText"] == filling("s = '\ufffd'\nx = ", "")


@pytest.mark.parametrize(
    "change",
    [{}, 7, {"range": {"start": 1}, "text": "x"}, {"range": "x", "text": "y"}],
)
async def test_a_document_that_is_out_of_step_gets_nothing(
    client: InProcessClient, change: Any
) -> None:
    await client.initialize()
    client.send(did_open(URI, slow() + "x = "))
    answer = client.ask(*completion(URI, 1, 4, INVOKED))
    client.send(did_change(URI, 2, change))
    assert await answered_at_once(answer) == []
    assert await client.request(*completion(URI, 1, 4)) == []
    client.send(did_open(URI, "x = ", 3))
    assert await client.request(*completion(URI, 0, 4)) != []


@pytest.mark.parametrize("change", [{"text": "y = "}, {"range": None, "text": "y = "}])
async def test_a_change_of_everything(client: InProcessClient, change: Any) -> None:
    await client.initialize()
    client.send(did_open(URI, "x = 3\nz"), did_change(URI, 2, change))
    (item, *_) = await client.request(*completion(URI, 0, 4, INVOKED))
    assert item["insertText"] == filling("y = ", "")


async def test_a_document_with_tabs(client: InProcessClient, engine: FakeEngine) -> None:
    await client.initialize(look_ahead=False)
    client.send(did_open(URI, "def f(a):\n\tx = 1\n\t\n\treturn x\n"))
    engine.texts = ("if a:\n        x = [\n            2,\n        ]",)
    (item,) = await client.request(*completion(URI, 2, 1))
    assert item["insertText"] == "if a:\n\t\tx = [\n\t\t\t2,\n\t\t]"
    (request,) = engine.requests
    assert request.template[0] == Fixed("def f(a):\n    x = 1\n    ")
    assert request.template[-1] == Fixed("\n    return x\n")


@pytest.mark.parametrize("trigger", [AUTOMATIC, INVOKED])
async def test_a_suggestion_goes_through_few_modules(
    client: InProcessClient, engine: FakeEngine, trigger: int
) -> None:
    """Who wants to know how one comes about must be able to read it all."""
    await client.initialize(warm_up=False)
    client.send(did_open(URI, "def f(a):\n    return a\n\n\ndef main(first):\n    value = \n"))
    engine.texts = ("f(first)",)
    # What happens once in a session is behind us.
    await until(lambda: client.server.session.warm_up.allowed)
    await client.server.session.engines.default.abilities()
    await client.request(*completion(URI, 1, 4, INVOKED))
    visited: set[str] = set()

    def notice(frame: FrameType, event: str, argument: object) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(PACKAGE):
            visited.add(path.relative_to(PACKAGE).as_posix())

    before = sys.getprofile()
    sys.setprofile(notice)
    items = await client.request(*completion(URI, 5, 12, trigger))
    sys.setprofile(before)
    assert [item["insertText"] for item in items][:1] == ["f(first)"]
    assert {"features/inline_completion.py", "suggest/suggest.py"} < visited
    assert len(visited) <= MOST_MODULES, visited
