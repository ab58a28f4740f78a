"""Clients that send too much, read too little, break off, or don't do what they say they can."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_engine import FakeEngine, slow
from in_process import InProcessClient
from lsp_client import (
    FAKE_SERVER,
    INVOKED,
    PATIENCE_S,
    ROOT,
    LspClient,
    completion,
    did_change,
    did_open,
    insertion,
    position,
)

from diffgemma_lsp.actions.run import MOST_ACTIONS
from diffgemma_lsp.lsp import stdio
from diffgemma_lsp.lsp.stdio import Framing, Stdio

URI = "file:///work/a.py"
OLD = {"start": position(1, 0), "end": position(1, 3)}
ORDER = {"textDocument": {"uri": URI}, "range": OLD}
REWRITE = {"command": "diffgemma.rewrite", "arguments": [ORDER]}
APPLIES = {"workspace": {"applyEdit": True, "workspaceEdit": {"documentChanges": True}}}


def framed(*messages: dict[str, Any]) -> bytes:
    bodies = [json.dumps({"jsonrpc": "2.0", **message}).encode() for message in messages]
    return b"".join(b"Content-Length: %d\r\n\r\n%s" % (len(body), body) for body in bodies)


# ---- many messages ----


async def test_thousands_of_messages_in_one_write(stdio_client: LspClient) -> None:
    await stdio_client.initialize(warm_up=False)
    stdio_client.send(did_open(URI, "x = \n"))
    messages, answers = [], []
    for n in range(1_500):
        messages.append(did_change(URI, n + 2, insertion(0, 4 + n, "a")))
        kind = INVOKED if n % 3 else 2
        for asked in (completion(URI, 0, 5 + n, kind), ("diffgemma/status", None)):
            message, answer = stdio_client.asking(*asked)
            messages.append(message)
            answers.append(answer)
    stdio_client.send(*messages)
    results = await asyncio.wait_for(asyncio.gather(*answers), 100)
    # All but the last are put an end to, unless the engine was quicker than the next message.
    assert sum(result != [] for result in results[::2]) < 300
    assert (await stdio_client.request("test/report"))["texts"] == {
        URI: "x = " + "a" * 1_500 + "\n"
    }


async def test_orders_are_taken_up_to_a_bound() -> None:
    engine = FakeEngine()
    client = InProcessClient()
    client.connect(lambda settings: engine)
    await client.initialize(warm_up=False, capabilities=APPLIES)
    client.replies["workspace/applyEdit"] = lambda params: {"applied": False}
    client.send(did_open(URI, slow(0.2, text="new") + "old\n"))
    answers = [client.ask("workspace/executeCommand", REWRITE) for _ in range(500)]
    results = await asyncio.wait_for(asyncio.gather(*answers), 60)
    told = Counter(result["message"] for result in results)
    assert engine.runs == MOST_ACTIONS
    assert max(told.values()) == 500 - MOST_ACTIONS
    assert client.server.session.requests.in_flight == 0
    # And then it is as before.
    again = await client.request("workspace/executeCommand", REWRITE)
    assert again["message"] == "the editor did not apply the edit"


async def test_actions_asked_for_at_once_share_what_the_engine_says() -> None:
    class Asked(FakeEngine):
        asked = 0

        async def status(self) -> dict[str, Any] | None:
            self.asked += 1
            await asyncio.sleep(0.05)
            return await super().status()

    engine = Asked()
    client = InProcessClient()
    client.connect(lambda settings: engine)
    await client.initialize(capabilities=APPLIES)
    client.send(did_open(URI, "# x\nold\n"))
    await client.request(*completion(URI, 1, 3, INVOKED))
    engine.asked = 0
    params = {"textDocument": {"uri": URI}, "range": OLD, "context": {"diagnostics": []}}
    answers = [client.ask("textDocument/codeAction", params) for _ in range(200)]
    results = await asyncio.wait_for(asyncio.gather(*answers), 60)
    assert all(len(actions) == len(results[0]) > 0 for actions in results)
    assert engine.asked <= 5  # of 200


# ---- pipes that are full ----

Pipes = tuple[io.FileIO, io.FileIO]


@contextlib.contextmanager
def taken_over() -> Iterator[Pipes]:
    """Standard input and output of this process, as files of the other end.

    No fixture: pytest puts its own in place between a fixture and its test.
    """
    from_client, to_server = os.pipe()
    from_server, to_client = os.pipe()
    ends = os.fdopen(to_server, "wb", 0), os.fdopen(from_server, "rb", 0)
    saved = os.dup(0), os.dup(1)
    os.dup2(from_client, 0)
    os.dup2(to_client, 1)
    os.close(from_client)
    os.close(to_client)
    try:
        yield ends
    finally:
        for fd, old in enumerate(saved):
            os.dup2(old, fd)
            os.close(old)
        for end in ends:
            end.close()


async def test_no_more_is_read_than_is_handled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stdio, "AHEAD", 100_000)
    with taken_over() as (to_server, _):
        sent, many, heard = 0, 2_000, list[bytes]()
        body = framed({"method": "x", "params": "y" * 1_000})

        def flood() -> None:
            nonlocal sent
            for _ in range(many):
                to_server.write(body)
                sent += 1

        Stdio(asyncio.get_running_loop(), lambda: None).read(
            lambda body, arrived: heard.append(body)
        )
        client = threading.Thread(target=flood, daemon=True)
        client.start()
        time.sleep(0.5)  # the loop is held up, and so is the client in the end
        assert sent < 100_000 / 1_000 + 65_536 * 3 / 1_000 < many
        while len(heard) < many:
            await asyncio.sleep(0.01)
        client.join()


async def test_a_client_that_never_reads_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stdio, "UNREAD", 1_000_000)
    with taken_over() as (_, from_server):
        over = asyncio.Event()
        output = Stdio(asyncio.get_running_loop(), over.set)
        for _ in range(9):
            output.write(b"x" * 100_000)
            await asyncio.sleep(0)
        assert not over.is_set()
        for _ in range(9):
            output.write(b"x" * 100_000)
        assert over.is_set()
        from_server.close()
        output.flush(5)


async def test_a_slow_reader_gets_everything() -> None:
    with taken_over() as (_, from_server):
        output = Stdio(asyncio.get_running_loop(), lambda: None)
        sent = [b"%d," % n * 1_000 for n in range(300)]
        for data in sent:
            output.write(data)
        left, wanted = sum(map(len, sent)), b"".join(sent)
        heard = b""
        while len(heard) < left:
            heard += from_server.read(50_000)
            await asyncio.sleep(0)
        output.flush(5)
        assert heard == wanted


async def test_a_reader_that_is_gone_ends_the_server() -> None:
    with taken_over() as (_, from_server):
        over = asyncio.Event()
        output = Stdio(asyncio.get_running_loop(), over.set)
        from_server.close()
        output.write(b"x")
        await asyncio.wait_for(over.wait(), PATIENCE_S)
        output.flush(5)


def server(**more: Any) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(FAKE_SERVER, cwd=ROOT, env=env, stdin=pipe, stdout=pipe, **more)


HELLO = framed(
    {"id": 1, "method": "initialize", "params": {"processId": None, "capabilities": {}}},
    {"method": "initialized", "params": {}},
)


def test_who_does_not_read_can_still_leave() -> None:
    """The server's own pipe is full, and it ends all the same when the client is gone."""
    process = server(stderr=subprocess.DEVNULL)
    assert process.stdin is not None
    process.stdin.write(HELLO + framed(did_open(URI, "x")))
    status = framed({"id": 2, "method": "diffgemma/status"})
    process.stdin.write(status * 5_000)  # the answers are some hundred KB
    process.stdin.close()
    assert process.wait(60) == 1
    assert process.stdout is not None
    process.stdout.close()


def test_a_client_that_does_not_read_what_is_logged() -> None:
    """Standard error is a pipe that is full: nothing waits for it, not even the end."""
    process = server(stderr=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    unknown = [{"id": n, "method": "textDocument/hover", "params": {}} for n in range(2, 3_002)]
    answers = Framing()
    asked = threading.Thread(target=process.stdin.write, args=(HELLO + framed(*unknown),))
    asked.start()
    heard: set[int] = set()
    while len(heard) < 3_001:
        for body in answers.feed(os.read(process.stdout.fileno(), 1 << 16)):
            heard |= {json.loads(body).get("id")} - {None}
    asked.join()
    process.stdin.close()
    assert process.wait(60) == 1
    process.stdout.close()
    process.stderr.close()


# ---- clients that break off ----


@pytest.mark.parametrize(
    "last",
    [
        b"Content-Len",
        b"Content-Length: 100\r\n\r\n",
        b'Content-Length: 100\r\n\r\n{"jsonrpc": "2.0", "meth',
        framed({"id": 9, "method": "diffgemma/status"})[:-1],
    ],
)
def test_a_client_that_dies_in_the_middle_of_a_message(last: bytes, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        process = server(stderr=stderr)
        assert process.stdin is not None
        process.stdin.write(HELLO + last)
        process.stdin.flush()
        process.stdin.close()
        assert process.wait(60) == 1
        assert process.stdout is not None
        answers = list(Framing().feed(process.stdout.read()))
        process.stdout.close()
    assert [json.loads(answer)["id"] for answer in answers if b'"id"' in answer] == [1]
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize("said", ["initialize", "--clientProcessId"])
def test_a_client_whose_process_is_gone_while_its_pipe_is_open(said: str) -> None:
    client = subprocess.Popen(["sleep", "600"])
    command = [*FAKE_SERVER] if said == "initialize" else [sys.executable, "-m", "diffgemma_lsp"]
    command += ["--stdio", f"--clientProcessId={client.pid}"] if said != "initialize" else []
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    number = client.pid if said == "initialize" else None
    hello = {"processId": number, "capabilities": {}, "initializationOptions": {"warm_up": False}}
    process.stdin.write(framed({"id": 1, "method": "initialize", "params": hello}))
    process.stdin.flush()
    assert process.stdout.readline()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(3)
    client.kill()
    client.wait()
    assert process.wait(60) == 1
    process.stdin.close()
    process.stdout.close()


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
async def test_a_client_that_is_killed(tmp_path: Path) -> None:
    """An editor that dies leaves no server behind."""
    pid = tmp_path / "pid"
    editor = f"""
import pathlib, subprocess, sys, time
server = subprocess.Popen({list(FAKE_SERVER)!r}, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
server.stdin.write({HELLO!r})
server.stdin.flush()
server.stdout.read(1)
pathlib.Path({str(pid)!r}).write_text(str(server.pid))
time.sleep(600)
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", editor], cwd=ROOT, env=env)
    for _ in range(6_000):
        if pid.exists() and pid.read_text():
            break
        await asyncio.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for _ in range(6_000):
        if not _runs(int(pid.read_text())):
            return
        await asyncio.sleep(0.01)
    pytest.fail("the server outlives its editor")


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    # Where nobody reaps orphans, a dead one stays on as a zombie.
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


# ---- clients that lie ----


@pytest.mark.parametrize(
    "reply",
    [
        {"error": {"code": -32601, "message": "no such method"}},
        {"error": 7},
        None,
        7,
        [],
        {"applied": {}},
        {"no": "answer"},
    ],
)
async def test_a_client_that_says_it_applies_edits(
    reply: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffgemma_lsp.lsp.client.ANSWER_S", 2 * PATIENCE_S)
    client = InProcessClient()
    client.connect(lambda settings: FakeEngine())
    client.replies["workspace/applyEdit"] = lambda params: reply
    await client.initialize(warm_up=False, capabilities=APPLIES)
    client.send(did_open(URI, "# x\nold\n"))
    for _ in range(2):
        result = await asyncio.wait_for(client.ask("workspace/executeCommand", REWRITE), PATIENCE_S)
        assert result["applied"] is False
        assert "edit" in result["message"]
    assert client.unexpected == []
    assert client.server.session.requests.in_flight == 0


@pytest.mark.parametrize("reply", [{"error": {"code": 1, "message": "x"}}, 7, {"a": []}])
async def test_a_client_that_says_it_shows_progress(
    reply: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffgemma_lsp.lsp.client.ANSWER_S", 2 * PATIENCE_S)
    client = InProcessClient()
    client.connect(lambda settings: FakeEngine())
    client.replies["workspace/applyEdit"] = lambda params: {"applied": True}
    client.replies["window/workDoneProgress/create"] = lambda params: reply
    client.heard["$/progress"] = lambda params: None
    capabilities = {**APPLIES, "window": {"workDoneProgress": True}}
    await client.initialize(warm_up=False, capabilities=capabilities)
    client.send(did_open(URI, "# x\nold\n"))
    result = await asyncio.wait_for(client.ask("workspace/executeCommand", REWRITE), PATIENCE_S)
    assert result["applied"] is True
    assert client.unexpected == []
