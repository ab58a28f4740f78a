"""When a suggestion is made, found again, or left alone. In process."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from acting import asking
from fake_engine import FakeEngine, slow
from in_process import InProcessClient
from lsp_client import (
    INVOKED,
    answered_at_once,
    completion,
    did_change,
    did_close,
    did_open,
    insertion,
    position,
    span,
    until,
)
from lsprotocol import types
from suggesting import PLAN, URI, landed, texts

from diffgemma_lsp.lsp.positions import apply_change
from diffgemma_lsp.text.documents import MOST_S, Document, Pace, Trace
from diffgemma_lsp.text.text import Text
from engine.types import Fixed, Frame, Hole, Infill, InfillRequest


async def test_what_is_typed_through_needs_no_run(
    client: InProcessClient, engine: FakeEngine
) -> None:
    await client.initialize(look_ahead=False)
    client.send(did_open(URI, PLAN + "x = \n"))
    assert await texts(client, 1, 4) == ["foo(bar)"]
    for version, char in enumerate("foo(bar", start=2):
        client.send(did_change(URI, version, insertion(1, version + 2, char)))
        (item,) = await client.request(*completion(URI, 1, version + 3))
        lead = item["range"]["start"]["character"]
        assert ("x = foo(bar)")[lead:] == item["insertText"]
    assert engine.runs == 1
    client.send(did_change(URI, 20, insertion(1, 11, "]")))
    await texts(client, 1, 12)
    assert engine.runs == 2


async def test_after_a_deletion_only_what_is_known_comes_back(
    client: InProcessClient, engine: FakeEngine
) -> None:
    await client.initialize(look_ahead=False)
    client.send(did_open(URI, PLAN + "x = \n"))
    await texts(client, 1, 4)
    client.send(did_change(URI, 2, insertion(1, 4, "f")))
    back = {"range": {"start": position(1, 4), "end": position(1, 5)}, "text": ""}
    client.send(did_change(URI, 3, back))
    assert await texts(client, 1, 4) == ["foo(bar)"]
    gone = {"range": {"start": position(1, 3), "end": position(1, 4)}, "text": ""}
    client.send(did_change(URI, 4, gone))
    assert await texts(client, 1, 3) == []
    assert "deleted" in (await client.request("diffgemma/status"))["lastReason"]
    assert engine.runs == 1
    assert await texts(client, 1, 3, INVOKED) != []
    # The cursor somewhere else has nothing to do with it.
    assert await texts(client, 2, 0) != []


class Various(FakeEngine):
    """Answers by the request's seed."""

    ANSWERS = (("one", 0.4), ("two", 0.5), ("three", 0.8))

    async def stream(self, request: InfillRequest) -> AsyncGenerator[Frame | Infill]:
        self.runs += 1
        self.requests.append(request)
        text, confidence = self.ANSWERS[request.seed % 3]
        yield Infill(text, (text,), 8, 9, "settled", confidence, {})


async def test_several_candidates_when_asked_the_models_own_first_then_the_surest() -> None:
    engine = Various()
    client = InProcessClient()
    client.connect(lambda settings: engine)
    await client.initialize(look_ahead=False, min_confidence=0.35)
    client.send(did_open(URI, "x = \n"))
    assert await texts(client, 0, 4) == ["one"]
    assert await texts(client, 0, 4, INVOKED) == ["one", "three", "two"]
    assert [request.seed for request in engine.requests] == [0, 0, 1, 2]
    assert engine.requests[1].params != engine.requests[2].params == engine.requests[3].params
    client.send(did_change(URI, 2, insertion(0, 4, "t")))
    assert await texts(client, 0, 5) == ["three"], "one, since nobody asked"


OTHERS = '# fake: {"text": "= 3", "others": [["foo", 0.6], ["bar(1)", 0.3], ["= 4", 0.2]]}\n'


async def test_what_else_was_considered_stands_in_and_is_shown_to_who_asks(
    client: InProcessClient, engine: FakeEngine
) -> None:
    await client.initialize(look_ahead=False, candidates=2)
    client.send(did_open(URI, OTHERS + "x = \n"))
    assert await texts(client, 1, 4) == ["foo"], "the best one breaks the syntax"
    await landed(client)  # the others are looked at behind the answer
    assert await texts(client, 1, 4, INVOKED) == ["foo", "bar(1)"]
    assert engine.runs == 1
    client.send(did_change(URI, 2, insertion(1, 4, "b")))
    assert await texts(client, 1, 5) == ["bar(1)"]
    assert engine.runs == 1


EMPTY = '# fake: {"text": "", "others": [["foo", 0.4], ["bar(1)", 0.3]]}\n'


async def test_where_nothing_is_the_best_answer_nothing_comes_by_itself(
    client: InProcessClient, engine: FakeEngine
) -> None:
    await client.initialize(look_ahead=False, candidates=2)
    client.send(did_open(URI, EMPTY + "x = \n"))
    assert await texts(client, 1, 4) == []
    assert await texts(client, 1, 4, INVOKED) == ["foo", "bar(1)"], "who asks wants to see some"


@pytest.mark.parametrize("stop", ["deadline", "max_tokens", "settled"])
async def test_no_word_is_shown_in_part(
    client: InProcessClient, engine: FakeEngine, stop: str
) -> None:
    await client.initialize(look_ahead=False)
    # The word must not stand in the document, where it would be a whole one.
    plan = f'# fake: {{"text": "1 + wo\\u0072", "stop": "{stop}"}}\n'
    client.send(did_open(URI, plan + "x = \n"))
    assert await texts(client, 1, 4) == ["1 + wor" if stop == "settled" else "1"]


async def test_what_else_was_considered_must_be_sure_enough_too(
    client: InProcessClient, engine: FakeEngine
) -> None:
    await client.initialize(look_ahead=False, min_confidence=0.5, candidates=2)
    client.send(did_open(URI, OTHERS + "x = \n"))
    assert await texts(client, 1, 4, INVOKED) == ["foo"]
    assert engine.runs == 1, "further ones would have a confidence that means something else"


async def test_where_it_was_not_measured_how_sure_the_model_is_who_asks_is_shown_it(
    client: InProcessClient, engine: FakeEngine
) -> None:
    await client.initialize(look_ahead=False, min_confidence=0.1)
    client.send(did_open(URI, '# fake: {"text": "foo", "confidence": null}\nx = \n'))
    assert await texts(client, 1, 4) == []
    assert await texts(client, 1, 4, INVOKED) == ["foo"]
    assert await texts(client, 1, 4) == [], "what is kept is still nothing that nobody asked for"


async def test_the_next_one_is_thought_of_while_one_is_shown(
    client: InProcessClient, engine: FakeEngine
) -> None:
    await client.initialize()
    client.send(did_open(URI, '# fake: {"text": " + y"}\nx = y\n'))
    assert await texts(client, 1, 5) == ["y + y"]
    await landed(client)
    client.send(did_change(URI, 2, insertion(1, 5, " + y")))
    runs = engine.runs
    assert await texts(client, 1, 9) == ["y + y"]
    assert runs == 2


async def turns() -> None:
    """Returns when all has been begun that can be at once."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_nothing_is_thought_of_while_somebody_waits(
    client: InProcessClient, engine: FakeEngine
) -> None:
    await client.initialize(automatic_budget_ms=60_000)
    other = "file:///work/other.py"
    client.send(did_open(other, slow(60, text="late") + "x = \n"))
    client.send(did_open(URI, '# fake: {"text": " + y"}\nx = y\n'))
    waiting = client.ask(*completion(other, 1, 4, INVOKED))
    await until(lambda: engine.runs == 1)
    assert await texts(client, 1, 5) == ["y + y"]
    await turns()
    assert engine.runs == 2
    client.send(did_close(other))
    assert await answered_at_once(waiting) == []


async def test_the_next_key_is_waited_for_before_the_engine_hears_of_anything(
    client: InProcessClient, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.initialize(automatic_budget_ms=60_000, look_ahead=False)
    client.send(did_open(URI, PLAN + "x = \n"))
    await texts(client, 1, 2, INVOKED)  # there is an engine
    runs = engine.runs
    monkeypatch.setattr(Pace, "wait_s", lambda self, now: 60.0)
    answer = client.ask(*completion(URI, 1, 4))
    await turns()
    client.send(did_change(URI, 2, insertion(1, 4, "y")))
    assert await answered_at_once(answer) == []
    assert engine.runs == runs


async def test_what_nobody_waits_for_gives_way(client: InProcessClient, engine: FakeEngine) -> None:
    await client.initialize()
    client.send(did_open(URI, slow(0.3, text="foo") + "x = \ny = \n"))
    assert await texts(client, 1, 4, INVOKED) == ["foo"]
    pending = client.server.session.requests._pending
    await until(lambda: [one.kind for one in pending] == ["ahead"])
    answer = client.ask(*completion(URI, 2, 4, INVOKED))
    assert [item["insertText"] for item in await answered_at_once(answer)] == ["foo"]
    assert engine.cancelled >= 1


async def moved_to(client: InProcessClient, line: int, character: int) -> None:
    """Tells the server of a cursor as VS Code does."""
    method, params = asking(span(line, character, line, character), triggerKind=2)
    assert await client.request(method, params) == []


async def test_what_is_in_front_of_a_cursor_is_read_when_it_moves_there(
    client: InProcessClient, engine: FakeEngine
) -> None:
    await client.initialize()
    client.send(did_open(URI, PLAN + "x = \ny = \n"))
    await landed(client)  # the model is loaded
    await moved_to(client, 2, 4)
    await landed(client)
    (read,) = engine.requests
    fixed, hole, _ = read.template
    assert fixed == Fixed(PLAN + "x = \ny = ")
    assert isinstance(hole, Hole)
    assert (hole.max_tokens, read.params.max_steps, read.params.rerank) == (1, 1, False)
    assert await texts(client, 2, 4) == ["foo(bar)"], "nothing of it is shown"


async def test_reading_ahead_gives_way(client: InProcessClient, engine: FakeEngine) -> None:
    await client.initialize()
    client.send(did_open(URI, slow(0.5, text="foo") + "x = \ny = \n"))
    await landed(client)
    answer = client.ask(*completion(URI, 2, 4, INVOKED))
    await until(lambda: engine.runs == 1)
    await moved_to(client, 1, 4)
    await asyncio.sleep(0.05)
    assert engine.runs == 1, "while there is something else to do nothing is read"
    assert [item["insertText"] for item in await answer] == ["foo"]
    await landed(client)
    runs = engine.runs
    await moved_to(client, 1, 4)
    await until(lambda: engine.runs == runs + 1)
    answer = client.ask(*completion(URI, 1, 4, INVOKED))
    assert [item["insertText"] for item in await answered_at_once(answer)] == ["foo"]
    assert engine.cancelled >= 1


@pytest.mark.parametrize(
    ("marked", "text"),
    [
        ("pri|nt\n", "print"),  # in a word
        ("foo(a|bc)\n", "x, "),
        ("x = | # why\n", "1"),
        ("|x = 1\n", "y = 2\n"),
        # Behind what is complete.
        ("x = foo(bar)|\n", " + 1"),
        ("x = [1, 2]|\n", ".copy()"),
        ("x = 'a'|\n", " 'b'"),
        ('def f():\n    """Doc."""|\n', " + 1"),
        ("def f():\n    pass|\n", "word"),
        ("x = foo(\n    bar,\n)|\n", ".y"),
        ("def f(x) -> int: ...|\n", " | None"),
        ("class A: pass|\n", "word"),
    ],
)
async def test_where_nothing_comes_by_itself(
    client: InProcessClient, engine: FakeEngine, marked: str, text: str
) -> None:
    await client.initialize(look_ahead=False)
    engine.texts = (text,)
    before, _, after = marked.partition("|")
    client.send(did_open(URI, before + after))
    where = before.count("\n"), len(before.rpartition("\n")[2])
    assert await texts(client, *where) == []
    assert engine.runs == 0
    await client.request(*completion(URI, *where, INVOKED))
    assert engine.runs > 0, "who asks is answered"


@pytest.mark.parametrize(
    ("marked", "text"),
    [
        ("x = foo(|)\n", "bar"),
        ("x = foo(bar|\n", ", y)"),
        ("x = foo(bar(a)|)\n", ".y"),
        ("x = 'a|'\n", "bc"),
        ("x = foo(bar) |\n", "+ 1"),
        ("if foo(a)|\n", ":"),
        ("def f(a)|\n", " -> int:"),
        ("# so (far)|\n", " so good"),
        ("x = y|\n", ".z"),
        ("def f():|\n", "\n    return 1"),
    ],
)
async def test_where_something_comes_by_itself(
    client: InProcessClient, engine: FakeEngine, marked: str, text: str
) -> None:
    await client.initialize(look_ahead=False)
    engine.texts = (text,)
    before, _, after = marked.partition("|")
    client.send(did_open(URI, before + after))
    where = before.count("\n"), len(before.rpartition("\n")[2])
    assert len(await texts(client, *where)) == 1


async def test_a_suggestion_is_typed_through_where_its_line_is_complete(
    client: InProcessClient, engine: FakeEngine
) -> None:
    await client.initialize(look_ahead=False)
    engine.texts = ("f(a)\ny = 2",)
    client.send(did_open(URI, "x = \n"))
    assert await texts(client, 0, 4) == ["f(a)\ny = 2"]
    client.send(did_change(URI, 2, insertion(0, 4, "f(a)")))
    assert await texts(client, 0, 8) == ["\ny = 2"]


@pytest.mark.parametrize(
    ("settings", "languages"),
    [
        ({"look_ahead": False}, None),
        ({"enable": False}, None),
        ({"warm_up": False}, None),
        ({}, ("c",)),
    ],
)
async def test_where_nothing_is_read_ahead(
    client: InProcessClient,
    engine: FakeEngine,
    settings: dict[str, Any],
    languages: tuple[str, ...] | None,
) -> None:
    engine.languages = languages
    await client.initialize(**settings)
    client.send(did_open(URI, PLAN + "x = \n"))
    await landed(client)
    await moved_to(client, 1, 4)
    await landed(client)
    assert engine.runs == 0


async def test_only_who_asks_is_shown_what_the_model_has_not_learned(
    client: InProcessClient, engine: FakeEngine
) -> None:
    engine.languages = ("python", "c")
    await client.initialize(warm_up=False)
    client.send(did_open(URI, PLAN + "x = \n", language="markdown"))
    assert await texts(client, 1, 4) == [], "though nobody knew before the first run"
    assert await texts(client, 1, 4) == []
    assert engine.runs == 1
    request = {"textDocument": {"uri": URI}, "position": position(1, 4)}
    assert (await client.request("textDocument/completion", request))["items"] == []
    state = await client.request("diffgemma/status", {"textDocument": {"uri": URI}})
    said = "fake knows only python, c, so it suggests elsewhere only when you ask"
    assert state["document"]["reasons"]["textDocument/inlineCompletion"] == said
    assert (state["document"]["off"], state["message"]) == (None, f"ready; {said}")
    python = URI.replace("a.py", "b.py")
    client.send(did_open(python, "x = 1\n", language="python"))
    state = await client.request("diffgemma/status", {"textDocument": {"uri": python}})
    assert state["message"] == "ready", "what does not concern it is not said"
    assert client.shown == []
    assert await texts(client, 1, 4, INVOKED) == ["foo(bar)"]
    client.send(did_change(URI, 2, insertion(1, 4, "f")))
    assert await texts(client, 1, 5) == ["foo(bar)"], "what was asked for can be typed through"
    assert not client.server.session.requests._pending, "nor is anything thought of ahead"


@pytest.mark.parametrize("languages", [None, ("python",), ()])
async def test_a_language_that_the_model_has_learned(
    client: InProcessClient, engine: FakeEngine, languages: tuple[str, ...] | None
) -> None:
    engine.languages = languages
    await client.initialize(automatic_budget_ms=5_000)
    client.send(did_open(URI, PLAN + "x = \n"))
    wanted = [] if languages == () else ["foo(bar)"]
    assert await texts(client, 1, 4) == wanted
    assert await texts(client, 1, 4, INVOKED) == ["foo(bar)"]


async def test_a_document_in_another_language_begins_anew(
    client: InProcessClient, engine: FakeEngine
) -> None:
    engine.languages = ("python",)
    await client.initialize(look_ahead=False)
    client.send(did_open(URI, PLAN + "x = \n", language="markdown"))
    assert await texts(client, 1, 4, INVOKED) == ["foo(bar)"]
    assert await texts(client, 1, 4) == [], "asked for once, it does not come by itself"
    client.send(did_close(URI), did_open(URI, PLAN + "x = \n"))
    runs = engine.runs
    assert await texts(client, 1, 4) == ["foo(bar)"]
    assert engine.runs == runs + 1, "what was suggested for markdown is none of Python's business"
    client.send(did_close(URI), did_open(URI, PLAN + "x = \n", language="c"))
    assert await texts(client, 1, 4) == []


LINES = '# fake: {"text": "1\\ny = 2\\nz = 3"}\n'


@pytest.mark.parametrize(
    ("setting", "expected", "runs"),
    [
        ({"maxLines": 2}, ["1\ny = 2"], 1),
        ({"maxTokens": 7}, ["1\ny = 2\nz = 3"], 1),
        ({"seed": 7}, ["1\ny = 2\nz = 3"], 1),
        ({"enable": False}, [], 0),
        ({"minConfidence": 0.95}, [], 1),
        ({"candidates": 2}, ["1\ny = 2\nz = 3"], 0),
    ],
)
async def test_settings_that_change_hold_for_what_is_kept(
    client: InProcessClient, engine: FakeEngine, setting: Any, expected: list[str], runs: int
) -> None:
    await client.initialize(look_ahead=False)
    client.send(did_open(URI, LINES + "x = \n"))
    assert await texts(client, 1, 4) == ["1\ny = 2\nz = 3"]
    before = engine.runs
    client.notify("workspace/didChangeConfiguration", {"settings": {"diffgemma": setting}})
    assert await texts(client, 1, 4) == expected
    assert engine.runs == before + runs


async def test_what_was_asked_for_keeps_to_the_limits_when_it_comes_by_itself(
    client: InProcessClient, engine: FakeEngine
) -> None:
    await client.initialize(look_ahead=False, max_lines=1)
    client.send(did_open(URI, LINES.replace("1", "10") + "x = \n"))
    assert await texts(client, 1, 4, INVOKED) == ["10\ny = 2\nz = 3"]
    client.send(did_change(URI, 2, insertion(1, 4, "1")))
    assert await texts(client, 1, 5) == ["10"]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
async def test_a_line_end_is_typed_through_too(
    client: InProcessClient, engine: FakeEngine, newline: str
) -> None:
    engine.texts = ("one = 1\ntwo = 2\nthree = 3",)
    await client.initialize(look_ahead=False)
    above, below = "a = 1\n" * 60, "\n" + "b = 2\n" * 60
    client.send(did_open(URI, (above + below).replace("\n", newline)))
    (whole,) = await texts(client, 60, 0)
    assert whole == engine.texts[0].replace("\n", newline)
    line = column = 0
    for version, piece in enumerate(re.findall(r"\r\n|.|\n", whole)[:-1], start=2):
        client.send(did_change(URI, version, insertion(60 + line, column, piece)))
        line, column = (line, column + 1) if piece.strip("\r\n") else (line + 1, 0)
        (item,) = await client.request(*completion(URI, 60 + line, column))
        assert whole.endswith(item["insertText"])
    assert engine.runs == 1


def test_who_types_fast_is_waited_for() -> None:
    pace = Pace()
    now = 100.0
    assert pace.wait_s(now) == 0.0
    for _ in range(20):
        now += 0.1
        pace.key(now)
    assert 0.1 < pace.wait_s(now) <= MOST_S
    assert pace.wait_s(now + MOST_S) == 0.0
    for _ in range(20):
        now += 0.5
        pace.key(now)
    assert pace.wait_s(now) == 0.0


@pytest.mark.parametrize(
    ("changes", "offset", "word"),
    [
        ([], 0, None),
        ([(0, 0, "abc")], 3, None),
        ([(0, 3, "")], 0, "deleted"),
        ([(0, 3, "")], 2, None),
        ([(0, 3, "xy")], 2, "deleted"),
        ([(0, 3, ""), (0, 0, "old")], 3, "undone"),
        ([(0, 3, ""), (0, 0, "new")], 3, None),
        ([(0, 1, ""), (0, 0, "o")], 1, None),
    ],
)
def test_what_was_done_last(
    changes: list[tuple[int, int, str]], offset: int, word: str | None
) -> None:
    document = Document(URI, "python", 1, Text.of("old text"))
    for start, end, new in changes:
        where = types.Range(types.Position(0, start), types.Position(0, end))
        event = types.TextDocumentContentChangePartial(where, new)
        document.text, change = apply_change(document.text, event, "utf-16")
        document.changes.append(Trace.of(change))
    reason = document.not_writing(offset)
    assert (reason is None) == (word is None)
    assert word is None or word in (reason or "")
