"""Every method and every action, with the real engine and nano, over standard input and output.

What nano says is weak and differs from one training to the next, so nothing is asserted of it: what
counts is that the fixed text stays bit for bit, that an edit is for the version and the place that
were asked for, and that where there is none, there is a reason.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

# First: it says where the clients of tests are.
from editor import ALL, OPTIONS, SERVER, URI, Editor  # isort: skip
from applying import applied
from lsp_client import (
    AUTOMATIC,
    INVOKED,
    completion,
    did_change,
    did_open,
    insertion,
    position,
    span,
)

from diffgemma_lsp.actions.run import SEEDS
from diffgemma_lsp.engine_client import EngineClient
from diffgemma_lsp.engine_process import EngineOptions

# A file with something for each action; its parts are named by what they are for.
HEAD = "# 😀\nimport math\n\n\n"
AREA = "def area(width, height):\n    return width * height\n\n\n"
TOTAL = """\
def total(values):
    result = ___
    for value in values:
        ...
    return result
"""
LATER = "\n\ndef later(count):\n    ...\n"
TEXT = HEAD + AREA + TOTAL + LATER


@pytest.fixture
async def editor(real_engine: dict[str, str]) -> AsyncIterator[Editor]:
    editor = Editor()
    await editor.start(*SERVER, env=real_engine)
    try:
        yield editor
        assert await editor.finish() == 0
    finally:
        if editor.process.returncode is None:
            editor.process.kill()


def line_of(piece: str) -> int:
    """The line on which a piece of the text stands first."""
    return TEXT[: TEXT.index(piece)].count("\n")


def fixed(*pieces: str) -> re.Pattern[str]:
    """What has these pieces, in this order, and anything between them."""
    return re.compile(".*".join(map(re.escape, pieces)), re.DOTALL)


# ---- suggestions ----


async def test_suggestions_while_typing_and_when_asked_for(editor: Editor) -> None:
    await editor.begin(TEXT, candidates=3)
    line = line_of("    return width")
    at = len("    return wid")
    text = TEXT.replace("return width * height", "return wid")
    editor.send(did_change(URI, 2, {"text": text}))
    word = span(line, len("    return "), line, at)
    for kind, most in ((AUTOMATIC, 1), (INVOKED, 3)):
        items = await editor.suggestions(line, at, kind)
        texts = [item["insertText"] for item in items]
        assert len(set(texts)) == len(texts) <= most
        assert all(item["range"] == word for item in items)
        assert all(one.startswith("wid") for one in texts)
    assert editor.shown == []


async def test_what_is_typed_through_needs_no_run(
    editor: Editor, real_engine: dict[str, str]
) -> None:
    folder = Path(real_engine["DIFFGEMMA_LSP_RUNTIME_DIR"])
    engine = EngineClient(EngineOptions(runtime_dir=folder))
    await editor.begin(TEXT)
    for line, text in enumerate(TEXT.split("\n")):
        if not text.isascii():
            continue
        items = await editor.suggestions(line, len(text), INVOKED)
        rests = [item["insertText"][len(text) - start(item) :] for item in items]
        if rests and len(rests[0]) > 1 and rests[0][0] != "\n":
            break
    else:
        return  # nothing was suggested anywhere, and there was a reason each time
    await asyncio.sleep(0.5)
    before = await engine.status() or {}
    editor.send(did_change(URI, 2, insertion(line, len(text), rests[0][0])))
    found = await editor.suggestions(line, len(text) + 1, AUTOMATIC)
    after = await engine.status() or {}
    await engine.aclose()
    assert rests[0][1:] in [item["insertText"][len(text) + 1 - start(item) :] for item in found]
    assert after["idle_s"] >= before["idle_s"] >= 0.4, "the engine has worked in between"


def start(item: dict[str, Any]) -> int:
    """Where on its line a suggestion begins: before the word that it completes."""
    return item["range"]["start"]["character"]


async def test_nano_suggests_by_itself_in_python_alone(editor: Editor) -> None:
    uri, method = "file:///work/a.md", "textDocument/inlineCompletion"
    await editor.begin(TEXT)
    editor.send(did_open(uri, "import math\n\nmath.\n", language="markdown"))
    assert await editor.suggestions(2, 5, AUTOMATIC, uri) == []
    why = await editor.reason(method, uri)
    assert why == "nano knows only python, so it suggests elsewhere only when you ask"
    assert editor.states[-1]["message"] == "ready", "of no document in particular"
    for one, message in ((uri, f"ready; {why}"), (URI, "ready")):
        status = await editor.request("diffgemma/status", {"textDocument": {"uri": one}})
        assert status["message"] == message
    await editor.suggestions(2, 5, INVOKED, uri)
    assert await editor.reason(method, uri) != why
    assert editor.shown == []


async def test_completion_for_editors_without_inline_completion(editor: Editor) -> None:
    await editor.begin(TEXT, capabilities={})
    assert "completionProvider" in editor.capabilities
    line = line_of("import math")
    params = {"textDocument": {"uri": URI}, "position": position(line, len("import math"))}
    found = await editor.wait("textDocument/completion", params)
    assert found["isIncomplete"] is True
    reason = await editor.reason("textDocument/completion")
    assert (found["items"] == []) == (reason is not None)
    for item in found["items"]:
        assert item["textEdit"]["range"] == span(line, len("import "), line, len("import math"))
        assert item["textEdit"]["newText"].startswith("math")


# ---- actions ----

AREA_LINE = line_of("def area")
TOTAL_LINE = line_of("def total")
LATER_LINE = line_of("def later")

ACTIONS = [
    pytest.param(
        "Fill here",
        span(AREA_LINE + 2, 0, AREA_LINE + 2, 0),
        fixed(TEXT[: TEXT.index("\n\ndef total")], TEXT[TEXT.index("\n\ndef total") :]),
        id="fill",
    ),
    pytest.param(
        "Rewrite selection",
        span(AREA_LINE + 1, 4, AREA_LINE + 1, 25),
        fixed(HEAD + AREA.partition("return")[0], "\n\n\n" + TOTAL + LATER),
        id="rewrite",
    ),
    pytest.param(
        "Fill all holes in selection",
        span(TOTAL_LINE, 0, TOTAL_LINE + 4, 0),
        fixed(
            f"{HEAD}{AREA}{TOTAL.partition('___')[0]}",
            "\n    for value in values:\n        ",
            f"\n    return result\n{LATER}",
        ),
        id="holes",
    ),
    pytest.param(
        "Add docstring",
        span(AREA_LINE, 4, AREA_LINE, 8),
        fixed(
            f'{HEAD}def area(width, height):\n    """',
            f'"""\n    return width * height\n\n\n{TOTAL}{LATER}',
        ),
        id="docstring",
    ),
    pytest.param(
        "Add type hints",
        span(AREA_LINE, 4, AREA_LINE, 8),
        fixed(
            f"{HEAD}def area(width",
            ", height",
            ")",
            f":\n    return width * height\n\n\n{TOTAL}{LATER}",
        ),
        id="hints",
    ),
    pytest.param(
        "Complete body",
        span(LATER_LINE, 4, LATER_LINE, 9),
        fixed(TEXT.removesuffix("...\n"), "\n"),
        id="body",
    ),
]


@pytest.mark.parametrize(("title", "where", "expected"), ACTIONS)
async def test_an_action_is_offered_and_resolved(
    editor: Editor, title: str, where: dict[str, Any], expected: re.Pattern[str]
) -> None:
    await editor.begin(TEXT)
    (action,) = [one for one in await editor.actions(where) if one["title"] == title]
    resolved = await editor.wait("codeAction/resolve", action)
    reason = await editor.reason("codeAction/resolve")
    if "edit" in resolved:
        assert reason is None
        assert expected.fullmatch(applied(TEXT, URI, resolved["edit"]))
    else:
        assert reason is not None
        assert reason in editor.shown[-1]["message"]
    for frame in editor.frames:
        assert frame["textDocument"] == {"uri": URI, "version": 1}
    await editor.until(lambda: editor.progress and editor.progress[-1]["value"]["kind"] == "end")
    ((_, created),) = editor.asked
    assert {one["token"] for one in editor.progress} == {created["token"]}
    assert editor.progress[0]["value"]["title"] == title


async def test_what_nano_cannot_do_is_not_offered(editor: Editor) -> None:
    await editor.begin("# make it short\nx = 1 + 1\n")
    wrong = {"range": span(1, 0, 1, 9), "message": "too long"}
    offered = await editor.actions(span(1, 0, 1, 9), diagnostics=[wrong])
    assert [action["title"] for action in offered] == ["Rewrite selection"]
    assert await editor.actions(span(1, 0, 1, 0), diagnostics=[wrong], triggerKind=2) == []
    reason = await editor.reason("textDocument/codeAction")
    assert reason == "this model does not follow instructions"
    told = await editor.execute("rewrite", span(1, 0, 1, 9), instruction="shorter")
    assert (told["applied"], told["message"]) == (False, reason)


# ---- commands ----

BODY = span(AREA_LINE + 1, 4, AREA_LINE + 1, 25)


async def test_a_command_hands_its_edit_back_and_shows_its_run(editor: Editor) -> None:
    await editor.begin(TEXT)
    more = {"strength": 1, "apply": False}
    first = await editor.execute("rewrite", BODY, token="t", workDoneToken="w", **more)
    assert first["applied"] is False
    if first["message"] is None:
        assert ACTIONS[1].values[2].fullmatch(applied(TEXT, URI, first["edit"]))
        assert first["seed"] in range(SEEDS)
        assert len(first["fillings"]) == 1
        assert 0 <= first["confidence"] <= 1
        again = await editor.execute("rewrite", BODY, **more)
        if first["finished"] and again.get("finished"):
            assert again["edit"] == first["edit"]
    other = await editor.execute("rewrite", BODY, seed=7, **more)
    assert other["message"] is not None or other["seed"] in range(7, 7 + SEEDS)
    assert editor.frames != []
    shown = [frame for frame in editor.frames if frame["token"] == "t"]
    steps = [frame["step"] for frame in shown]
    assert steps == sorted(set(steps)) or first.get("seed") != 0, "each try begins anew"
    for frame in shown:
        (hole,) = frame["holes"]
        assert hole["range"] == BODY
        assert all(0 <= certainty <= 1 for _, certainty in hole["pieces"])
    kinds = [one["value"]["kind"] for one in editor.progress if one["token"] == "w"]
    assert (kinds[0], kinds[-1]) == ("begin", "end")
    assert set(kinds[1:-1]) <= {"report"}


async def test_a_command_has_its_edit_applied(editor: Editor) -> None:
    seen: list[dict[str, Any]] = []

    def apply(params: dict[str, Any]) -> dict[str, Any]:
        seen.append(params["edit"])
        return {"applied": True}

    editor.replies["workspace/applyEdit"] = apply
    await editor.begin(TEXT)
    for name, where in (("fill", span(2, 0, 2, 0)), ("rewrite", BODY)):
        result = await editor.execute(name, where)
        assert result["applied"] is (result["message"] is None) is bool(seen)
        for edit in seen:
            assert applied(TEXT, URI, edit) != TEXT
        seen.clear()
    unchanged = await editor.execute("rewrite", BODY, strength=0)
    assert unchanged["applied"] is False
    assert unchanged["message"] == await editor.reason("workspace/executeCommand")
    assert seen == []


# ---- what changes meanwhile ----


async def test_settings_that_change_mid_way(editor: Editor) -> None:
    async def push(**settings: Any) -> None:
        editor.notify("workspace/didChangeConfiguration", {"settings": {"diffgemma": settings}})

    await editor.begin(TEXT)
    line = line_of("import math")
    await push(enable=False)
    assert await editor.suggestions(line, 11, INVOKED) == []
    assert await editor.actions(BODY) == []
    assert "setting enable" in (await editor.reason("textDocument/codeAction") or "")
    await editor.until_it_is("off")
    await push(candidates=1, rewrite_strength=0)
    assert len(await editor.suggestions(line, 11, INVOKED)) <= 1
    result = await editor.execute("rewrite", BODY, apply=False)
    assert "leave this as it is" in result["message"]
    await editor.until_it_is("ready")


async def test_the_cells_of_a_notebook(editor: Editor) -> None:
    cells = ["import math\n", "# Circles\n", "def area(radius):\n    ...\n"]
    kinds, languages = (2, 1, 2), ("python", "markdown", "python")
    notebook = "file:///work/n.ipynb"
    uris = [f"{notebook}#{n}" for n in range(3)]
    texts = [
        did_open(uri, text, version=4, language=language)["params"]["textDocument"]
        for uri, text, language in zip(uris, cells, languages, strict=True)
    ]
    await editor.begin(TEXT)
    editor.notify(
        "notebookDocument/didOpen",
        {
            "notebookDocument": {
                "uri": notebook,
                "notebookType": "jupyter-notebook",
                "version": 1,
                "cells": [
                    {"kind": kind, "document": uri} for kind, uri in zip(kinds, uris, strict=True)
                ],
            },
            "cellTextDocuments": texts,
        },
    )
    await editor.suggestions(1, 7, INVOKED, uris[2])
    offered = await editor.actions(span(0, 4, 0, 8), uris[2])
    (body,) = [action for action in offered if action["title"] == "Complete body"]
    resolved = await editor.wait("codeAction/resolve", body)
    if "edit" in resolved:
        after = applied(cells[2], uris[2], resolved["edit"], 4)
        assert fixed("def area(radius):\n    ", "\n").fullmatch(after)
    else:
        assert await editor.reason("codeAction/resolve", uris[2]) is not None


async def test_what_is_asked_for_while_the_model_loads(
    editor: Editor, real_engine: dict[str, str]
) -> None:
    folder = Path(real_engine["DIFFGEMMA_LSP_RUNTIME_DIR"])
    engine = EngineClient(EngineOptions(runtime_dir=folder))
    await engine.stop()
    await editor.initialize(capabilities=ALL, **OPTIONS, automatic_budget_ms=1_500)
    editor.send(did_open(URI, TEXT.replace("return width * height", "return wid")))
    line, at = line_of("    return width"), len("    return wid")
    items = await editor.wait(*completion(URI, line, at, AUTOMATIC))
    loaded = await engine.status() or {}
    await engine.aclose()
    assert loaded["loaded_s"] is not None, "the model came first, and then the answer"
    assert [item["insertText"][:3] for item in items] in (["wid"], [])
    why = await editor.reason("textDocument/inlineCompletion")
    assert (items == []) == (why is not None)
    assert "ready" not in (why or ""), "that is no reason: it is waited for"
    assert editor.shown == []


async def test_unloaded_and_loaded_again(editor: Editor) -> None:
    await editor.begin(TEXT)
    result = await editor.request("workspace/executeCommand", {"command": "diffgemma.unload"})
    assert result == {"applied": True, "message": None, "edit": None}
    await editor.until_it_is("idle")
    await editor.suggestions(line_of("import math"), 11, INVOKED)
    await editor.until_it_is("ready")
    state = await editor.request("diffgemma/status")
    assert (state["state"], state["model"]) == ("ready", "nano")
    known = {"loading", "filling", "ready", "idle"}
    assert {one["state"] for one in editor.states} <= known


async def test_next_edits(editor: Editor) -> None:
    await editor.begin(TEXT, automatic_budget_ms=60_000)
    line = line_of("def area")
    editor.send(did_change(URI, 2, {"range": span(line, 9, line, 14), "text": "length"}))
    params = {"textDocument": {"uri": URI, "version": 2}, "position": position(line, 15)}
    edits = (await editor.wait("textDocument/copilotInlineEdit", params))["edits"]
    reason = await editor.reason("textDocument/copilotInlineEdit")
    assert (edits == []) == (reason is not None)
    for edit in edits:
        assert edit["textDocument"] == {"uri": URI, "version": 2}
        assert edit["range"]["start"] == position(line + 1, 0)
        assert edit["text"] == "    return length * height"
