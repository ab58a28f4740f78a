"""Code actions: what is offered, and what becomes of the document. In process."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from typing import Any

import pytest
from acting import CODE, FRAMES, RESOLVES, URI, after, asking, execute, order, resolved, titles
from fake_engine import FakeEngine, slow
from in_process import InProcessClient
from lsp_client import PATIENCE_S, did_change, did_close, did_open, insertion, span, until

from diffgemma_lsp.actions.blank import Blank
from diffgemma_lsp.actions.fit import fitted
from diffgemma_lsp.actions.plan import LONGEST_HINT
from diffgemma_lsp.syntax.check import Site
from diffgemma_lsp.text.documents import Document
from diffgemma_lsp.text.snapshot import DocumentSnapshot
from diffgemma_lsp.text.text import Point, Text
from engine.types import Fixed, Hole

PROGRESS = {"window": {"workDoneProgress": True}}


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
    await client.server.session.engines.default.client()  # what it can do is known from then on
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
    assert await titles(client, where, only=["refactor.rewrite.diffgemma.sel"]) == []
    assert await titles(client, where, only=["source", ""]) == await titles(client, where)
    action = await resolved(client, where, "Rewrite as the comment above says")
    assert "edit" in action
    assert engine.requests[-1].instruction == "make it short"


@pytest.mark.parametrize(
    "odd", [{"severity": 0}, {"tags": [3]}, {"code": {}}, {"relatedInformation": 7}, {"source": []}]
)
async def test_an_odd_diagnostic_is_read_as_far_as_it_goes(
    client: InProcessClient, engine: FakeEngine, odd: dict[str, Any]
) -> None:
    engine.can = ("fill", "instruct")
    await client.initialize(capabilities=RESOLVES)
    client.send(did_open(URI, CODE))
    await client.server.session.engines.default.client()
    where = span(3, 11, 3, 25)
    found = [{"range": where, "message": "odd", **odd}, {"range": where, "message": "next"}, 7, {}]
    assert await titles(client, where, diagnostics=found, only=["quickfix"]) == [
        "Fix: odd",
        "Fix: next",
    ]


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


async def test_a_rewrite_brings_nothing_unseen(client: InProcessClient) -> None:
    await client.initialize(capabilities=RESOLVES | FRAMES)
    frames: list[dict[str, Any]] = []
    client.heard["diffgemma/frame"] = frames.append
    unseen = json.dumps({"text": "x = 'n\u202ee\x1bw\x0c'", "frame": "n\u202e\x0ce\x1b"})
    text = f"# fake: {unseen}\nx = 'old\x0c'\nrest\n"
    client.send(did_open(URI, text))
    result = await execute(client, "rewrite", order(range=span(1, 0, 2, 0), apply=False))
    assert after(text, result["edit"]) == text.replace("old", "new"), "the form feed was there"
    assert frames[0]["holes"][0]["pieces"] == [["n\x0ce", 0.9]]


async def test_holes_far_and_near_make_one_edit(client: InProcessClient) -> None:
    await client.initialize(capabilities=RESOLVES)
    text = (
        '# fake: {"texts": ["1", "2\\nno", "if x:\\n    y()"]}\n'
        "x = ___ + f(...)\ndef g():\n    # TODO: go on\n"
    )
    client.send(did_open(URI, text))
    action = await resolved(client, span(1, 0, 4, 0), "Fill all holes in selection")
    assert after(text, action["edit"]) == text.splitlines(True)[0] + (
        "x = 1 + f(2)\ndef g():\n    if x:\n        y()\n"
    )


@pytest.mark.parametrize(
    ("title", "texts", "wanted"),
    [
        ("Add docstring", ["Counts.\n\n    Slowly."], '"""Counts.\n\n    Slowly."""\n    ...'),
        ("Add docstring", ['Says """x""".'], '"""Says"""\n    ...'),
        ("Complete body", ["return count  \n"], "return count"),
        ("Complete body", ["x = 1\n    y = 2\n\ndef g():\n    z()"], "x = 1\n    y = 2"),
        (
            "Complete body",
            ["for x in y:\n    f(x)\nreturn"],
            "for x in y:\n        f(x)\n    return",
        ),
        ("Complete body", ["x = 1" + "\n    x = f(x)" * 9], "x = 1\n    x = f(x)"),
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
        # What stands behind it is not a part of it.
        (["int = 3, name: str", "dict[str, list[int]]:"], "(count: int) -> dict[str, list[int]]:"),
        (["int, name", 'Literal["a=b", "c:d"]: ...'], '(count: int) -> Literal["a=b", "c:d"]:'),
        (["= 3", "tuple[int, ...] | None"], "(count) -> tuple[int, ...] | None:"),
        # Values are no types.
        (["...", "Callable[..., int]"], "(count) -> Callable[..., int]:"),
        (["3", "None"], "(count) -> None:"),
        (["int | ...", '"Later"'], '(count) -> "Later":'),
        (["[int]", "int | None"], "(count) -> int | None:"),
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


async def test_a_rewrite_that_could_never_be_done_in_time_is_refused_at_once(
    client: InProcessClient, engine: FakeEngine
) -> None:
    line = "    total_1 = total_0 + values[1]  # item 1\n"
    await client.initialize(capabilities=RESOLVES)
    client.send(did_open(URI, line * 5000))

    async def rewritten(lines: int) -> Any:
        document = {"uri": URI, "version": 1}
        order = {"textDocument": document, "range": span(0, 0, lines, 0), "apply": False}
        params = {"command": "diffgemma.rewrite", "arguments": [order]}
        return await client.request("workspace/executeCommand", params)

    refused = await rewritten(5000)
    assert engine.runs == 0
    most = int(
        re.fullmatch(r"too long for 30 s: select (\d+) lines at most", refused["message"])[1]
    )
    assert most > 600
    await rewritten(most)
    assert engine.runs > 0


async def test_a_hint_has_no_more_room_than_a_hint_needs(
    client: InProcessClient, engine: FakeEngine
) -> None:
    await client.initialize(capabilities=RESOLVES)
    client.send(did_open(URI, "def later(count):\n    ...\n"))
    engine.texts = ("int", "list")
    await resolved(client, span(0, 4, 0, 9), "Add type hints")
    holes = [part for part in engine.requests[0].template if isinstance(part, Hole)]
    assert [hole.max_tokens for hole in holes] == [LONGEST_HINT, LONGEST_HINT]
    engine.texts = ("pass",)
    await resolved(client, span(0, 4, 0, 9), "Complete body")
    holes = [part for part in engine.requests[-1].template if isinstance(part, Hole)]
    assert [hole.max_tokens for hole in holes] == [None]


async def test_what_is_filled_in_here_fits_as_a_suggestion_does(client: InProcessClient) -> None:
    await client.initialize(capabilities=RESOLVES)
    text = '# fake: {"text": "x = 1\\ny = load()"}\r\nif z:\r\n    \r\n    y = load()\r\n'
    client.send(did_open(URI, text))
    action = await resolved(client, span(2, 4, 2, 4), "Fill here")
    assert after(text, action["edit"]) == text.replace("    \r\n", "    x = 1\r\n")


async def test_what_is_filled_in_in_front_of_selected_blanks_stays_whole(
    client: InProcessClient,
) -> None:
    await client.initialize(capabilities=RESOLVES)
    text = '# fake: {"text": "fooa"}\nx = \na\n'
    client.send(did_open(URI, text))
    argument = {"textDocument": {"uri": URI}, "range": span(1, 4, 2, 0), "apply": False}
    params = {"command": "diffgemma.fill", "arguments": [argument]}
    result = await client.request("workspace/executeCommand", params)
    assert after(text, result["edit"]) == text.replace("x = ", "x = fooa")


async def test_no_edit_breaks_the_syntax(client: InProcessClient, engine: FakeEngine) -> None:
    await client.initialize(capabilities=RESOLVES)
    client.send(did_open(URI, CODE.replace("value + 1", "value + (")))
    action = await resolved(client, span(3, 11, 3, 25), "Rewrite selection")
    assert "edit" not in action
    (shown,) = client.shown
    assert "would break the syntax" in shown["message"]
    assert [request.seed for request in engine.requests] == [0, 1], "the same again"


@pytest.mark.parametrize(("least", "tried", "put"), [(0.0, 1, "b"), (0.25, 1, "a"), (0.5, 2, None)])
async def test_what_else_was_considered_stands_in_if_the_model_is_sure_enough(
    client: InProcessClient, engine: FakeEngine, least: float, tried: int, put: str | None
) -> None:
    await client.initialize(capabilities=RESOLVES, min_confidence=least)
    text = slow(0, text="= 3", others=[["= 4", 0.4], ["b", 0.2], ["a", 0.3]]) + "x = \n"
    client.send(did_open(URI, text))
    action = await resolved(client, span(1, 4, 1, 4), "Fill here")
    assert len(engine.requests) == tried
    if put is None:
        assert "edit" not in action
    else:
        assert after(text, action["edit"]) == text.replace("x = ", f"x = {put}")


async def test_what_was_asked_for_is_put_in_where_it_was_not_measured_how_sure_the_model_is(
    client: InProcessClient,
) -> None:
    await client.initialize(capabilities=RESOLVES, min_confidence=0.5)
    text = slow(0, text="b", confidence=None) + "x = \n"
    client.send(did_open(URI, text))
    action = await resolved(client, span(1, 4, 1, 4), "Fill here")
    assert after(text, action["edit"]) == text.replace("x = ", "x = b")


async def test_what_has_nothing_to_complete_comes_back_as_it_is(
    client: InProcessClient, engine: FakeEngine
) -> None:
    await client.initialize(capabilities=RESOLVES)
    for item in ({"title": "Sort imports", "kind": "source"}, {"title": "x", "data": None}):
        assert await client.request("codeAction/resolve", item) == {
            name: value for name, value in item.items() if value is not None
        }
    for item in ({"label": "x"}, {"label": "y", "data": {"of": "another"}, "sortText": "a"}):
        assert await client.request("completionItem/resolve", item) == item
    assert client.shown == []
    assert engine.runs == 0


async def test_an_edit_moves_with_its_place(client: InProcessClient, engine: FakeEngine) -> None:
    await client.initialize(capabilities=RESOLVES)
    text = slow(0.2, text="one") + "x = 0\nold\ny = 0\n"
    client.send(did_open(URI, text))
    (action, *_) = await client.request(*asking(span(2, 0, 2, 3)))
    answer = client.ask("codeAction/resolve", action)
    await until(lambda: engine.runs == 1)
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
    client: InProcessClient, engine: FakeEngine, message: dict[str, Any], word: str
) -> None:
    await client.initialize(capabilities=RESOLVES)
    client.send(did_open(URI, slow(0.2, text="new") + "old\n"))
    (action, *_) = await client.request(*asking(span(1, 0, 1, 3)))
    answer = client.ask("codeAction/resolve", action)
    await until(lambda: engine.runs == 1)
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


@pytest.mark.parametrize("lacks", ["codeActionLiteralSupport", "dataSupport", "resolveSupport"])
async def test_a_client_that_cannot_resolve_gets_a_command(
    client: InProcessClient, lacks: str
) -> None:
    edits: list[dict[str, Any]] = []

    def apply(params: Any) -> dict[str, Any]:
        edits.append(params["edit"])
        return {"applied": True}

    client.replies["workspace/applyEdit"] = apply
    can = {key: it for key, it in RESOLVES["textDocument"]["codeAction"].items() if key != lacks}
    capabilities = {"workspace": {"applyEdit": True}, "textDocument": {"codeAction": can}}
    await client.initialize(capabilities=capabilities)
    literals = lacks != "codeActionLiteralSupport"
    assert (client.capabilities["codeActionProvider"] is not True) == literals
    client.send(did_open(URI, CODE))
    (action, *_) = await client.request(*asking(span(3, 11, 3, 25)))
    assert "data" not in action
    command = action["command"] if literals else action
    assert action["title"] == command["title"] == "Rewrite selection"
    result = await client.request(
        "workspace/executeCommand",
        {"command": command["command"], "arguments": command["arguments"]},
    )
    assert result["applied"] is True
    assert after(CODE, edits[0], None) == CODE.replace("width * height", "value + 1")


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
    await until(lambda: engine.cancelled == 1)


@pytest.mark.parametrize(
    "options", [{"enable": False}, {"languages": {"python": {"enable": False}}}]
)
async def test_nothing_where_it_is_off(client: InProcessClient, options: dict[str, Any]) -> None:
    await client.initialize(capabilities=RESOLVES, **options)
    client.send(did_open(URI, CODE))
    assert await titles(client, span(3, 11, 3, 25)) == []
    assert "turned off" in (await execute(client, "rewrite", order()))["message"]


TABS = """\
# fake: {}
class A:
\tdef f(self, a):
\t\tif a:
\t\t\treturn '''
\t    as it is'''
\t\treturn a

\tdef g(self, a):
\t\t...
"""


@pytest.mark.parametrize(
    ("where", "title", "model", "expected"),
    [
        (
            span(9, 2, 9, 2),
            "Complete body",
            "for x in a:\n            if x:\n                return x",
            "\t\tfor x in a:\n\t\t\tif x:\n\t\t\t\treturn x\n",
        ),
        (
            span(8, 1, 9, 5),
            "Rewrite selection",
            "def g(self, a):\n        if a:\n            return a",
            "\tdef g(self, a):\n\t\tif a:\n\t\t\treturn a\n",
        ),
        (
            span(9, 2, 9, 5),
            "Fill all holes in selection",
            "if a:\n            return a",
            "\t\tif a:\n\t\t\treturn a\n",
        ),
    ],
)
async def test_documents_with_tabs(
    client: InProcessClient, engine: FakeEngine, where: Any, title: str, model: str, expected: str
) -> None:
    await client.initialize(capabilities=RESOLVES)
    client.send(did_open(URI, TABS))
    engine.texts = (model,)
    action = await resolved(client, where, title)
    result = after(TABS, action["edit"])
    assert result.endswith(expected)
    untouched = "".join(TABS.splitlines(True)[:8])
    assert result.startswith(untouched)
    *_, request = engine.requests
    for part in request.template:
        assert "\t" not in (part.text if isinstance(part, Fixed) else part.draft or "")


async def test_the_strings_of_a_rewrite_keep_their_tabs(
    client: InProcessClient, engine: FakeEngine
) -> None:
    await client.initialize(capabilities=RESOLVES)
    client.send(did_open(URI, TABS))
    whole = span(2, 1, 6, 10)
    draft = TABS[TABS.index("def f") : TABS.index("\n\n\tdef g")]
    spaces = draft.replace("\n\t\t\t", "\n            ").replace("\n\t\t", "\n        ")
    engine.texts = (spaces.replace("return a", "return 1"),)
    action = await resolved(client, whole, "Rewrite selection")
    assert after(TABS, action["edit"]) == TABS.replace("return a\n", "return 1\n")
    (part,) = [part for part in engine.requests[-1].template if isinstance(part, Hole)]
    assert part.draft == spaces


async def test_other_languages_keep_their_tabs(client: InProcessClient, engine: FakeEngine) -> None:
    await client.initialize(capabilities=RESOLVES)
    text = "func f() {\n\tif x {\n\t\ty()\n\t}\n}\n"
    client.send(did_open(URI, text, language="go"))
    engine.texts = ("z()",)
    await resolved(client, span(2, 2, 2, 5), "Rewrite selection")
    assert engine.requests[-1].template[0] == Fixed("func f() {\n\tif x {\n\t\t")


async def test_a_stub_is_left_as_it_is(client: InProcessClient) -> None:
    await client.initialize(capabilities=RESOLVES)
    stub = URI + "i"
    client.send(did_open(stub, "def f() -> int: ...\n"))
    where = {"textDocument": {"uri": stub}, "range": span(0, 0, 0, 19)}
    request = {**where, "context": {"diagnostics": []}}
    offered = [each["title"] for each in await client.request("textDocument/codeAction", request)]
    assert offered == ["Rewrite selection", "Add docstring"]


async def test_many_places_hold_nothing_else_up(
    client: InProcessClient, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking, go_on = threading.Event(), threading.Event()
    worsened_by = Site.worsened_by

    def slowly(site: Site, new: str, old: str | None) -> bool:
        looking.set()
        assert go_on.wait(PATIENCE_S), "everything waits while the places are looked at"
        return worsened_by(site, new, old)

    monkeypatch.setattr(Site, "worsened_by", slowly)
    await client.initialize(capabilities=RESOLVES)
    function = "def f{}(a):\n    x = ___\n" + "    y = [a, 1, 2]\n" * 10 + "    return x\n\n\n"
    text = "".join(map(function.format, range(150)))
    client.send(did_open(URI, text))
    engine.texts = ("a + 1",) * 150
    work = asyncio.create_task(
        resolved(client, span(0, 0, 150 * 15, 0), "Fill all holes in selection")
    )
    await until(looking.is_set)
    for _ in range(20):
        await client.request("diffgemma/status")
    assert not work.done()
    go_on.set()
    assert after(text, (await work)["edit"]) == text.replace("___", "a + 1")


def test_what_is_not_looked_at_in_time_stays() -> None:
    document = Document(URI, "python", 1, Text.of("x = ___\n"))
    snapshot = DocumentSnapshot.of(document, Point(0, 4), Point(0, 7))
    blank = Blank(Point(0, 4), Point(0, 7))
    assert fitted((blank,), ("1",), snapshot).texts == ("1",)
    assert fitted((blank,), ("1",), snapshot, until=0.0).texts == (None,)
