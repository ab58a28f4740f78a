"""A language server that suggests the same text everywhere: tests the harness, not the product."""

from __future__ import annotations

import json
import sys
from typing import Any

SUGGESTION = "a + b  # from the stub"


def read() -> dict[str, Any] | None:
    """The next message; None at the end of input."""
    length = 0
    while line := sys.stdin.buffer.readline().strip():
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return json.loads(sys.stdin.buffer.read(length)) if length else None


def answer(message: dict[str, Any]) -> None:
    """Answers a request; says nothing to a notification."""
    if "id" not in message or "method" not in message:
        return
    results: dict[str, Any] = {
        "initialize": {
            "capabilities": {
                "positionEncoding": "utf-8",
                "textDocumentSync": 2,
                "inlineCompletionProvider": True,
            }
        },
        "textDocument/inlineCompletion": [{"insertText": SUGGESTION}],
    }
    result = results.get(message["method"])
    body = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode()
    sys.stdout.buffer.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    while (received := read()) and received.get("method") != "exit":
        answer(received)
