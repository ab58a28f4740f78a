"""Commands: the same as actions, with arguments and a result that says more. In process."""

from __future__ import annotations

from typing import Any

import pytest
from acting import CODE, FRAMES, RESOLVES, URI, after, execute, order
from fake_engine import FakeEngine, slow
from in_process import InProcessClient
from lsp_client import did_change, did_open, insertion, span, until

from diffgemma_lsp.actions.frames import Throttled
from engine.types import Frame


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


FUNCTION = "def f(a):\n    ...\n"


@pytest.mark.parametrize(
    ("name", "text", "where", "answer"),
    [
        ("rewrite", "x = a + b\n", span(0, 4, 0, 9), "(a"),
        ("rewrite", "x = 1\ny = 2\n", span(1, 0, 1, 5), " \n"),
        ("fill", "x = 1\n\n", span(1, 0, 1, 0), "if x:"),
        ("holes", "x = ...\n", span(0, 0, 1, 0), "= 1"),
        ("body", FUNCTION, span(0, 4, 0, 5), "return (1"),
        ("docstring", FUNCTION, span(0, 4, 0, 5), "C:\\N"),
        ("rewrite", "f(a, b)\n", span(0, 2, 0, 6), "a=1, b"),
        ("hints", FUNCTION, span(0, 4, 0, 5), "print("),
    ],
)
async def test_what_does_not_fit_changes_nothing(
    client: InProcessClient,
    engine: FakeEngine,
    name: str,
    text: str,
    where: dict[str, Any],
    answer: str,
) -> None:
    await client.initialize(capabilities=RESOLVES)
    client.send(did_open(URI, text))
    engine.texts = (answer,) * (2 if name == "hints" else 1)
    result = await execute(client, name, order(range=where))
    assert (result["applied"], result["edit"]) == (False, None)
    no_text = name == "hints" or not answer.strip()
    assert ("does not fit" if no_text else "break the syntax") in result["message"]
    assert [one["message"] for one in client.shown] == [f"diffgemma-lsp: {result['message']}"]
    assert [request.seed for request in engine.requests] == [0, 1], "the same again"


async def test_a_selection_goes_only_if_that_was_said(
    client: InProcessClient, engine: FakeEngine
) -> None:
    engine.can = ("fill", "instruct")
    await client.initialize(capabilities=RESOLVES)
    text = "x = 1\nprint(x)\n"
    client.send(did_open(URI, text))
    engine.texts = ("",)
    where = span(1, 0, 1, 8)
    told = order(range=where, instruction="without the print", apply=False)
    result = await execute(client, "rewrite", told)  # though nobody knew what the model can do
    assert after(text, result["edit"]) == "x = 1\n\n"
    result = await execute(client, "rewrite", order(range=where, apply=False))
    assert result["edit"] is None


async def test_another_seed_may_fit(client: InProcessClient, engine: FakeEngine) -> None:
    await client.initialize(capabilities=RESOLVES)
    text = '# fake: {"by_seed": ["(a", "b)", "c", "d"]}\nx = 1\n'
    client.send(did_open(URI, text))
    result = await execute(client, "rewrite", order(range=span(1, 4, 1, 5), apply=False))
    assert after(text, result["edit"]) == text.replace("x = 1", "x = c")
    assert (result["message"], result["seed"], result["fillings"]) == (None, 2, ["c"])
    assert client.shown == []
    again = await execute(client, "rewrite", order(range=span(1, 4, 1, 5), seed=2, apply=False))
    assert again == result


async def test_no_other_seed_without_the_time_for_it(
    client: InProcessClient, engine: FakeEngine
) -> None:
    await client.initialize(capabilities=RESOLVES, action_budget_ms=2_000)
    client.send(did_open(URI, slow(frame="(", deaf=True) + "x = 1\n"))
    result = await execute(client, "rewrite", order(range=span(1, 4, 1, 5)))
    assert "nothing changed" in result["message"]
    assert engine.runs == 1


async def test_the_first_lines_are_kept_of_what_is_new(
    client: InProcessClient, engine: FakeEngine
) -> None:
    await client.initialize(capabilities=RESOLVES)
    client.send(did_open(URI, FUNCTION))
    engine.texts = ("b = a\n\n    return (b",)
    result = await execute(client, "body", order(range=span(0, 4, 0, 5), apply=False))
    assert after(FUNCTION, result["edit"]) == FUNCTION.replace("...", "b = a")
    assert result["fillings"] == ["b = a"]


async def test_holes_that_nothing_fits_stay(client: InProcessClient, engine: FakeEngine) -> None:
    await client.initialize(capabilities=RESOLVES)
    text = "x = ...\ny = ...\nz = f(...)\n"
    client.send(did_open(URI, text))
    engine.texts = ("1", "= 2", "3")
    result = await execute(client, "holes", order(range=span(0, 0, 3, 0), apply=False))
    assert after(text, result["edit"]) == "x = 1\ny = ...\nz = f(3)\n"
    assert (result["message"], result["fillings"]) == (None, ["1", None, "3"])
    assert "1 of 3 places left: " in client.shown[0]["message"]
    assert len(client.shown) == engine.runs == 1


async def test_it_is_told_what_is_left_and_why(client: InProcessClient, engine: FakeEngine) -> None:
    await client.initialize(capabilities=RESOLVES)
    text = "x = ...\n# TODO: print it\ny = ...\nz = ...\n"
    client.send(did_open(URI, text))
    engine.texts = ("1", "", "= 2", "...")
    result = await execute(client, "holes", order(range=span(0, 0, 4, 0), apply=False))
    assert after(text, result["edit"]) == text.replace("x = ...", "x = 1")
    assert result["fillings"] == ["1", None, None, None]
    assert client.shown[0]["message"].endswith(
        "3 of 4 places left: what came would break the syntax (1); nothing came that fits (2)"
    )


async def test_it_is_told_what_the_time_was_too_short_for(
    client: InProcessClient, engine: FakeEngine
) -> None:
    await client.initialize(capabilities=RESOLVES)
    text = '# fake: {"stop": "deadline"}\nx = ...\n# TODO: print it\n'
    client.send(did_open(URI, text))
    engine.texts = ("1", "")
    result = await execute(client, "holes", order(range=span(0, 0, 3, 0), apply=False))
    assert (result["fillings"], result["finished"]) == (["1", None], False)
    assert client.shown[0]["message"].endswith("1 of 2 places left: the time was up")


async def test_what_was_broken_may_stay_so(client: InProcessClient, engine: FakeEngine) -> None:
    await client.initialize(capabilities=RESOLVES)
    text = "x = = 1\ny = 2\n"
    client.send(did_open(URI, text))
    engine.texts = ("x = = 2",)
    result = await execute(client, "rewrite", order(range=span(0, 0, 0, 7), apply=False))
    assert after(text, result["edit"]) == text.replace("1", "2")
    engine.texts = ("y = = 2",)
    result = await execute(client, "rewrite", order(range=span(1, 0, 1, 5), apply=False))
    assert "break the syntax" in result["message"], "but it must not get worse"


async def test_fillings_are_what_stands_there_then(
    client: InProcessClient, engine: FakeEngine
) -> None:
    await client.initialize(capabilities=RESOLVES)
    text = FUNCTION.replace("\n", "\r\n")
    client.send(did_open(URI, text))
    engine.texts = ('Counts.""" and more  ',)
    result = await execute(client, "docstring", order(range=span(0, 4, 0, 5), apply=False))
    assert result["fillings"] == ['\r\n    """Counts."""']
    assert after(text, result["edit"]) == text.replace(":", ":" + result["fillings"][0])


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("fill", "1", 0.9),
        ("body", "return 1", 0.9),
        ("body", "x = 1\n    return x", None),
        ("docstring", "Counts.", None),
        ("docstring", "Counts.\n\n    Slowly.", None),
    ],
)
async def test_how_sure_the_model_is_is_told_and_asked_where_it_was_measured(
    client: InProcessClient, engine: FakeEngine, name: str, text: str, told: float | None
) -> None:
    await client.initialize(capabilities=RESOLVES, min_confidence=0.95)
    client.send(did_open(URI, "x = \ndef f():\n    ...\n"))
    engine.texts = (text,)
    at = {"fill": span(0, 4, 0, 4), "body": span(2, 4, 2, 4), "docstring": span(1, 4, 1, 5)}
    result = await execute(client, name, order(range=at[name], apply=False))
    if told is None:
        assert result["confidence"] is None
        assert text in result["fillings"][0]
    else:
        assert "90% sure" in result["message"]
        settings = {"settings": {"diffgemma": {"min_confidence": 0.5}}}
        client.notify("workspace/didChangeConfiguration", settings)
        result = await execute(client, name, order(range=at[name], apply=False))
        assert result["confidence"] == told


async def test_what_the_deadline_ends_is_not_finished(client: InProcessClient) -> None:
    await client.initialize(capabilities=RESOLVES)
    client.send(did_open(URI, slow(0, text="new", stop="deadline") + "old\n"))
    result = await execute(client, "rewrite", order(range=span(1, 0, 1, 3), apply=False))
    assert (result["fillings"], result["finished"]) == (["new"], False)


async def test_a_command_that_nobody_knows(client: InProcessClient) -> None:
    await client.initialize(capabilities=RESOLVES)
    client.send(did_open(URI, CODE))
    for arguments in ([], [order()]):
        result = await execute(client, "improve", *arguments)
        assert result["applied"] is False
        assert "there is no command diffgemma.improve" in result["message"]
        assert result["message"] in client.shown[-1]["message"]


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


async def test_an_editor_that_never_says_whether_it_applied_an_edit(
    client: InProcessClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffgemma_lsp.lsp.client.ANSWER_S", 0.05)
    client.replies["workspace/applyEdit"] = lambda params: ...
    await client.initialize(capabilities=RESOLVES)
    client.send(did_open(URI, CODE))
    result = await execute(client, "rewrite", order())
    assert result["applied"] is False
    assert "edit" in result["message"]
    assert client.server.session.requests.in_flight == 0


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


@pytest.mark.parametrize(("number", "message"), [(0, "starting"), (3, "pass 3 of 8")])
async def test_a_clients_own_token_is_used(
    client: InProcessClient, number: int, message: str
) -> None:
    said: list[dict[str, Any]] = []
    client.heard["$/progress"] = said.append
    client.replies["workspace/applyEdit"] = lambda params: {"applied": True}
    await client.initialize(capabilities=RESOLVES)
    plan = {"frame": "x", "pass": number, "text": "new"}
    client.send(did_open(URI, slow(0.1, **plan) + "old\n"))
    where = span(1, 0, 1, 3)
    await execute(client, "rewrite", order(range=where), workDoneToken="mine")
    assert {one["token"] for one in said} == {"mine"}
    assert [one["value"]["kind"] for one in said] == ["begin", "report", "end"]
    assert said[1]["value"]["message"] == message, "of the draft no passes are planned yet"


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


def test_frames_keep_their_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("diffgemma_lsp.actions.frames.time.monotonic", lambda: now)
    shown: list[int] = []
    throttled = Throttled(lambda frame: shown.append(frame.step))
    for step in range(21):  # 10 ms each
        throttled(Frame(step, 20, (), 0.0))
        now += 0.01
    assert shown[:2] == [0, 5]
    assert 4 <= len(shown) <= 5
    throttled.flush()
    throttled.flush()
    assert shown.count(20) == 1, "the last one always comes, and once"


async def test_who_wants_no_frames_gets_none(client: InProcessClient) -> None:
    await client.initialize(capabilities=RESOLVES)
    client.send(did_open(URI, slow(0.01, frame="half", text="whole") + "old\n"))
    await execute(client, "rewrite", order(range=span(1, 0, 1, 3), apply=False))


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
    await until(lambda: engine.runs == 1)
    client.cancel(answer)
    with pytest.raises(Exception, match="-32800"):
        await answer
    await until(lambda: engine.cancelled == 1)
