"""Notebooks: cells are documents, and the cells around one are its context."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from fake_engine import FakeEngine, filling, slow
from hypothesis import given
from hypothesis import strategies as st
from in_process import InProcessClient
from lsp_client import CANARY, INVOKED, LspClient, answered_at_once, completion, insertion

from diffgemma_lsp.context.window import prefix_of, suffix_of
from diffgemma_lsp.text.snapshot import snapshot_of
from tests.cases import cases

BOOK = "file:///work/book.ipynb"
CAPABLE = {"notebookDocument": {"synchronization": {}}}
MARKUP, CODE = 1, 2


# ---- what a client says ----


def cell_uri(name: str) -> str:
    return f"vscode-notebook-cell:/work/book.ipynb#{name}"


def cell(name: str, kind: int = CODE) -> dict[str, Any]:
    ran = {"executionOrder": 3, "success": True}
    return {"kind": kind, "document": cell_uri(name), "metadata": {"a": 1}, "executionSummary": ran}


def text(name: str, content: str, language: str = "python", version: int = 1) -> dict[str, Any]:
    uri = cell_uri(name)
    return {"uri": uri, "languageId": language, "version": version, "text": content}


def opened(cells: list[dict], texts: list[dict], uri: str = BOOK) -> dict[str, Any]:
    notebook = {"uri": uri, "notebookType": "jupyter-notebook", "version": 1, "cells": cells}
    params = {"notebookDocument": notebook, "cellTextDocuments": texts}
    return {"method": "notebookDocument/didOpen", "params": params}


def changed(uri: str = BOOK, **cells: Any) -> dict[str, Any]:
    params = {"notebookDocument": {"uri": uri, "version": 2}, "change": {"cells": cells}}
    return {"method": "notebookDocument/didChange", "params": params}


def spliced(start: int, delete: int, cells: list[dict], **texts: Any) -> dict[str, Any]:
    array = {"start": start, "deleteCount": delete, "cells": cells}
    return changed(structure={"array": array, **texts})


def typed(name: str, version: int, *changes: dict[str, Any]) -> dict[str, Any]:
    document = {"uri": cell_uri(name), "version": version}
    return changed(textContent=[{"document": document, "changes": list(changes)}])


def closed(*names: str, uri: str = BOOK) -> dict[str, Any]:
    texts = [{"uri": cell_uri(name)} for name in names]
    params = {"notebookDocument": {"uri": uri}, "cellTextDocuments": texts}
    return {"method": "notebookDocument/didClose", "params": params}


def saved(uri: str = BOOK) -> dict[str, Any]:
    return {"method": "notebookDocument/didSave", "params": {"notebookDocument": {"uri": uri}}}


@pytest.fixture
async def inside(client: InProcessClient) -> AsyncIterator[InProcessClient]:
    await client.initialize(capabilities=CAPABLE, warm_up=False)
    yield client
    assert client.shown == []


async def filled(client: LspClient, name: str, line: int, character: int) -> str | None:
    items = await client.request(*completion(cell_uri(name), line, character, INVOKED))
    return items[0]["insertText"] if items else None


THREE = opened(
    [cell("a"), cell("m", MARKUP), cell("s"), cell("b"), cell("e"), cell("c")],
    [
        text("a", "import os\n"),
        text("m", "# Title", "markdown"),
        text("s", "select", "sql"),
        text("b", "x = \ny"),
        text("e", ""),
        text("c", "print(x)"),
    ],
)


# ---- tests ----


async def test_what_is_advertised() -> None:
    for capabilities in (CAPABLE, {}):
        client = InProcessClient()
        client.connect(lambda settings: FakeEngine())
        await client.initialize(capabilities=capabilities)
        selector = [{"notebook": "*", "cells": [{"language": "*"}]}]
        wanted = {"notebookSelector": selector, "save": True} if capabilities else None
        assert client.capabilities.get("notebookDocumentSync") == wanted


async def test_the_code_cells_around_are_the_context(inside: InProcessClient) -> None:
    inside.send(THREE)
    assert await filled(inside, "b", 0, 4) == filling("import os\n\nx = ", "\ny\n\nprint(x)")
    assert await filled(inside, "c", 0, 0) == filling("import os\n\nx = \ny\n\n", "print(x)")
    assert await filled(inside, "s", 0, 6) == "select" + filling("select", "")
    assert await filled(inside, "a", 1, 0) == filling("import os\n", "\n\nx = \ny\n\nprint(x)")


async def test_typing_in_one_cell_shows_in_the_others(inside: InProcessClient) -> None:
    inside.send(THREE, typed("a", 2, insertion(1, 0, "import re")), saved())
    assert await filled(inside, "b", 0, 4) == filling(
        "import os\nimport re\n\nx = ", "\ny\n\nprint(x)"
    )


async def test_what_is_in_flight_ends_with_its_own_cell_only(inside: InProcessClient) -> None:
    texts = [text(name, slow(0.3) + "x = ") for name in "abc"]
    inside.send(opened([cell(name) for name in "abc"], texts))
    asked = {name: inside.ask(*completion(cell_uri(name), 1, 4, INVOKED)) for name in "abc"}
    inside.send(typed("a", 2, insertion(1, 4, "1")))
    assert await answered_at_once(asked["a"]) == []
    inside.send(spliced(1, 1, [], didClose=[{"uri": cell_uri("b")}]))
    assert await answered_at_once(asked["b"]) == []
    assert not asked["c"].done()
    assert await asked["c"] != []


async def test_a_cell_that_moves_keeps_its_text(inside: InProcessClient) -> None:
    inside.send(opened([cell("a"), cell("b")], [text("a", "one"), text("b", "x = ")]))
    assert await filled(inside, "b", 0, 4) == filling("one\n\nx = ", "")
    inside.send(spliced(0, 2, [cell("b"), cell("a")]))
    assert await filled(inside, "b", 0, 4) == filling("x = ", "\n\none")


async def test_a_cell_that_changes_its_language_or_kind(inside: InProcessClient) -> None:
    inside.send(opened([cell("a"), cell("b")], [text("a", "one"), text("b", "x = ")]))
    again = {"didClose": [{"uri": cell_uri("a")}], "didOpen": [text("a", "one", "sql")]}
    inside.send(spliced(0, 1, [cell("a")], **again))
    assert await filled(inside, "b", 0, 4) == filling("x = ", "")
    again["didOpen"] = [text("a", "one")]
    inside.send(spliced(0, 1, [cell("a")], **again))
    assert await filled(inside, "b", 0, 4) == filling("one\n\nx = ", "")
    inside.send(changed(data=[cell("a", MARKUP), cell("unknown")]))
    assert await filled(inside, "b", 0, 4) == filling("x = ", "")


async def test_settings_go_by_the_path_of_the_notebook() -> None:
    client = InProcessClient()
    client.connect(lambda settings: FakeEngine())
    await client.initialize(capabilities=CAPABLE, globs={"*.ipynb": {"enable": False}})
    client.send(THREE)
    assert await filled(client, "b", 0, 4) is None
    assert "turned off" in (await client.request("diffgemma/status"))["lastReason"]
    client.notify("workspace/didChangeConfiguration", {"settings": {"globs_off": ["book.*"]}})
    assert await filled(client, "b", 0, 4) is None


async def test_a_closed_notebook_is_forgotten(inside: InProcessClient) -> None:
    inside.send(THREE, closed("a", "b"))
    session = inside.server.session
    assert session.documents.notebooks.cells(BOOK) is None
    assert all(session.documents.get(cell_uri(name)) is None for name in "amsbec")
    inside.send(THREE)
    assert await filled(inside, "b", 0, 4) is not None


@pytest.mark.parametrize(
    "messages",
    [
        [changed(uri="file:///other.ipynb", data=[]), saved("file:///other.ipynb")],
        [closed("nobody", uri="file:///other.ipynb")],
        [THREE],
        [spliced(1_000, 2**31 - 1, [])],
        [changed(textContent=[{"document": {"uri": "u", "version": 1}, "changes": []}])],
        [changed(structure={"array": {"start": 6, "deleteCount": 0}, "didClose": [{"uri": "u"}]})],
        [{"method": "notebookDocument/didClose", "params": {"notebookDocument": 3}}],
        [{"method": "notebookDocument/didChange", "params": [1]}],
    ],
)
async def test_garbage_is_logged(
    inside: InProcessClient, messages: list[dict], caplog: pytest.LogCaptureFixture
) -> None:
    inside.send(THREE)
    caplog.set_level(logging.WARNING, "diffgemma_lsp")
    inside.send(*messages)
    assert caplog.records
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert await filled(inside, "b", 0, 4) == filling("import os\n\nx = ", "\ny\n\nprint(x)")


@pytest.mark.parametrize("change", [{}, {"cells": 3}, {"cells": {"textContent": [{}]}}])
async def test_a_notebook_that_is_out_of_step_gets_nothing(
    inside: InProcessClient, change: Any
) -> None:
    inside.send(THREE)
    params = {"notebookDocument": {"uri": BOOK, "version": 2}, "change": change}
    inside.send({"method": "notebookDocument/didChange", "params": params})
    assert bool(await filled(inside, "b", 0, 4)) == (change == {})
    inside.send(THREE)
    assert await filled(inside, "b", 0, 4) is not None


async def test_over_stdio(stdio_client: LspClient) -> None:
    await stdio_client.initialize(capabilities=CAPABLE)
    stdio_client.send(opened([cell("a"), cell("b")], [text("a", CANARY), text("b", "x = ")]))
    assert await filled(stdio_client, "b", 0, 4) == filling(f"{CANARY}\n\nx = ", "")
    stdio_client.send(spliced(9, 9, []), closed("a", "b", "c"))
    assert await filled(stdio_client, "b", 0, 4) is None


# ---- any changes of structure, against a plain list ----


@dataclass
class Book:
    """A notebook as the editor has it: names of cells, their kinds, languages and texts."""

    names: list[str] = field(default_factory=list)
    kinds: dict[str, int] = field(default_factory=dict)
    languages: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)

    def new(self, name: str, kind: int, language: str, content: str) -> None:
        self.kinds[name], self.languages[name] = kind, language
        self.texts[name], self.versions[name] = content, 1

    def cells(self, names: list[str]) -> list[dict]:
        return [cell(name, self.kinds[name]) for name in names]

    def items(self, names: list[str]) -> list[dict]:
        return [text(n, self.texts[n], self.languages[n], self.versions[n]) for n in names]

    def context(self, name: str) -> tuple[str, str]:
        """What stands before and after the end of a cell."""
        at = self.names.index(name)

        def seen(names: list[str]) -> list[str]:
            return [
                self.texts[n]
                for n in names
                if self.kinds[n] == CODE
                and self.languages[n] == self.languages[name]
                and self.texts[n]
            ]

        before, after = seen(self.names[:at]), seen(self.names[at + 1 :])
        return "\n\n".join([*before, self.texts[name]]), "".join(f"\n\n{t}" for t in after)


@dataclass(frozen=True)
class Step:
    kind: str
    start: float
    size: int
    new: list[tuple[int, str, str]]


contents = st.text("ab ", max_size=3).map(lambda s: f"{s}=" if s else "")
new_cells = st.lists(
    st.tuples(st.sampled_from([CODE, CODE, MARKUP]), st.sampled_from(["python", "sql"]), contents),
    max_size=3,
)
steps = st.lists(
    st.builds(
        Step,
        st.sampled_from(["splice", "splice", "move", "type", "language", "kind", "ran"]),
        st.floats(0, 1),
        st.integers(0, 3),
        new_cells,
    ),
    max_size=8,
)


def messages(book: Book, step: Step, fresh: itertools.count[int]) -> dict[str, Any] | None:
    """Does `step` to the book. What the client says about it."""
    at = round(step.start * len(book.names))
    chosen = book.names[at : at + step.size]
    match step.kind:
        case "splice":
            names = [str(next(fresh)) for _ in step.new]
            for name, new in zip(names, step.new, strict=True):
                book.new(name, *new)
            book.names[at : at + step.size] = names
            gone = [{"uri": cell_uri(name)} for name in chosen]
            opens = book.items(names)
            return spliced(at, len(chosen), book.cells(names), didOpen=opens, didClose=gone)
        case "move":
            moved = chosen[::-1]
            book.names[at : at + step.size] = moved
            return spliced(at, len(chosen), book.cells(moved))
        case "type" if chosen and step.new:
            name, content = chosen[0], step.new[0][2]
            size = len(book.texts[name])
            book.texts[name] += content
            book.versions[name] += 1
            return typed(name, book.versions[name], insertion(0, size, content))
        case "language" if chosen:
            name = chosen[0]
            book.languages[name] = "sql" if book.languages[name] == "python" else "python"
            gone = [{"uri": cell_uri(name)}]
            return spliced(at, 1, book.cells([name]), didOpen=book.items([name]), didClose=gone)
        case "kind" if chosen:
            book.kinds[chosen[0]] = MARKUP if book.kinds[chosen[0]] == CODE else CODE
            return changed(data=book.cells(chosen))
        case "ran":
            return changed(data=book.cells(chosen))
    return None


def test_any_changes_against_a_plain_list() -> None:
    fresh = itertools.count()
    with asyncio.Runner() as runner:
        client = InProcessClient()

        async def connect() -> None:
            client.connect(lambda settings: FakeEngine())
            await client.initialize(capabilities=CAPABLE, warm_up=False)

        async def check(first: list[tuple[int, str, str]], script: list[Step]) -> None:
            book = Book([str(next(fresh)) for _ in first])
            for name, new in zip(book.names, first, strict=True):
                book.new(name, *new)
            client.send(opened(book.cells(book.names), book.items(book.names)))
            for step in script:
                if (message := messages(book, step, fresh)) is not None:
                    client.send(message)
            session = client.server.session
            cells = session.documents.notebooks.cells(BOOK)
            assert cells == [(cell_uri(n), book.kinds[n] == CODE) for n in book.names]
            for name in book.names:
                document = session.documents.get(cell_uri(name))
                assert document is not None
                assert str(document.text) == book.texts[name]
                snapshot = snapshot_of(session.documents, document, document.text.end)
                assert (prefix_of(snapshot), suffix_of(snapshot)) == book.context(name)
            left = [n for n in book.texts if session.documents.get(cell_uri(n)) is not None]
            assert sorted(left) == sorted(book.names)
            client.send(closed(*book.names))

        @cases(300)
        @given(new_cells, steps)
        def play(first: list[tuple[int, str, str]], script: list[Step]) -> None:
            runner.run(check(first, script))

        runner.run(connect())
        play()
        assert client.shown == client.unexpected == []
