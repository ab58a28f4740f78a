"""Where log lines go: stderr, and the client's log window. Never with a document's text in them."""

from __future__ import annotations

import asyncio
import logging
import queue
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from engine import errors
from engine.errors import describe as describe  # for all that this package logs

logger = logging.getLogger(__name__)

_LEVELS = ((logging.ERROR, 1), (logging.WARNING, 2), (logging.INFO, 3), (logging.DEBUG, 4))

MOST = 1_000
"""Lines that wait to be written to stderr."""

FLUSH_S = 0.2
"""So long the end of the process may wait for them."""

ToClient = Callable[[int, str], None]
"""Sends a line to the client's log, with the number that LSP has for its kind."""


class ClientLog(logging.Handler):
    """Passes the lines of this package on to the client, from INFO up."""

    def __init__(self, to_client: ToClient) -> None:
        super().__init__(logging.INFO)
        self._to_client = to_client

    def emit(self, record: logging.LogRecord) -> None:
        """Sends one line."""
        kind = next((kind for level, kind in _LEVELS if record.levelno >= level), 4)
        self._to_client(kind, record.getMessage())


class Aside(logging.Handler):
    """Has lines written by a thread, so that nobody waits for one who does not read them.

    What finds no more room is left out, and how much that was is said as soon as there is some.
    """

    def __init__(self, target: logging.Handler, most: int = MOST) -> None:
        super().__init__()
        self._target = target
        self._lines: queue.Queue[logging.LogRecord] = queue.Queue(most)
        self._left_out = 0
        threading.Thread(target=self._write_all, name="stderr", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Puts one line down to be written."""
        try:
            if self._left_out:
                self._lines.put_nowait(_left_out(record, self._left_out))
                self._left_out = 0
            self._lines.put_nowait(record)
        except queue.Full:
            self._left_out += 1

    def flush(self) -> None:
        """Waits until all is written, but no longer than FLUSH_S."""
        end = time.monotonic() + FLUSH_S
        while self._lines.unfinished_tasks and time.monotonic() < end:
            time.sleep(0.005)

    def _write_all(self) -> None:
        while True:
            self._target.handle(self._lines.get())
            self._lines.task_done()


def _left_out(record: logging.LogRecord, count: int) -> logging.LogRecord:
    said = f"{count} lines were left out: nobody reads them"
    return logging.LogRecord(record.name, logging.WARNING, record.pathname, 0, said, None, None)


def set_up(to_client: ToClient) -> None:
    """Has this package's lines written to stderr, and sent to the client."""
    written = logging.StreamHandler(sys.stderr)
    written.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    stderr = Aside(written)
    own = logging.getLogger("diffgemma_lsp")
    own.handlers = [stderr, ClientLog(to_client)]
    own.setLevel(logging.INFO)
    own.propagate = False
    silence_messages()


def silence_messages() -> None:
    """Keeps those quiet who would log whole messages, and with them the documents."""
    for name in ("pygls", "httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def unhandled(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Logs an error of the event loop that nobody took. For `set_exception_handler`."""
    error: BaseException | None = context.get("exception")
    if isinstance(error, asyncio.InvalidStateError) and _raised_by_the_loop(error):
        # anyio, below the HTTP client, has the loop set a future when its socket can be read, even
        # one that was cancelled a moment before. Nobody waits for it any more.
        return
    logger.error("%s", errors.unhandled(context))


def _raised_by_the_loop(error: BaseException) -> bool:
    """Whether the loop's own call failed, and not something within it."""
    trace = error.__traceback__
    return trace is not None and trace.tb_next is None
