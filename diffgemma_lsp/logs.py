"""Where log lines go: stderr, and the client's log window. Never with a document's text in them."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from typing import Any

from engine import errors
from engine.errors import describe as describe  # for all that this package logs

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
