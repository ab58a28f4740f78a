"""How long the server ever holds its event loop up, over everything that tests have it do.

Measured is the time of the loop's own thread at work, not that of a clock on the wall, so that a
machine under load makes no difference: what a callback of the server takes, or one message. The
collection of garbage is left out: in a process of tests there is a lot to look through.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from diffgemma_lsp.lsp.rpc import Protocol

MOST_S = 0.1
"""No callback of the server, and no message, may take longer."""

_PACKAGE = "diffgemma_lsp"


class Heartbeat:
    """The longest that was seen since `begin`: how long, and what it was."""

    def __init__(self) -> None:
        self.longest_s, self.what = 0.0, ""
        self._busy = False
        self._collected_s = self._collecting = 0.0

    def begin(self) -> None:
        """From here on it counts anew."""
        self.longest_s, self.what = 0.0, ""

    def measured(self, what: str, work: Callable[[], Any]) -> Any:
        """The result of `work`, which is a piece of the server's."""
        if self._busy:
            return work()
        self._busy = True
        collected, began = self._collected_s, time.thread_time()
        try:
            return work()
        finally:
            took = time.thread_time() - began - (self._collected_s - collected)
            self._busy = False
            if took > self.longest_s:
                self.longest_s, self.what = took, what

    def collect(self, phase: str, info: dict[str, int]) -> None:
        """For gc.callbacks."""
        now = time.thread_time()
        if phase == "start":
            self._collecting = now
        else:
            self._collected_s += now - self._collecting


def _of_the_server(callback: Any) -> str | None:
    """The name of a callback that the server's code is; None of any other."""
    task = getattr(callback, "__self__", None)
    if isinstance(task, asyncio.Task):
        coroutine: Any = task.get_coro()
        code = getattr(coroutine, "cr_code", None)
        inside = code is not None and f"/{_PACKAGE}/" in code.co_filename
        return coroutine.__qualname__ if inside else None
    while hasattr(callback, "func"):
        callback = callback.func  # a partial's
    module = getattr(callback, "__module__", None) or ""
    return callback.__qualname__ if module.partition(".")[0] == _PACKAGE else None


@contextmanager
def listening() -> Generator[Heartbeat]:
    """All loops of this process are listened to."""
    heart = Heartbeat()
    run, receive = asyncio.Handle._run, Protocol.receive

    def heard_run(handle: Any) -> None:
        what = _of_the_server(handle._callback)
        if what is None:
            run(handle)
        else:
            heart.measured(what, lambda: run(handle))

    def heard_receive(self: Protocol, body: Any, arrived: float | None = None) -> None:
        heart.measured("a message", lambda: receive(self, body, arrived))

    asyncio.Handle._run, Protocol.receive = heard_run, heard_receive  # pyright: ignore
    gc.callbacks.append(heart.collect)
    try:
        yield heart
    finally:
        gc.callbacks.remove(heart.collect)
        asyncio.Handle._run, Protocol.receive = run, receive  # pyright: ignore
