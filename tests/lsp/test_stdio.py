"""The server over real standard input and output, asked by a client that knows nothing of pygls."""

from __future__ import annotations

import asyncio

import pytest
from fake_engine import filling, slow
from lsp_client import (
    AUTOMATIC,
    CANARY,
    INVOKED,
    PATIENCE_S,
    LspClient,
    RpcError,
    answered_at_once,
    completion,
    did_change,
    did_close,
    did_open,
    insertion,
    position,
    until,
)

URI = "file:///work/a.py"
CANCELLED, INVALID_REQUEST, INVALID_PARAMS = -32800, -32600, -32602
METHOD_NOT_FOUND, PARSE_ERROR, NOT_INITIALIZED = -32601, -32700, -32002


@pytest.fixture
def client(stdio_client: LspClient) -> LspClient:
    """Here, of a server that is a process of its own."""
    return stdio_client


async def report(client: LspClient) -> dict:
    return await client.request("test/report")


# ---- the handshake ----


async def test_initialize_is_quick_and_loads_nothing_heavy(client: LspClient) -> None:
    await client.initialize()
    loaded = set((await report(client))["modules"])
    assert loaded & {"torch", "transformers", "tokenizers", "numpy", "httpx"} == set()
    # The aim is half a second; a machine under load gets more, so that this is no game of chance.
    assert client.initialize_s < PATIENCE_S
    assert client.capabilities["inlineCompletionProvider"] == {}
    assert client.capabilities["textDocumentSync"]["change"] == 2


async def test_the_engine_is_warmed_up_unless_told_otherwise(client: LspClient) -> None:
    await client.initialize()
    client.send(did_open(URI, "x = "))
    for _ in range(1_500):
        if (await report(client))["warmed_up"]:
            return
        await asyncio.sleep(0.02)
    pytest.fail("the engine was not warmed up")


async def test_wrong_settings_are_named_once(client: LspClient) -> None:
    await client.initialize(maxTokens="many", min_confidence=0.25, colour="red")
    await report(client)
    (message,) = client.shown
    assert message["type"] == 2
    assert "max_tokens: expected a whole number" in message["message"]
    assert "colour" in message["message"]
    assert "min_confidence" not in message["message"]


async def test_odd_capabilities_are_no_obstacle(client: LspClient) -> None:
    capabilities = {
        "general": {"positionEncodings": ["utf-8"]},
        "textDocument": {"codeAction": {"codeActionLiteralSupport": 7}, "moniker": []},
    }
    answer = await client.request("initialize", {"processId": None, "capabilities": capabilities})
    assert answer["capabilities"]["positionEncoding"] == "utf-8"
    client.notify("initialized")
    assert (await report(client))["runs"] == 0


# ---- ghost text ----


async def test_ghost_text(client: LspClient) -> None:
    await client.initialize()
    client.send(did_open(URI, f"# {CANARY}\nx = \ny = 2\n"))
    items = await client.request(*completion(URI, 1, 4))
    text = filling(f"# {CANARY}\nx = ", "\ny = 2\n")
    here = {"start": position(1, 4), "end": position(1, 4)}
    assert items == [{"insertText": text, "range": here}]


@pytest.mark.parametrize(
    ("encoding", "characters"),
    [("utf-8", (15, 11)), ("utf-16", (9, 6)), ("utf-32", (8, 5)), (None, (9, 6))],
)
async def test_emoji_and_combining_marks(
    client: LspClient, encoding: str | None, characters: tuple[int, int]
) -> None:
    line = "a😀é中 e\u0301x"  # the word under the cursor is e, a combining acute accent, x
    behind, word = characters
    await client.initialize([encoding] if encoding else None)
    client.send(did_open(URI, f"\f\u2028{line}\r\nmore"))
    # Typed in front of the line, so that the edit is put to the test as well.
    width = {"utf-8": 4}.get(encoding or "", 2)
    client.send(did_change(URI, 2, insertion(0, width, "👩🏽")))
    skin = {"utf-8": 8, "utf-32": 2}.get(encoding or "", 4)
    (item,) = await client.request(*completion(URI, 0, behind + width + skin))
    assert item["insertText"] == "e\u0301x" + filling(f"\f\u2028👩🏽{line}", "\nmore")
    assert item["range"]["start"] == position(0, word + width + skin)
    assert item["range"]["end"] == position(0, behind + width + skin)


# ---- time ----


async def test_the_deadline_counts_from_the_arrival(client: LspClient) -> None:
    await client.initialize(automatic_budget_ms=1_000)
    client.send(did_open(URI, slow(60, text="late") + "x = "))
    (item,) = await client.request(*completion(URI, 1, 4))
    assert item["insertText"] == "late"
    assert 0 < (await report(client))["budgets"][0] < 1


async def test_at_the_deadline_the_last_frame_counts(client: LspClient) -> None:
    await client.initialize(automatic_budget_ms=200)
    client.send(did_open(URI, slow(frame="half", deaf=True) + "x = "))
    (item,) = await client.request(*completion(URI, 1, 4))
    assert item["insertText"] == "half"
    assert (await report(client))["cancelled"] == 1


async def test_an_engine_that_is_late_is_not_waited_for(client: LspClient) -> None:
    await client.initialize(automatic_budget_ms=200)
    client.send(did_open(URI, slow(deaf=True, stubborn=30) + "x = "))
    assert await client.request(*completion(URI, 1, 4)) == []
    assert "in time" in (await client.request("diffgemma/status"))["lastReason"]
    assert client.shown == []


async def test_who_asks_gets_more_time(client: LspClient) -> None:
    await client.initialize(automatic_budget_ms=100, invoked_budget_ms=3_000)
    client.send(did_open(URI, slow(0.4, deaf=True) + "x = "))
    assert await client.request(*completion(URI, 1, 4)) == []
    assert await client.request(*completion(URI, 1, 4, INVOKED)) != []


# ---- what ends a request early ----


async def test_cancel(client: LspClient) -> None:
    await client.initialize(invoked_budget_ms=60_000, candidates=1)
    client.send(did_open(URI, slow() + "x = "))
    answer = client.ask(*completion(URI, 1, 4, INVOKED))
    while (await report(client))["runs"] == 0:
        await asyncio.sleep(0.01)
    client.cancel(answer)
    with pytest.raises(RpcError) as caught:
        await answered_at_once(answer)
    assert caught.value.code == CANCELLED
    assert (await report(client))["cancelled"] == 1


async def test_cancel_in_the_same_breath(client: LspClient) -> None:
    await client.initialize()
    client.send(did_open(URI, slow() + "x = "))
    message, answer = client.asking(*completion(URI, 1, 4))
    client.send(message, client.notification("$/cancelRequest", {"id": message["id"]}))
    with pytest.raises(RpcError):
        await answered_at_once(answer)
    client.cancel(answer)  # and once more, too late
    counts = await report(client)
    assert counts["runs"] == counts["cancelled"]


@pytest.mark.parametrize("kind", [AUTOMATIC, INVOKED])
async def test_changed_or_closed_in_flight(client: LspClient, kind: int) -> None:
    await client.initialize(automatic_budget_ms=10_000, invoked_budget_ms=10_000, candidates=1)
    client.send(did_open(URI, slow() + "x = "))
    changed = client.ask(*completion(URI, 1, 4, kind))
    client.send(did_change(URI, 2, insertion(1, 4, "a")))
    assert await answered_at_once(changed) == []
    closed = client.ask(*completion(URI, 1, 5, kind))
    client.send(did_close(URI))
    assert await answered_at_once(closed) == []
    assert await client.request(*completion(URI, 1, 5, kind)) == []
    counts = await report(client)
    assert counts["runs"] == counts["cancelled"] <= 2


async def test_each_request_sees_the_document_of_its_time(client: LspClient) -> None:
    """Both requests and both changes are read at once; each answer is about its own version."""
    await client.initialize()
    client.send(did_open(URI, "a = "), did_open(f"{URI}2", "b = "))
    first, answer = client.asking(*completion(f"{URI}2", 0, 4))
    second, answer2 = client.asking(*completion(URI, 0, 5))
    client.send(
        first,
        did_change(URI, 2, insertion(0, 4, "a")),
        second,
        did_change(f"{URI}2", 2, insertion(0, 4, "2")),
    )
    # The first one's document changed while it was in flight; it may have been done before.
    assert await answer in ([], [{"insertText": filling("b = ", ""), "range": _empty(0, 4)}])
    (item,) = await answer2
    assert item["insertText"] == "a" + filling("a = a", "")


def _empty(line: int, character: int) -> dict:
    return {"start": position(line, character), "end": position(line, character)}


async def test_a_storm_of_changes_with_requests_between(client: LspClient) -> None:
    # Longer than this process may be held up between two of them.
    await client.initialize(automatic_budget_ms=20_000, look_ahead=False)
    client.send(did_open(URI, slow(2.0) + "x = "))
    answers = []
    for n in range(300):
        message, answer = client.asking(*completion(URI, 1, 5 + n))
        client.send(did_change(URI, n + 2, insertion(1, 4 + n, "a")), message)
        answers.append(answer)
    results = [await asyncio.wait_for(answer, PATIENCE_S) for answer in answers]
    assert all(result == [] for result in results[:-1])
    (item,) = results[-1]
    assert item["insertText"].startswith("a" * 300)
    counts = await report(client)
    assert counts["runs"] <= 300
    assert counts["cancelled"] == counts["runs"] - 1


# ---- what goes wrong ----


async def test_a_bug_is_an_error_that_quotes_nothing(client: LspClient) -> None:
    await client.initialize()
    client.send(did_open(URI, f'# fake: {{"bug": "{CANARY}"}}\nx = '))
    assert await client.request(*completion(URI, 1, 4)) == []
    (message,) = client.shown
    assert "ValueError at fake_engine.py" in message["message"]
    assert CANARY not in message["message"]


async def test_requests_that_make_no_sense_are_answered(client: LspClient) -> None:
    async def code(method: str, params: object = None) -> int:
        with pytest.raises(RpcError) as caught:
            await client.request(method, params)
        return caught.value.code

    assert await code(*completion(URI, 0, 0)) == NOT_INITIALIZED
    await client.initialize()
    assert await code("initialize", {"capabilities": {}}) == INVALID_REQUEST
    assert await code("textDocument/inlineCompletion") == INVALID_PARAMS
    assert await code("textDocument/inlineCompletion", [1, 2]) == INVALID_PARAMS
    assert await code("textDocument/inlineCompletion", {"position": 3}) == INVALID_PARAMS
    assert await code("textDocument/hover", {}) in (METHOD_NOT_FOUND, INVALID_PARAMS)
    assert await code("no/such/method") == METHOD_NOT_FOUND
    assert await code("no/such/method", {"a b": {"type_name": "1 2"}}) < 0


async def test_garbage_is_survived(client: LspClient) -> None:
    await client.initialize()
    client.send_raw(b"hello?\r\n\r\nContent-Length: nonsense\r\n\r\nContent-Length: 0\r\n\r\n")
    for body in (
        b"{not json",
        b"[]",
        b"17",
        b'"text"',
        b"null",
        b'{"id": 3.5, "jsonrpc": "2.0", "method": "shutdown"}',
        b'{"id": null, "jsonrpc": "2.0", "method": "shutdown"}',
        b'{"id": "x", "method": "shutdown"',
        b'{"jsonrpc": "1.0", "method": "exit"}',
        b'{"jsonrpc": "2.0", "id": 9999, "result": {"jsonrpc": "2.0"}}',
        b'{"jsonrpc": "2.0", "method": "textDocument/didChange", "params": {}}',
        b'{"jsonrpc": "2.0", "method": "$/unknown"}',
        b'{"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": [1]}}',
        b"\xff\xfe\x00\x01",
        b"[" * 100_000,
    ):
        client.send_raw(b"content-type: x\r\ncontent-length:  %d \r\n\r\n%s" % (len(body), body))
    client.send(did_open(URI, "x = "))
    assert await client.request(*completion(URI, 0, 4)) != []
    codes = [error["code"] for error in client.nameless_errors]
    assert codes.count(PARSE_ERROR) == 5
    assert codes.count(INVALID_REQUEST) == 7


async def test_a_messy_client(client: LspClient) -> None:
    await client.initialize()
    client.send(did_change(URI, 2, insertion(0, 0, "nobody knows it")))
    client.send(did_close(URI))
    client.send(did_open(URI, "x = ", 7), did_open(URI, "y = ", 7))
    client.send(did_change(URI, 3, insertion(0, 4, "(")))
    (item,) = await client.request(*completion(URI, 0, 5))
    assert item["insertText"] == filling("y = (", "")
    await report(client)
    assert len([line for line in client.logged if URI in line]) == 4


async def test_a_used_id_is_refused(client: LspClient) -> None:
    await client.initialize(invoked_budget_ms=300)
    client.send(did_open(URI, slow() + "x = "))
    message, answer = client.asking(*completion(URI, 1, 4, INVOKED))
    client.send(message, message)
    with pytest.raises(RpcError) as caught:
        await answer
    assert caught.value.code == INVALID_REQUEST
    # The first one's answer comes too; this client knows that it asked twice.
    await until(lambda: len(client.unexpected) == 1)
    client.unexpected.clear()


# ---- the end ----


async def test_shutdown_while_generating(client: LspClient) -> None:
    await client.initialize(invoked_budget_ms=60_000, candidates=1)
    uris = [f"{URI}{n}" for n in range(4)]
    client.send(*(did_open(uri, slow(stubborn=60) + "x = ") for uri in uris))
    answers = [client.ask(*completion(uri, 1, 4, INVOKED)) for uri in uris]
    await report(client)
    assert await client.request("shutdown") is None
    assert [await answer for answer in answers] == [[]] * 4
    with pytest.raises(RpcError) as caught:
        await client.request(*completion(URI, 0, 0))
    assert caught.value.code == INVALID_REQUEST
    client.notify("exit")
    assert await asyncio.wait_for(client.process.wait(), PATIENCE_S) == 0


async def test_shutdown_twice_and_what_comes_between(client: LspClient) -> None:
    await client.initialize(candidates=1)
    client.send(did_open(URI, slow() + "x = "))
    waiting = client.ask(*completion(URI, 1, 4, INVOKED))
    messages, answers = [], []
    for method, params in (("shutdown", None), completion(URI, 1, 4), ("shutdown", None)):
        message, answer = client.asking(method, params)
        messages.append(message)
        answers.append(answer)
    client.send(*messages)
    assert await answers[0] is None
    assert await waiting == []
    for answer in answers[1:]:
        with pytest.raises(RpcError) as caught:
            await answer
        assert caught.value.code == INVALID_REQUEST
    client.notify("exit")
    assert await asyncio.wait_for(client.process.wait(), PATIENCE_S) == 0


async def test_exit_without_shutdown(client: LspClient) -> None:
    await client.initialize()
    client.notify("exit")
    assert await asyncio.wait_for(client.process.wait(), PATIENCE_S) == 1


async def test_a_client_that_dies(client: LspClient) -> None:
    await client.initialize(invoked_budget_ms=60_000, candidates=1)
    client.send(did_open(URI, slow(stubborn=60) + "x = "))
    answer = client.ask(*completion(URI, 1, 4, INVOKED))
    await report(client)
    assert client.process.stdin is not None
    client.process.stdin.close()
    assert await asyncio.wait_for(client.process.wait(), PATIENCE_S) == 1
    assert await answered_at_once(answer) == []
