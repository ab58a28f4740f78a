"""Where log lines go: stderr, and the client's log window. Never with a document's text in them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path

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
