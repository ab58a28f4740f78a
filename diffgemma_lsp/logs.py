"""Where log lines go: stderr, and the client's log window. Never with a document's text in them."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

_LEVELS = ((logging.ERROR, 1), (logging.WARNING, 2), (logging.INFO, 3), (logging.DEBUG, 4))

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


def set_up(to_client: ToClient) -> None:
    """Has this package's lines written to stderr, and sent to the client."""
    stderr = logging.StreamHandler(sys.stderr)
    stderr.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    own = logging.getLogger("diffgemma_lsp")
    own.handlers = [stderr, ClientLog(to_client)]
    own.setLevel(logging.INFO)
    own.propagate = False
    silence_messages()


def silence_messages() -> None:
    """Keeps those quiet who would log whole messages, and with them the documents."""
    for name in ("pygls", "httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def describe(error: BaseException) -> str:
    """What went wrong and where, without the error's own text, which might quote a document."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return type(error).__name__
    file = Path(trace.tb_frame.f_code.co_filename).name
    return f"{type(error).__name__} at {file}:{trace.tb_lineno}"


def unhandled(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """An error that nobody took, as one line: asyncio's own would have the callback's arguments,
    and with them messages. For `set_exception_handler`."""
    error: BaseException | None = context.get("exception")
    if isinstance(error, asyncio.InvalidStateError) and _raised_by_the_loop(error):
        # anyio, below the HTTP client, has the loop set a future when its socket can be read, even
        # one that was cancelled a moment before. Nobody waits for it any more.
        return
    message: str = context["message"]
    what = "nothing more is known" if error is None else describe(error)
    logger.error("unhandled: %s: %s", message.partition("(")[0], what)


def _raised_by_the_loop(error: BaseException) -> bool:
    """Whether the loop's own call failed, and not something within it."""
    trace = error.__traceback__
    return trace is not None and trace.tb_next is None
