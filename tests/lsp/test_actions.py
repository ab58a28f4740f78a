"""Code actions and commands: what is offered, and what becomes of the document. In process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from applying import applied
from fake_engine import FakeEngine, slow
from in_process import InProcessClient
from lsp_client import did_change, did_close, did_open, insertion, span

URI = "file:///work/a.py"

RESOLVES = {
    "textDocument": {"codeAction": {"resolveSupport": {"properties": ["edit"]}}},
    "workspace": {"applyEdit": True, "workspaceEdit": {"documentChanges": True}},
}
FRAMES = {"experimental": {"diffgemma": {"frames": True}}}
PROGRESS = {"window": {"workDoneProgress": True}}

CODE = '''\
# fake: {"text": "value + 1"}
def area(width, height):
    """Area."""
    return width * height


def later(count):
    ...
'''


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
async def client(engine: FakeEngine) -> AsyncIterator[InProcessClient]:
    client = InProcessClient()
    client.connect(lambda settings: engine)
    yield client
    assert client.unexpected == []


def asking(where: dict[str, Any], **context: Any) -> tuple[str, dict[str, Any]]:
    return "textDocument/codeAction", {
        "textDocument": {"uri": URI},
        "range": where,
        "context": {"diagnostics": [], **context},
    }


def after(text: str, edit: dict[str, Any], version: int | None = 1) -> str:
    """The text of the document after the edit."""
    return applied(text, URI, edit, version)


async def titles(client: InProcessClient, where: dict[str, Any], **context: Any) -> list[str]:
    return [action["title"] for action in await client.request(*asking(where, **context))]


async def resolved(client: InProcessClient, where: dict[str, Any], title: str) -> dict[str, Any]:
    actions = await client.request(*asking(where))
    (action,) = [action for action in actions if action["title"] == title]
    return await client.request("codeAction/resolve", action)


async def test_what_is_offered_where(client: InProcessClient, engine: FakeEngine) -> None:
    await client.initialize(capabilities=RESOLVES)
    client.send(did_open(URI, CODE))
    assert await titles(client, span(3, 4, 3, 4)) == ["Fill here", "Add type hints"]
    assert await titles(client, span(3, 11, 3, 25)) == ["Rewrite selection", "Add type hints"]
    later = await titles(client, span(6, 0, 7, 7))
    assert later == [
        "Rewrite selection",
        "Fill all holes in selection",
        "Add docstring",
        "Add type hints",
        "Complete body",
    ]
    assert await titles(client, span(4, 0, 5, 0)) == []
    assert engine.runs == 0


async def test_a_moving_cursor_is_offered_nothing(client: InProcessClient) -> None:
    await client.initialize(capabilities=RESOLVES)
    client.send(did_open(URI, CODE))
    assert await titles(client, span(3, 4, 3, 4), triggerKind=2) == []
    assert await titles(client, span(3, 4, 3, 4), triggerKind=1) != []
    assert await titles(client, span(3, 11, 3, 25), triggerKind=2) != []


async def test_only_what_is_wanted_and_what_the_model_can(
    client: InProcessClient, engine: FakeEngine
) -> None:
    await client.initialize(capabilities=RESOLVES)
    text = "# fake: {}\n\n# make it\n# short\nx = 1 + 1 + 1\n"
    client.send(did_open(URI, text))
    where = span(4, 0, 4, 13)
    wrong = {"range": where, "message": "too\nlong"}
    assert await titles(client, where, diagnostics=[wrong]) == ["Rewrite selection"]
    await client.server.session.engine()  # what it can do is known from then on
    engine.can = ("fill", "instruct")
    assert await titles(client, where, diagnostics=[wrong]) == [
        "Fix: too long",
        "Rewrite selection",
        "Rewrite as the comment above says",
    ]
    assert await titles(client, where, diagnostics=[wrong], only=["quickfix"]) == ["Fix: too long"]
    assert await titles(client, where, only=["refactor"]) == [
        "Rewrite selection",
        "Rewrite as the comment above says",
    ]
    assert await titles(client, where, only=["source"]) == []
    action = await resolved(client, where, "Rewrite as the comment above says")
    assert "edit" in action
    assert engine.requests[-1].instruction == "make it short"


async def test_a_rewrite_changes_no_more_than_what_differs(
    client: InProcessClient, engine: FakeEngine
) -> None:
    await client.initialize(capabilities=RESOLVES)
    text = '# fake: {"text": "return width * length"}\r\n\treturn width * height  \r\n'
    client.send(did_open(URI, text))
    action = await resolved(client, span(1, 0, 2, 0), "Rewrite selection")
    (document,) = action["edit"]["documentChanges"]
    assert document["edits"] == [{"range": span(1, 16, 1, 22), "newText": "length"}]
    (hole,) = [part for part in engine.requests[0].template if hasattr(part, "draft")]
    assert (hole.draft, hole.strength) == ("return width * height", 0.6)


async def test_a_rewrite_leaves_no_blank_lines_at_its_end(client: InProcessClient) -> None:
    await client.initialize(capabilities=RESOLVES | FRAMES)
    frames: list[dict[str, Any]] = []
    client.heard["diffgemma/frame"] = frames.append
    text = '# fake: {"text": "new\\n\\n  \\n", "frame": "ne \\n\\n"}\nold\nrest\n'
    client.send(did_open(URI, text))
    result = await execute(client, "rewrite", order(range=span(1, 0, 2, 0), apply=False))
    assert after(text, result["edit"]) == text.replace("old", "new")
    assert frames[0]["holes"][0]["pieces"] == [["ne", 0.9]]


async def test_holes_far_and_near_make_one_edit(client: InProcessClient) -> None:
    await client.initialize(capabilities=RESOLVES)
    text = (
        '# fake: {"texts": ["1", "2\\nno", "if x:\\n    y()"]}\n'
        "x = ___ + f(...)\ndef g():\n    # TODO: go on\n"
    )
    client.send(did_open(URI, text))
    action = await resolved(client, span(1, 0, 4, 0), "Fill all holes in selection")
    assert after(text, action["edit"]) == text.splitlines(True)[0] + (
        "x = 1 + f(2)\ndef g():\n    if x:\n    y()\n"
    )


@pytest.mark.parametrize(
    ("title", "texts", "wanted"),
    [
        ("Add docstring", ["Counts.\n\n    Slowly."], '"""Counts.\n\n    Slowly."""\n    ...'),
        ("Add docstring", ['Says """x""".'], '"""Says"""\n    ...'),
        ("Complete body", ["return count  \n"], "return count"),
    ],
)
async def test_forms_below_the_head(
    client: InProcessClient, engine: FakeEngine, title: str, texts: list[str], wanted: str
) -> None:
    await client.initialize(capabilities=RESOLVES)
    text = "def later(count):\n    ...\n"
    client.send(did_open(URI, text))
    engine.texts = tuple(texts)
    action = await resolved(client, span(0, 4, 0, 9), title)
    assert after(text, action["edit"]) == f"def later(count):\n    {wanted}\n"


@pytest.mark.parametrize(
    ("texts", "wanted"),
    [
        (["int", "set[str] | None"], "(count: int) -> set[str] | None:"),
        (["print(", "list"], "(count) -> list:"),
        (["int\n", "f()"], "(count: int):"),
    ],
)
async def test_type_hints(
    client: InProcessClient, engine: FakeEngine, texts: list[str], wanted: str
) -> None:
    await client.initialize(capabilities=RESOLVES)
    text = "def later(count):\n    ...\n"
    client.send(did_open(URI, text))
    engine.texts = tuple(texts)
    action = await resolved(client, span(0, 4, 0, 9), "Add type hints")
    assert after(text, action["edit"]) == f"def later{wanted}\n    ...\n"


async def test_an_edit_moves_with_its_place(client: InProcessClient, engine: FakeEngine) -> None:
    await client.initialize(capabilities=RESOLVES)
    text = slow(0.2, text="one") + "x = 0\nold\ny = 0\n"
    client.send(did_open(URI, text))
    (action, *_) = await client.request(*asking(span(2, 0, 2, 3)))
    answer = client.ask("codeAction/resolve", action)
    await asyncio.sleep(0.05)
    client.send(did_change(URI, 2, insertion(1, 0, "# new\n"), insertion(4, 0, "# more\n")))
    now = text.replace("x = 0", "# new\nx = 0").replace("y = 0", "# more\ny = 0")
    assert after(now, (await answer)["edit"], 2) == now.replace("old", "one")
    assert engine.cancelled == 0


@pytest.mark.parametrize(
    ("message", "word"),
    [
        (did_change(URI, 2, insertion(1, 1, "!")), "changed at this place"),
        (did_close(URI), "closed"),
    ],
)
async def test_no_edit_where_its_place_is_gone(
    client: InProcessClient, message: dict[str, Any], word: str
) -> None:
    await client.initialize(capabilities=RESOLVES)
    client.send(did_open(URI, slow(0.2, text="new") + "old\n"))
    (action, *_) = await client.request(*asking(span(1, 0, 1, 3)))
    answer = client.ask("codeAction/resolve", action)
    await asyncio.sleep(0.05)
    client.send(message)
    assert "edit" not in await answer
    assert word in client.shown[-1]["message"]


async def test_an_action_of_another_version_is_told(client: InProcessClient) -> None:
    await client.initialize(capabilities=RESOLVES)
    client.send(did_open(URI, CODE))
    (action, *_) = await client.request(*asking(span(3, 11, 3, 25)))
    client.send(did_change(URI, 2, insertion(0, 0, "\n")))
    assert "edit" not in await client.request("codeAction/resolve", action)
    assert "has changed since" in client.shown[-1]["message"]


async def test_a_client_that_cannot_resolve_gets_a_command(client: InProcessClient) -> None:
    edits: list[dict[str, Any]] = []

    def apply(params: Any) -> dict[str, Any]:
        edits.append(params["edit"])
        return {"applied": True}

    client.replies["workspace/applyEdit"] = apply
    await client.initialize(capabilities={"workspace": {"applyEdit": True}})
    client.send(did_open(URI, CODE))
    (action, *_) = await client.request(*asking(span(3, 11, 3, 25)))
    assert "data" not in action
    result = await client.request(
        "workspace/executeCommand",
        {"command": action["command"]["command"], "arguments": action["command"]["arguments"]},
    )
    assert result["applied"] is True
    assert after(CODE, edits[0], None) == CODE.replace("width * height", "value + 1")


def order(**more: Any) -> dict[str, Any]:
    return {"textDocument": {"uri": URI}, "range": span(3, 11, 3, 25), **more}


async def execute(client: InProcessClient, name: str, *arguments: Any, **more: Any) -> Any:
    params = {"command": f"diffgemma.{name}", "arguments": list(arguments), **more}
    return await client.request("workspace/executeCommand", params)


async def test_commands_take_arguments(client: InProcessClient, engine: FakeEngine) -> None:
    await client.initialize(capabilities=RESOLVES)
    client.send(did_open(URI, CODE))
    result = await execute(client, "rewrite", order(strength=0.25, seed=7, apply=False))
    assert result["applied"] is False
    assert result["message"] is None
    assert (result["seed"], result["fillings"], result["finished"]) == (7, ["value + 1"], True)
    assert after(CODE, result["edit"]) == CODE.replace("width * height", "value + 1")
    assert result["strength"] == 0.25
    (request,) = engine.requests
    assert request.seed == 7
    assert [part.strength for part in request.template if hasattr(part, "draft")] == [0.25]
    usual = await execute(client, "rewrite", order(apply=False))
    assert usual["strength"] == 0.6, "what the settings say"
    told = await execute(client, "rewrite", order(instruction="shorter", apply=False))
    assert "does not follow instructions" in told["message"]
    assert await execute(client, "unload") == {"applied": True, "message": None, "edit": None}
    assert engine.loaded is False
    names = client.capabilities["executeCommandProvider"]["commands"]
    assert {"diffgemma.fill", "diffgemma.rewrite", "diffgemma.holes", "diffgemma.unload"} <= set(
        names
    )


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "argument is an object"),
        ([None], "argument is an object"),
        ([{}], "textDocument"),
        ([order(strength=2)], "strength"),
        ([order(seed=-1)], "seed"),
        ([order(range={"start": 1})], "range"),
        ([order(textDocument={"uri": "file:///other.py"})], "not open"),
        ([order(textDocument={"uri": URI, "version": 9})], "has changed since"),
        ([order(range=span(4, 0, 4, 0))], "no text in the selection"),
    ],
)
async def test_orders_that_make_no_sense(
    client: InProcessClient, engine: FakeEngine, arguments: list[Any], word: str
) -> None:
    await client.initialize(capabilities=RESOLVES)
    client.send(did_open(URI, CODE))
    result = await execute(client, "rewrite", *arguments)
    assert result["applied"] is False
    assert word in result["message"]
    assert result["message"] in client.shown[-1]["message"]
    assert engine.runs == 0


async def test_an_edit_that_the_editor_refuses_is_told(client: InProcessClient) -> None:
    client.replies["workspace/applyEdit"] = lambda params: {
        "applied": False,
        "failureReason": "read-only",
    }
    await client.initialize(capabilities=RESOLVES)
    client.send(did_open(URI, CODE))
    result = await execute(client, "rewrite", order())
    assert (result["applied"], result["message"]) == (False, "read-only")
    client.replies["workspace/applyEdit"] = lambda params: {"error": {"code": 1, "message": "no"}}
    assert "refused" in (await execute(client, "rewrite", order()))["message"]


async def test_an_edit_that_the_editor_skips_is_made_anew(client: InProcessClient) -> None:
    """Neovim skips an edit of another version, and says that it applied it."""
    now = f"# new\n{CODE}"
    edits: list[dict[str, Any]] = []

    def apply(params: Any) -> dict[str, Any]:
        edits.append(params["edit"])
        version = edits[-1]["documentChanges"][0]["textDocument"]["version"]
        # The user was typing somewhere else; then the edit itself is told as a change.
        where = insertion(0, 0, "# new\n") if version == 1 else insertion(4, 11, "value + 1")
        client.send(did_change(URI, version + 1, where))
        return {"applied": True}

    client.replies["workspace/applyEdit"] = apply
    await client.initialize(capabilities=RESOLVES)
    client.send(did_open(URI, CODE))
    assert (await execute(client, "rewrite", order()))["applied"] is True
    assert len(edits) == 2
    assert after(now, edits[1], 2) == now.replace("width * height", "value + 1")


async def test_progress_is_shown_and_ends_the_run(
    client: InProcessClient, engine: FakeEngine
) -> None:
    said: list[dict[str, Any]] = []
    client.heard["$/progress"] = said.append
    client.replies["window/workDoneProgress/create"] = lambda params: None
    await client.initialize(capabilities={**RESOLVES, **PROGRESS})
    client.send(did_open(URI, slow(frame="x") + "old\n"))
    (action, *_) = await client.request(*asking(span(1, 0, 1, 3)))
    answer = client.ask("codeAction/resolve", action)
    while not said:
        await asyncio.sleep(0.01)
    assert said[0]["value"]["kind"] == "begin"
    client.notify("window/workDoneProgress/cancel", {"token": said[0]["token"]})
    assert "edit" not in await answer
    assert said[-1]["value"]["kind"] == "end"
    assert "you cancelled it" in client.shown[-1]["message"]
    await asyncio.sleep(0.05)
    assert engine.cancelled == 1


async def test_a_clients_own_token_is_used(client: InProcessClient) -> None:
    said: list[dict[str, Any]] = []
    client.heard["$/progress"] = said.append
    client.replies["workspace/applyEdit"] = lambda params: {"applied": True}
    await client.initialize(capabilities=RESOLVES)
    client.send(did_open(URI, slow(0.1, frame="x", text="new") + "old\n"))
    where = span(1, 0, 1, 3)
    await execute(client, "rewrite", order(range=where), workDoneToken="mine")
    assert {one["token"] for one in said} == {"mine"}
    assert [one["value"]["kind"] for one in said] == ["begin", "report", "end"]


async def test_a_run_can_be_watched(client: InProcessClient) -> None:
    frames: list[dict[str, Any]] = []
    client.heard["diffgemma/frame"] = frames.append
    await client.initialize(capabilities={**RESOLVES, **FRAMES})
    client.send(did_open(URI, slow(0.05, frame="half", text="whole") + "old\n"))
    where = span(1, 0, 1, 3)
    await execute(client, "rewrite", order(range=where, token="t", apply=False))
    (frame,) = frames
    assert frame["token"] == "t"
    assert frame["textDocument"] == {"uri": URI, "version": 1}
    (hole,) = frame["holes"]
    assert hole["range"] == where
    assert hole["pieces"] == [["half", 0.9]]


async def test_who_wants_no_frames_gets_none(client: InProcessClient) -> None:
    await client.initialize(capabilities=RESOLVES)
    client.send(did_open(URI, slow(0.01, frame="half", text="whole") + "old\n"))
    await execute(client, "rewrite", order(range=span(1, 0, 1, 3), apply=False))


@pytest.mark.parametrize(
    "options", [{"enable": False}, {"languages": {"python": {"enable": False}}}]
)
async def test_nothing_where_it_is_off(client: InProcessClient, options: dict[str, Any]) -> None:
    await client.initialize(capabilities=RESOLVES, **options)
    client.send(did_open(URI, CODE))
    assert await titles(client, span(3, 11, 3, 25)) == []
    assert "turned off" in (await execute(client, "rewrite", order()))["message"]


async def test_an_engine_that_fails_is_told(client: InProcessClient) -> None:
    await client.initialize(capabilities=RESOLVES)
    client.send(did_open(URI, '# fake: {"error": "out_of_memory"}\nold\n'))
    result = await execute(client, "rewrite", order(range=span(1, 0, 1, 3)))
    assert "told to fail" in result["message"]
    assert client.shown[-1]["type"] == 1


async def test_a_cancelled_order_is_cancelled(client: InProcessClient, engine: FakeEngine) -> None:
    await client.initialize(capabilities=RESOLVES)
    client.send(did_open(URI, slow() + "old\n"))
    params = {"command": "diffgemma.rewrite", "arguments": [order(range=span(1, 0, 1, 3))]}
    answer = client.ask("workspace/executeCommand", params)
    await asyncio.sleep(0.05)
    client.cancel(answer)
    with pytest.raises(Exception, match="-32800"):
        await answer
    await asyncio.sleep(0.05)
    assert engine.cancelled == 1
