"""A bare language client: JSON-RPC over a subprocess's pipes, without pygls or lsprotocol.

It is strict: an answer to what was not asked, a second answer, a request from the server for which
the test has no reply, a notification that is not expected, or a document's text in a log fails the
test at `finish`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FAKE_SERVER = (sys.executable, str(HERE / "fake_server.py"))

CANARY = "CANARY"
"""Stands in documents of the tests, and must never stand in a log."""

INVOKED, AUTOMATIC = 1, 2

PATIENCE_S = 30.0
"""So long what takes no time may take on a busy machine; what hangs in tests hangs for longer."""


class RpcError(Exception):
    """The answer was an error."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"{error['code']}: {error['message']}")
        self.code: int = error["code"]


class LspClient:
    """One server process and the conversation with it."""

    def __init__(self) -> None:
        self.shown: list[dict[str, Any]] = []
        self.logged: list[str] = []
        self.nameless_errors: list[dict[str, Any]] = []
        self.capabilities: dict[str, Any] = {}
        self.initialize_s = 0.0
        self.asked: list[tuple[str, Any]] = []
        self.heard: dict[str, Callable[[Any], Any]] = {}
        self.replies: dict[str, Callable[[Any], Any]] = {}
        self._waiting: dict[int | str, asyncio.Future[Any]] = {}
        self.unexpected: list[Any] = []
        self._next_id = 0

    # ---- life ----

    async def start(self, *command: str, env: dict[str, str] | None = None) -> None:
        """Starts the server."""
        self._began = time.perf_counter()
        self.process = await asyncio.create_subprocess_exec(
            *(command or FAKE_SERVER),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
        )
        self._reader = asyncio.create_task(self._read())
        self._stderr = asyncio.create_task(self._drain())

    async def initialize(
        self,
        encodings: list[str] | None = None,
        capabilities: dict[str, Any] | None = None,
        folders: list[str] | None = None,
        **options: Any,
    ) -> None:
        """Shakes hands; `options` are the initializationOptions."""
        general = {"positionEncodings": encodings} if encodings else {}
        params = {
            "processId": os.getpid(),
            "rootUri": None,
            "workspaceFolders": [{"uri": uri, "name": uri} for uri in folders or []],
            "capabilities": {"general": general, **(capabilities or {})},
            "initializationOptions": options or None,
        }
        self.capabilities = (await self.request("initialize", params))["capabilities"]
        self.initialize_s = time.perf_counter() - self._began
        self.notify("initialized", {})

    async def finish(self) -> int:
        """Shuts the server down if it is there, and looks at everything that it said."""
        if self.process.returncode is None:
            await self.request("shutdown")
            self.notify("exit")
        code = await asyncio.wait_for(self.process.wait(), PATIENCE_S)
        await self._reader
        stderr = await self._stderr
        unanswered = [id for id, answer in self._waiting.items() if not answer.done()]
        assert self.unexpected == [], self.unexpected
        assert unanswered == [], f"never answered: {unanswered}; stderr:\n{stderr}"
        assert CANARY not in stderr + "".join(self.logged), "a document's text is in the log"
        assert "Traceback" not in stderr, stderr
        assert "unhandled" not in stderr, stderr
        return code

    # ---- saying ----

    def send(self, *messages: dict[str, Any]) -> None:
        """Sends messages in one write."""
        bodies = [json.dumps({"jsonrpc": "2.0", **message}).encode() for message in messages]
        self.send_raw(b"".join(b"Content-Length: %d\r\n\r\n" % len(b) + b for b in bodies))

    def send_raw(self, data: bytes) -> None:
        """Sends bytes as they are."""
        assert self.process.stdin is not None
        self.process.stdin.write(data)

    def notification(self, method: str, params: Any = None) -> dict[str, Any]:
        """A notification, to be sent."""
        return {"method": method} if params is None else {"method": method, "params": params}

    def asking(self, method: str, params: Any = None) -> tuple[dict[str, Any], asyncio.Future[Any]]:
        """A request, to be sent, and its answer."""
        self._next_id += 1
        answer = asyncio.get_running_loop().create_future()
        self._waiting[self._next_id] = answer
        return {"id": self._next_id, **self.notification(method, params)}, answer

    def notify(self, method: str, params: Any = None) -> None:
        self.send(self.notification(method, params))

    def ask(self, method: str, params: Any = None) -> asyncio.Future[Any]:
        """Sends a request; the future has its answer."""
        message, answer = self.asking(method, params)
        self.send(message)
        return answer

    async def request(self, method: str, params: Any = None) -> Any:
        """Sends a request and waits for its answer. Raises RpcError."""
        return await asyncio.wait_for(self.ask(method, params), PATIENCE_S)

    def cancel(self, answer: asyncio.Future[Any]) -> None:
        """Withdraws a request."""
        id = next(id for id, known in self._waiting.items() if known is answer)
        self.notify("$/cancelRequest", {"id": id})

    def forget_answered(self) -> None:
        """Keeps only what still waits; a second answer to the rest is one to nothing."""
        self._waiting = {id: answer for id, answer in self._waiting.items() if not answer.done()}

    # ---- hearing ----

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while header := await self.process.stdout.readline():
            length = 0
            while header.strip():
                name, _, value = header.partition(b":")
                length = int(value) if name == b"Content-Length" else length
                header = await self.process.stdout.readline()
            self._hear(json.loads(await self.process.stdout.readexactly(length)))

    def _hear(self, message: dict[str, Any]) -> None:
        if "method" in message:
            match message["method"]:
                case "window/logMessage":
                    self.logged.append(message["params"]["message"])
                case "window/showMessage":
                    self.shown.append(message["params"])
                case method if method in self.heard:
                    self.heard[method](message["params"])
                case method if method in self.replies and "id" in message:
                    self.asked.append((method, message["params"]))
                    self._reply(message["id"], self.replies[method])
                case _:
                    self.unexpected.append(message)
            return
        if message["id"] is None:
            self.nameless_errors.append(message["error"])
            return
        answer = self._waiting.get(message["id"])
        if answer is None or answer.done() or ("result" in message) == ("error" in message):
            self.unexpected.append(message)
        elif "error" in message:
            answer.set_exception(RpcError(message["error"]))
        else:
            answer.set_result(message["result"])

    def _reply(self, id: str, reply: Callable[[Any], Any]) -> None:
        """Answers the server's request with what `reply` says of its parameters.

        A dict with "error" in it is an error, and ... no answer at all.
        """
        answer = reply(self.asked[-1][1])
        if answer is ...:
            return
        failed = isinstance(answer, dict) and "error" in answer
        body = {"id": id, **(answer if failed else {"result": answer})}
        asyncio.get_running_loop().call_soon(self.send, body)

    async def _drain(self) -> str:
        assert self.process.stderr is not None
        return (await self.process.stderr.read()).decode(errors="replace")


async def answered_at_once(answer: asyncio.Future[Any]) -> Any:
    """The answer, which must come long before any deadline."""
    return await asyncio.wait_for(answer, 3)


async def until(condition: Callable[[], object]) -> None:
    """Returns as soon as the condition holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)


# ---- what a client says ----


def did_open(uri: str, text: str, version: int = 1, language: str = "python") -> dict[str, Any]:
    item = {"uri": uri, "languageId": language, "version": version, "text": text}
    return {"method": "textDocument/didOpen", "params": {"textDocument": item}}


def did_change(uri: str, version: int, *changes: dict[str, Any]) -> dict[str, Any]:
    params = {"textDocument": {"uri": uri, "version": version}, "contentChanges": list(changes)}
    return {"method": "textDocument/didChange", "params": params}


def did_close(uri: str) -> dict[str, Any]:
    return {"method": "textDocument/didClose", "params": {"textDocument": {"uri": uri}}}


def position(line: int, character: int) -> dict[str, int]:
    return {"line": line, "character": character}


def span(line: int, start: int, end_line: int, end: int) -> dict[str, Any]:
    return {"start": position(line, start), "end": position(end_line, end)}


def insertion(line: int, character: int, text: str) -> dict[str, Any]:
    at = position(line, character)
    return {"range": {"start": at, "end": at}, "text": text}


def completion(
    uri: str, line: int, character: int, kind: int = AUTOMATIC, selected: Any = None
) -> tuple[str, dict[str, Any]]:
    """The method and the parameters of a request for a suggestion."""
    context = {"triggerKind": kind}
    if selected is not None:
        context["selectedCompletionInfo"] = selected
    return "textDocument/inlineCompletion", {
        "textDocument": {"uri": uri},
        "position": position(line, character),
        "context": context,
    }
