"""Messages above 128 MiB: refused in one line, never kept, and the server goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lsp_client import (
    CANARY,
    INVOKED,
    LspClient,
    RpcError,
    completion,
    did_change,
    did_open,
    insertion,
    until,
)

from diffgemma_lsp.lsp import stdio
from diffgemma_lsp.lsp.mending import whole_part
from diffgemma_lsp.lsp.stdio import Framing, TooLong

A, B = "file:///work/a.py", "file:///work/b.py"
LONG = (128 << 20) + 1


# ---- framing ----


@given(st.lists(st.integers(0, 40), max_size=6), st.integers(1, 50))
def test_short_ones_come_and_long_ones_are_reported(lengths: list[int], piece: int) -> None:
    bodies = [(b"\r\n\r\n{%d" % n * n)[:n] for n in lengths]
    stream = b"".join(b"Content-Length: %d\r\n\r\n%s" % (len(body), body) for body in bodies)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stdio, "LONGEST", 20)
        patch.setattr(stdio, "_HEAD", 7)
        framing, found = Framing(), list[bytes | TooLong]()
        for at in range(0, len(stream), piece):
            found += framing.feed(stream[at : at + piece])
    assert found == [body if len(body) <= 20 else TooLong(len(body), body[:7]) for body in bodies]


MESSAGE = {
    "jsonrpc": "2.0",
    "id": 7,
    "method": "x",
    "params": {"textDocument": {"uri": 'file:///a,"{[', "version": 2}, "list": [1, {"a": 2}, "b"]},
}


@given(st.integers(0, 200), st.booleans())
def test_what_is_whole_in_a_beginning(end: int, spaces: bool) -> None:
    text = json.dumps(MESSAGE, separators=(", ", ": ") if spaces else (",", ":"))
    part = whole_part(text[:end].encode())
    assert part.items() <= {**MESSAGE, "params": part.get("params")}.items()
    assert ("id" in part) == (end > text.index(",", text.index("7")))
    assert ("params" in part) == (end > text.rindex(",", 0, text.index('"version"')))


@pytest.mark.parametrize(
    ("head", "part"),
    [
        (b"", {}),
        (b'{"id": 1', {}),
        (b'{"id": 1,', {"id": 1}),
        (b'{"params": {"id": 1, "x', {"params": {"id": 1}}),
        (b'{"a": ",{\\",[", "b": "', {"a": ',{",['}),
        (b'{"a": [1, 2, [3, 4', {"a": [1, 2, [3]]}),
        (b'{"a": "\xe2\x82\xac", "b": "\xe2\x82', {"a": "€"}),
        (b"[1, 2, 3", {}),
        (b"}}]], {]", {}),
        (b'{"a": NaN, "b"', {}),
        (b"[" * 3_000 + b"1, ", {}),
    ],
)
def test_beginnings(head: bytes, part: dict[str, object]) -> None:
    assert whole_part(head) == part


# ---- the server ----


@pytest.fixture
async def client(stdio_client: LspClient) -> LspClient:
    """With two documents open."""
    await stdio_client.initialize(warm_up=False)
    stdio_client.send(did_open(A, "x = "), did_open(B, "y = "))
    return stdio_client


async def send_long(client: LspClient, head: str, length: int = LONG, end: str = "") -> None:
    """A message that begins like that, goes on with one string, and ends like that."""
    assert client.process.stdin is not None
    client.send_raw(b"Content-Length: %d\r\n\r\n%s" % (length, head.encode()))
    left = length - len(head) - len(end)
    while left:
        piece = (CANARY.encode() * 100_000)[:left]
        client.send_raw(piece)
        await client.process.stdin.drain()
        left -= len(piece)
    client.send_raw(end.encode())


async def served(client: LspClient, uri: str) -> bool:
    return bool(await client.request(*completion(uri, 0, 4, INVOKED)))


def peak_mib(client: LspClient) -> int:
    """The most memory that the server ever had."""
    status = Path(f"/proc/{client.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) >> 10


async def test_a_request_gets_an_error_and_nothing_is_kept(client: LspClient) -> None:
    message, answer = client.asking("textDocument/hover", {"x": ""})
    await client.request("diffgemma/status")
    before = peak_mib(client)
    head = json.dumps({"jsonrpc": "2.0", **message})
    await send_long(client, head.removesuffix('"}}'), 3 * LONG)
    with pytest.raises(RpcError, match=r"hover: 402,653,187 bytes, and the most are 134,217,728"):
        await answer
    assert await served(client, A)
    assert peak_mib(client) - before < 40


async def test_of_a_document_whose_change_is_too_long_nothing_is_said(client: LspClient) -> None:
    change = {"jsonrpc": "2.0", **did_change(A, 2, insertion(0, 4, ""))}
    await send_long(client, json.dumps(change).removesuffix('"}]}}'))
    assert not await served(client, A)
    assert await served(client, B)
    await until(lambda: any("134,217,729 bytes" in line for line in client.logged))
    assert f"{A} gets no suggestions until it is opened again" in "".join(client.logged)
    client.send(did_open(A, "x = "))
    assert await served(client, A)


@pytest.mark.parametrize("head", ['{"params": {"contentChanges": [{"text": "', '{"x": "', "x"])
async def test_whose_change_was_too_long_may_not_be_known(client: LspClient, head: str) -> None:
    await send_long(client, head)
    assert not await served(client, A)
    assert not await served(client, B)
    client.send(did_open(A, "x = "))
    assert await served(client, A)


async def test_a_message_of_just_128_mib_is_read(client: LspClient) -> None:
    await send_long(client, '{"jsonrpc": "2.0", "method": "$/x", "params": "', LONG - 1, '"}')
    assert await served(client, A)
    assert not any("ignored" in line for line in client.logged), client.logged
