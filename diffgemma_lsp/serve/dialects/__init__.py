"""The APIs that clients speak, one file each: pure functions between their bodies and ours."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from diffgemma_lsp.serve.ask import Ask, Reply

Json = dict[str, Any]

EVENTS = "text/event-stream"
LINES = "application/x-ndjson"


@dataclass(frozen=True, slots=True)
class Dialect:
    """One API. read: raises BadRequest where the body makes no sense.

    speaks: whether a body on a path that several share is of this one.
    chunks: the objects of a stream, and media how they are sent.
    """

    name: str
    read: Callable[[Json], Ask]
    write: Callable[[Ask, Reply], Any]
    chunks: Callable[[Ask, Reply], Iterator[Json]]
    media: str = EVENTS
    done: str = "[DONE]"
    speaks: Callable[[Json], bool] = lambda body: True

    def lines(self, ask: Ask, reply: Reply) -> Iterator[str]:
        """The stream as text."""
        for chunk in self.chunks(ask, reply):
            yield f"data: {compact(chunk)}\n\n" if self.media == EVENTS else compact(chunk) + "\n"
        if self.media == EVENTS and self.done:
            yield f"data: {self.done}\n\n"


def compact(value: Any) -> str:
    """JSON on one line and without blanks: llama.vim finds no answer in any other."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
