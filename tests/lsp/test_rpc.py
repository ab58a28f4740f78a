"""Whatever a client sends: no exception, and exactly one answer to what looks like a request."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from collections import Counter
from typing import Any

from fake_engine import FakeEngine
from hypothesis import given
from hypothesis import strategies as st
from in_process import InProcessClient
from lsp_client import completion, did_change, did_close, did_open, insertion, position
from pygls.lsp.server import LanguageServer
from pygls.protocol import LanguageServerProtocol, default_converter

from diffgemma_lsp.lsp.rpc import Protocol
from tests.cases import cases

URI = "file:///a.py"

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(-9, 9) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)
method, params = completion(URI, 0, 0)
selected = {"range": {"start": position(0, 0), "end": position(0, 1)}, "text": "x"}
SETTINGS = {"diffgemma": {"seed": 1, "globs": {"*.py": {"max_lines": 1}}}}
FOLDERS = {"added": [{"uri": "file:///b", "name": "b"}], "removed": []}
BOOK = {"notebookDocument": {"uri": "file:///n.ipynb", "version": 2}}
CELL = {"kind": 2, "document": URI}
CELL_TEXT = {"uri": URI, "languageId": "python", "version": 1, "text": "x = "}
NOTEBOOK = {
    "notebookDocument": {**BOOK["notebookDocument"], "notebookType": "x", "cells": [CELL]},
    "cellTextDocuments": [CELL_TEXT],
}
CHANGE = {
    "cells": {
        "structure": {"array": {"start": 0, "deleteCount": 1, "cells": [CELL]}, "didOpen": []},
        "data": [CELL],
        "textContent": [{"document": {"uri": URI, "version": 3}, "changes": [{"text": "z"}]}],
    }
}
messages = st.sampled_from(
    [
        {"id": 1, "method": method, "params": params},
        {"id": 1, "method": method, "params": completion(URI, 1, 2, 1, selected)[1]},
        {"id": 1, "method": "diffgemma/status"},
        {"id": 1, "method": "workspace/executeCommand", "params": {"command": "x"}},
        {"id": 1, "method": "initialize", "params": {"capabilities": {}}},
        {"id": 1, "result": None},
        {"id": 1, "error": {"code": 1, "message": "x"}},
        {"method": "$/cancelRequest", "params": {"id": 1}},
        {"method": "$/setTrace", "params": {"value": "verbose"}},
        {"method": "window/workDoneProgress/cancel", "params": {"token": 1}},
        {"method": "workspace/didChangeConfiguration", "params": {"settings": None}},
        {"method": "workspace/didChangeConfiguration", "params": {"settings": SETTINGS}},
        {"method": "workspace/didChangeWorkspaceFolders", "params": {"event": FOLDERS}},
        {"method": "notebookDocument/didOpen", "params": NOTEBOOK},
        {"method": "notebookDocument/didChange", "params": {**BOOK, "change": CHANGE}},
        {"method": "notebookDocument/didClose", "params": {**BOOK, "cellTextDocuments": []}},
        {"method": "textDocument/didSave", "params": {"textDocument": {"uri": URI}}},
        did_open(URI, "x = "),
        did_change(URI, 2, insertion(0, 1, "y"), {"text": "z"}),
        did_close(URI),
    ]
)


@st.composite
def damaged(draw: st.DrawFn) -> dict[str, Any]:
    """A message in which something was replaced, left out or added."""
    message = json.loads(json.dumps({"jsonrpc": "2.0", **draw(messages)}))
    inside: Any = message
    while draw(st.integers(0, 3)):
        keys = list(inside) if isinstance(inside, dict) else range(len(inside))
        below = [key for key in keys if isinstance(inside[key], dict | list) and inside[key]]
        if not below:
            break
        inside = inside[draw(st.sampled_from(below))]
    if isinstance(inside, list):
        inside[draw(st.integers(0, len(inside) - 1))] = draw(anything)
    elif draw(st.booleans()):
        key = draw(st.sampled_from(list(inside)) | st.text(max_size=3))
        inside[key] = draw(anything)
    else:
        del inside[draw(st.sampled_from(list(inside)))]
    return message


def test_the_private_names_of_pygls_that_all_this_stands_on() -> None:
    """Read off the source, so that none is forgotten; they may be gone with the next pygls."""
    source = inspect.getsource(Protocol)
    names = set(re.findall(r"self\.(_\w+)", source)) - set(vars(Protocol))
    own = set(re.findall(r"self\.(_\w+)\b.* = ", inspect.getsource(Protocol.__init__)))
    pygls = LanguageServerProtocol(LanguageServer("x", "1"), default_converter())
    missing = {name for name in names - own if not hasattr(pygls, name)}
    assert {"_request_futures", "_result_types", "_send_data", "_handle_response"} <= names
    assert missing == set()
    for name in ("builtin_features", "features", "feature_options"):
        assert isinstance(getattr(pygls.fm, name), dict), name
    overridden = set(vars(Protocol)) & set(dir(LanguageServerProtocol))
    assert {"_execute_handler", "_send_handler_result", "_check_handler_result"} <= overridden
    assert "_handle_cancel_notification" in overridden


def test_any_message() -> None:
    with asyncio.Runner() as runner:
        client = InProcessClient()

        async def connect() -> None:
            client.connect(lambda settings: FakeEngine())
            await client.initialize(warm_up=False)

        async def send(conversation: list[dict[str, Any]]) -> list[dict[str, Any]]:
            for message in conversation:
                client.server.rpc.receive(json.dumps(message).encode())
                await asyncio.sleep(0)
            while client.server.rpc._request_futures:  # pyright: ignore[reportPrivateUsage]
                await asyncio.sleep(0.001)
            for _ in range(5):  # a request that was cancelled is answered a moment later
                await asyncio.sleep(0)
            heard, client.nameless_errors, client.unexpected = client.unexpected, [], []
            return heard

        @cases(1_000)
        @given(st.lists(damaged(), max_size=4))
        def conversation(sent: list[dict[str, Any]]) -> None:
            answers = Counter(str(message["id"]) for message in runner.run(send(sent)))
            asked = Counter(
                str(message["id"])
                for message in sent
                if (type(message.get("id")) in (int, str) and "method" in message)
            )
            assert answers == asked

        runner.run(connect())
        conversation()
