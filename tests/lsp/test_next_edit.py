"""textDocument/copilotInlineEdit over the protocol, with an engine that says what it is told to."""

from __future__ import annotations

from typing import Any

import pytest
from fake_engine import FakeEngine, slow
from in_process import InProcessClient
from lsp_client import did_change, did_close, did_open, insertion, position, span

from diffgemma_lsp.features.inline_edit import METHOD, UNHEARD
from diffgemma_lsp.features.refuse_next_edit import METHOD as REFUSE

URI = "file:///work/a.py"
TEXT = """\
def area(width, height):
    print(width)
    return width * height
"""
OPTIONS = {"automatic_budget_ms": 20_000, "look_ahead": False, "warm_up": False}


class Editor:
    """A document that is edited, and asked about."""

    def __init__(self, client: InProcessClient) -> None:
        self.client, self.version = client, 1

    async def begin(self, text: str = TEXT, language: str = "python", **options: Any) -> None:
        await self.client.initialize(["utf-8"], **{**OPTIONS, **options})
        self.client.send(did_open(URI, text, language=language))

    def change(self, *changes: dict[str, Any]) -> None:
        self.version += 1
        self.client.send(did_change(URI, self.version, *changes))

    def rename(self, new: str = "w", old: str = "width") -> None:
        """The parameter, by its keys."""
        self.change({"range": span(0, 9, 0, 9 + len(old)), "text": ""})
        for number, key in enumerate(new):
            self.change(insertion(0, 9 + number, key))

    def asking(self, line: int = 0, version: int | None = None) -> tuple[str, dict[str, Any]]:
        return METHOD, {
            "textDocument": {"uri": URI, "version": version or self.version},
            "position": position(line, 10),
            "context": {"triggerKind": 2},
        }

    async def offered(self, line: int = 0, version: int | None = None) -> list[Any]:
        result = await self.client.request(*self.asking(line, version))
        assert set(result) == {"edits"}
        return result["edits"]

    async def accept(self, edits: list[Any]) -> None:
        (edit,) = edits
        assert edit["textDocument"] == {"uri": URI, "version": self.version}
        self.change({"range": edit["range"], "text": edit["text"]})

    async def reason(self) -> str | None:
        state = await self.client.request("diffgemma/status", {"textDocument": {"uri": URI}})
        return state["document"]["reasons"].get(METHOD)


@pytest.fixture
def editor(client: InProcessClient) -> Editor:
    return Editor(client)


async def test_one_place_after_the_other_is_offered_and_then_none(
    editor: Editor, engine: FakeEngine
) -> None:
    await editor.begin()
    assert await editor.offered() == []
    editor.rename()
    edits = await editor.offered()
    assert edits == [
        {
            "text": "    print(w)",
            "range": span(1, 0, 1, len("    print(width)")),
            "textDocument": {"uri": URI, "version": editor.version},
        }
    ]
    assert await editor.offered() == edits, "asked again it is the same"
    assert engine.runs == 1, "which is known by then"
    await editor.accept(edits)
    edits = await editor.offered(1)
    assert edits[0]["text"] == "    return w * height"
    await editor.accept(edits)
    assert await editor.offered(2) == []
    assert await editor.reason() == "nothing has to follow the last edits"
    state = await editor.client.request("diffgemma/status", None)
    assert state["suggestions"] == {"shown": 0, "accepted": 0, "characters": 0}


async def test_what_the_model_sees_is_the_line_as_it_is_and_as_it_would_be(
    editor: Editor, engine: FakeEngine
) -> None:
    await editor.begin()
    editor.rename()
    await editor.offered()
    (request,) = engine.requests
    assert request.choices == ("    print(width)", "    print(w)")
    before, _, after = request.template
    assert before.text == "def area(w, height):\n"
    assert after.text == "\n    return width * height\n"
    assert 0 < (request.budget_s or 0) <= OPTIONS["automatic_budget_ms"] / 1000


async def test_an_edit_that_is_out_of_sight_is_shown_in_front(
    editor: Editor, engine: FakeEngine
) -> None:
    await editor.begin(TEXT.replace("    print(width)\n", "    pass\n" * 60))
    editor.rename()
    (edit,) = await editor.offered()
    assert edit["text"] == "    return w * height"
    (request,) = engine.requests
    assert request.template[0].text == "def area(w, height):\n\n" + "    pass\n" * 12


@pytest.mark.parametrize("gains", [-30.0, -8.5])
async def test_what_the_model_finds_absurd_is_not_offered(
    editor: Editor, engine: FakeEngine, gains: float
) -> None:
    await editor.begin(f'# fake: {{"gains": {gains}}}\n' + TEXT)
    editor.change({"range": span(1, 9, 1, 14), "text": "w"})
    assert await editor.offered() == []
    assert engine.runs == 2, "both places were weighed"
    assert await editor.offered() == []
    assert engine.runs == 2


async def test_what_was_undone_is_not_offered_again(editor: Editor) -> None:
    await editor.begin()
    editor.rename()
    first = await editor.offered()
    await editor.accept(first)
    editor.change({"range": span(1, 0, 1, len("    print(w)")), "text": "    print(width)"})
    edits = await editor.offered()
    assert [edit["range"]["start"]["line"] for edit in edits] == [2]
    editor.rename("width", "w")
    assert await editor.offered() == [], "no edit is left"


async def test_what_was_undone_is_offered_again_after_a_new_change(editor: Editor) -> None:
    await editor.begin()
    editor.rename()
    await editor.accept(await editor.offered())
    editor.change({"range": span(1, 0, 1, len("    print(w)")), "text": "    print(width)"})
    editor.rename("side", "w")
    edits = await editor.offered()
    assert [edit["text"] for edit in edits] == ["    print(side)"]
    await editor.accept(edits)
    editor.change({"range": span(1, 10, 1, 14), "text": "width"})
    editor.change(insertion(1, 10, "1, "))
    assert [edit["text"] for edit in await editor.offered()] == ["    print(1, side)"]


async def test_after_a_refusal_the_next_place_is_offered(editor: Editor) -> None:
    await editor.begin()
    editor.rename()
    (edit,) = await editor.offered()
    for wrong in (None, {}, {**edit, "text": 7}, {**edit, "range": 3}, {**edit, "text": "other"}):
        editor.client.notify(REFUSE, wrong)
    past = {**edit, "textDocument": {"uri": URI, "version": editor.version - 1}}
    editor.client.notify(REFUSE, past)
    assert await editor.offered() == [edit]
    editor.client.notify(REFUSE, edit)
    (other,) = await editor.offered()
    assert other["text"] == "    return w * height"
    await editor.accept([other])
    assert await editor.offered(2) == []
    editor.rename("side", "w")
    for text in ("    return side * height", "    print(side)"):
        edits = await editor.offered()
        assert [edit["text"] for edit in edits] == [text]
        await editor.accept(edits)
    assert await editor.offered() == []


async def test_its_reason_is_none_of_a_suggestion(editor: Editor) -> None:
    await editor.begin()
    assert await editor.offered() == []
    assert await editor.reason() == "nothing was changed lately"
    state = await editor.client.request("diffgemma/status", {"textDocument": {"uri": URI}})
    assert state["lastReason"] is None
    assert list(state["document"]["reasons"]) == [METHOD]


async def test_a_line_that_would_not_parse_is_not_offered(
    editor: Editor, engine: FakeEngine
) -> None:
    await editor.begin("a = get(x, y)\nb = get(z, y)\n")
    editor.change({"range": span(0, 11, 0, 12), "text": "*, y"})
    assert await editor.offered() == []
    assert engine.runs == 0


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"enable": False}, "enable"),
        ({"next_edits": False}, "next_edits"),
        ({"languages_off": ["python"]}, "languages_off"),
        ({"globs_off": ["work/**"]}, "globs_off"),
        ({"languages": {"python": {"next_edits": False}}}, "next_edits"),
    ],
)
async def test_nothing_where_it_is_turned_off(
    editor: Editor, engine: FakeEngine, options: dict[str, Any], reason: str
) -> None:
    await editor.begin(**options)
    editor.rename()
    assert await editor.offered() == []
    assert reason in (await editor.reason() or "")
    assert engine.runs == 0


async def test_nothing_for_another_version_or_a_document_that_is_not_open(editor: Editor) -> None:
    await editor.begin()
    editor.rename()
    assert await editor.offered(version=editor.version - 1) == []
    assert len(await editor.offered()) == 1
    editor.client.send(did_close(URI))
    assert await editor.offered() == []
    editor.client.send(did_open(URI, TEXT, version=1))
    editor.version = 1
    assert await editor.offered() == [], "what was changed before is forgotten"


@pytest.mark.parametrize("params", [None, {}, [], {"textDocument": 7}, {"position": "x"}])
async def test_parameters_that_are_none_get_no_edit(editor: Editor, params: Any) -> None:
    await editor.begin()
    assert await editor.client.request(METHOD, params) == {"edits": []}


async def test_it_gives_way_to_a_suggestion_and_ends_with_a_change(
    editor: Editor, engine: FakeEngine
) -> None:
    await editor.begin(slow() + TEXT)
    editor.change({"range": span(1, 9, 1, 14), "text": "w"})
    waiting = editor.client.ask(*editor.asking())
    suggestion = editor.client.ask(
        "textDocument/inlineCompletion",
        {
            "textDocument": {"uri": URI},
            "position": position(1, 10),
            "context": {"triggerKind": 1},
        },
    )
    assert await waiting == {"edits": []}
    assert await editor.reason() == "a newer request took its place"
    waiting = editor.client.ask(*editor.asking())
    editor.change(insertion(0, 0, "#"))
    assert await waiting == {"edits": []}
    assert await suggestion == []


async def test_it_has_a_deadline(editor: Editor) -> None:
    await editor.begin(slow(deaf=True) + TEXT, automatic_budget_ms=200)
    editor.change({"range": span(1, 9, 1, 14), "text": "w"})
    assert await editor.offered() == []
    assert "in time" in (await editor.reason() or "")


async def test_windows_lines_and_characters_of_two_units(editor: Editor) -> None:
    text = TEXT.replace("\n", "\r\n").replace("print(width)", 'print("🙂", width)')
    await editor.begin(text)
    editor.rename()
    (edit,) = await editor.offered()
    assert edit["text"] == '    print("🙂", w)'
    assert edit["range"] == span(1, 0, 1, len('    print("🙂", width)'.encode()))


async def test_it_is_told_of_and_its_clients_notifications_are_known(editor: Editor) -> None:
    await editor.begin()
    told = editor.client.capabilities["experimental"]
    assert told == {"diffgemma": {"nextEdits": METHOD}}
    for method in UNHEARD:
        editor.client.notify(method, {"textDocument": {"uri": URI}})
    assert await editor.offered() == []
    assert not any("refused" in line for line in editor.client.logged)
