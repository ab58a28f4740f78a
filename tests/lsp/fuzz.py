"""Messages as no client should send them: damaged, cut short, out of order, or nonsense.

`test_fuzz.py` sends some of them, this sends them for as long as one likes, in process and over
real pipes in turn:

    python tests/lsp/fuzz.py --minutes 10 [--seed 0]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

from fake_engine import FakeEngine  # noqa: E402
from in_process import InProcessClient  # noqa: E402
from lsp_client import (  # noqa: E402
    LspClient,
    completion,
    did_change,
    did_close,
    did_open,
    insertion,
    position,
)

URIS = ("file:///a.py", "file:///b%20c.py", "untitled:1")
SPAN = {"start": position(0, 0), "end": position(1, 1)}
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**63, -(2**70), 10**400, 0.5, 1e308, "", "x", "\ud800"),
    *("file:///a.py", "a" * 5_000, "😀\r\n\u2028", [], {}, [None], {"": None}, [[]], {"uri": 1}),
    *({"_": {"type_name": "1 2"}}, {"line": -1, "character": 1e300}, {"line": 10**30}),
)
"""What is put in the place of what belongs there."""


def conversation(random: random.Random, ids: Any) -> list[dict[str, Any]]:
    """One of each message that the server knows, in the order of a session."""
    uri = random.choice(URIS)
    document = {"textDocument": {"uri": uri}}
    order = {**document, "range": SPAN, "instruction": None, "seed": 1, "strength": 0.5}
    action = {"title": "x", "kind": "refactor", "data": {**order, "action": "rewrite"}}
    cell = {"kind": 2, "document": uri}
    book = {"uri": "file:///n.ipynb", "version": 1}
    text = {"uri": uri, "languageId": "python", "version": 1, "text": "def f(x):\n    ...\n"}
    change = {"cells": {"structure": {"array": {"start": 0, "deleteCount": 1, "cells": [cell]}}}}
    context = {"diagnostics": [{"range": SPAN, "message": "wrong"}], "triggerKind": 1}
    requests: list[tuple[str, Any]] = [
        completion(uri, 0, 3, 1),
        completion(uri, 1, 4, 2, {"range": SPAN, "text": "x"}),
        ("textDocument/completion", {**document, "position": position(0, 1)}),
        ("textDocument/codeAction", {**document, "range": SPAN, "context": context}),
        ("codeAction/resolve", action),
        ("workspace/executeCommand", {"command": "diffgemma.rewrite", "arguments": [order]}),
        ("workspace/executeCommand", {"command": "diffgemma.unload"}),
        ("diffgemma/status", None),
        ("initialize", {"processId": None, "capabilities": {}}),
        ("no/such/method", {"a": [1]}),
    ]
    folders = {"event": {"added": [{"uri": "file:///w", "name": "w"}], "removed": []}}
    wishes = {"settings": {"diffgemma": {"max_lines": 3, "globs": {"*.py": {"seed": 2}}}}}
    notifications: list[tuple[str, Any]] = [
        ("$/cancelRequest", {"id": random.choice(list(ids) or [0])}),
        ("$/setTrace", {"value": "verbose"}),
        ("$/progress", {"token": 1, "value": {}}),
        ("window/workDoneProgress/cancel", {"token": "diffgemma/1"}),
        ("workspace/didChangeConfiguration", wishes),
        ("workspace/didChangeWorkspaceFolders", folders),
        (
            "notebookDocument/didOpen",
            {
                "notebookDocument": {**book, "notebookType": "x", "cells": [cell]},
                "cellTextDocuments": [text],
            },
        ),
        ("notebookDocument/didChange", {"notebookDocument": book, "change": change}),
        ("notebookDocument/didSave", {"notebookDocument": book}),
        ("notebookDocument/didClose", {"notebookDocument": book, "cellTextDocuments": []}),
        ("textDocument/didSave", document),
    ]
    found = [
        did_open(uri, text["text"]),
        did_change(uri, 2, insertion(0, 1, "y"), {"text": "z = \n"}),
        *({"id": 0, "method": method, "params": params} for method, params in requests),
        *({"method": method, "params": params} for method, params in notifications),
        *({"id": random.choice((0, "x")), "result": odd} for odd in random.sample(ODD, 2)),
        {"id": 1, "error": {"code": 1, "message": "x"}},
        did_close(uri),
    ]
    return json.loads(json.dumps(found))


def damaged(message: dict[str, Any], random: random.Random) -> dict[str, Any]:
    """The message with something in it replaced, left out, added, or nested too deep."""
    inside: Any = message
    while random.random() < 0.7:
        keys = list(inside) if isinstance(inside, dict) else range(len(inside))
        below = [key for key in keys if isinstance(inside[key], dict | list) and inside[key]]
        if not below:
            break
        inside = inside[random.choice(below)]
    keys = list(inside) if isinstance(inside, dict) else list(range(len(inside)))
    key = random.choice(keys)
    match random.randrange(6):
        case 0:
            del inside[key]
        case 1 if isinstance(inside, dict):
            inside[random.choice(("id", "uri", "range", "x", ""))] = random.choice(ODD)
        case 2:
            # Not so deep that nobody could read the id: test_stdio.py goes there.
            value: Any = inside[key]
            for _ in range(random.choice((3, 90, 300, 700))):
                value = [value] if random.random() < 0.5 else {"x": value}
            inside[key] = value
        case _:
            inside[key] = random.choice(ODD)
    return message


def encoded(message: dict[str, Any]) -> bytes:
    """The body, be it nested deeper than json takes by itself."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        return json.dumps({"jsonrpc": "2.0", **message}).encode()
    finally:
        sys.setrecursionlimit(limit)


def script(random: random.Random, numbers: Any) -> tuple[list[bytes], Counter[str]]:
    """Frames to be sent, and how many answers each id is to get."""
    ids: list[Any] = []
    messages = conversation(random, ids)
    random.shuffle(messages)
    frames: list[bytes] = []
    wanted: Counter[str] = Counter()
    for message in messages[: random.randint(1, len(messages))]:
        if "id" in message and "method" in message:
            message["id"] = random.choice((next(numbers), f"text {next(numbers)}"))
        if random.random() < 0.5:
            message = damaged(message, random)
        if message.get("method") in ("exit", "shutdown"):
            continue
        copies = 2 if random.random() < 0.05 else 1  # an id that is used twice
        body = encoded(message)
        frames += [b"Content-Length: %d\r\n\r\n%s" % (len(body), body)] * copies
        # Whatever names a method and has an id is a request, however wrong it is.
        if "method" in message and "id" in message and type(message["id"]) in (int, str):
            wanted[json.dumps(message["id"])] += copies
            ids.append(message["id"])
        if random.random() < 0.1:
            frames.append(garbage(random))
    return frames, wanted


def garbage(random: random.Random) -> bytes:
    """What stands between two messages, and ends so that the next one can be found."""
    noise = random.randbytes(random.choice((1, 20, 3_000))).replace(b"\r", b"").replace(b":", b"")
    digits = b"9" * random.choice((1, 30, 6_000))
    head = random.choice((b"", b"Content-Length: " + digits + b"x", b"Content-Type: y"))
    return noise + b"\r\n" + head + b"\r\n\r\n"


class Heard:
    """What the server said: how many answers to which id, and what it must never say."""

    def __init__(self, client: LspClient, source: random.Random) -> None:
        self.source = source
        self.answers: Counter[str] = Counter()
        self.wrong: list[Any] = []
        client._hear = self.hear  # pyright: ignore[reportPrivateUsage]
        self.client = client

    def hear(self, message: dict[str, Any]) -> None:
        if "method" in message:
            if "id" in message:  # asked by the server: answered with nonsense now and then
                asyncio.get_running_loop().call_soon(
                    self.client.send, {"id": message["id"], "result": self.source.choice(ODD)}
                )
            return
        if ("result" in message) == ("error" in message):
            self.wrong.append(message)
        if "internal error" in str(message.get("error")).lower():
            self.wrong.append(message["error"])
        if message["id"] is not None:
            self.answers[json.dumps(message["id"])] += 1

    async def all_of(self, wanted: Counter[str], frames: list[bytes]) -> None:
        """Waits for exactly these answers."""
        for _ in range(60_000):
            if self.answers.total() >= wanted.total():
                break
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.002)  # for one too many
        wrong = (self.answers - wanted) | (wanted - self.answers)
        assert not wrong, (
            wrong,
            [f[:2_000] for f in frames if any(i.encode() in f for i in wrong)],
        )
        assert self.wrong == [], self.wrong
        self.answers.clear()


class Errors(logging.Handler):
    """Keeps what is logged as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(record.getMessage())


async def in_process(source: random.Random, scripts: int) -> None:
    """Scripts for one server in this process: answers, errors, and what is left behind."""
    errors = Errors()
    for name in ("diffgemma_lsp", "asyncio"):
        logging.getLogger(name).addHandler(errors)
    client = InProcessClient()
    client.connect(lambda settings: FakeEngine())
    crashed: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: crashed.append(context))
    everything = {
        "workspace": {"applyEdit": True, "workspaceEdit": {"documentChanges": True}},
        "window": {"workDoneProgress": True},
    }
    await client.initialize(None, everything, warm_up=False, automatic_budget_ms=50)
    heard, numbers = Heard(client, source), iter(range(100, 10**9))
    for _ in range(scripts):
        frames, wanted = script(source, numbers)
        for frame in frames:
            client.send_raw(frame)
            if source.random() < 0.5:
                await asyncio.sleep(0)
        await heard.all_of(wanted, frames)
        assert crashed == [], crashed
        assert errors.found == [], errors.found
    session, rpc = client.server.session, client.server.rpc
    for uri in URIS:
        client.send(did_close(uri))
    for _ in range(10_000):
        if not session.requests._background:  # pyright: ignore[reportPrivateUsage]
            break
        await asyncio.sleep(0.001)
    assert session.requests._background == session.requests._answers == set()  # pyright: ignore[reportPrivateUsage]
    assert session.requests.in_flight == 0
    assert rpc._request_futures == rpc._result_types == {}  # pyright: ignore[reportPrivateUsage]
    assert len(session.suggestions) <= 250
    for name in ("diffgemma_lsp", "asyncio"):
        logging.getLogger(name).removeHandler(errors)


async def over_stdio(source: random.Random, scripts: int) -> None:
    """Scripts for a real process, which goes on working and ends as it should."""
    client = LspClient()
    await client.start()
    try:
        await client.initialize(warm_up=False, automatic_budget_ms=50)
        normal = client._hear  # pyright: ignore[reportPrivateUsage]
        heard, numbers = Heard(client, source), iter(range(100, 10**9))
        for _ in range(scripts):
            frames, wanted = script(source, numbers)
            client.send_raw(b"".join(frames))
            await heard.all_of(wanted, frames)
        client._hear = normal  # pyright: ignore[reportPrivateUsage]
        assert await client.finish() == 0
    finally:
        if client.process.returncode is None:
            client.process.kill()


def main() -> None:
    """Fuzzes for some minutes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    logging.getLogger("diffgemma_lsp").propagate = False
    end, seed, done = time.monotonic() + 60 * chosen.minutes, chosen.seed, 0
    while time.monotonic() < end:
        try:
            asyncio.run(in_process(random.Random(seed), 200))
            asyncio.run(over_stdio(random.Random(seed), 50))
        except BaseException:
            print(f"with --seed {seed}", file=sys.stderr)
            raise
        seed, done = seed + 1, done + 250
        print(f"{done} conversations", flush=True)


if __name__ == "__main__":
    main()
