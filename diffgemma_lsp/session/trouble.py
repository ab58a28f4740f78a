"""What is wrong with the engine, and what of it the user has been told."""

from __future__ import annotations

import logging

from lsprotocol.types import MessageType

from diffgemma_lsp.lsp.client import Client
from diffgemma_lsp.session.loading import LOADED, Ask
from diffgemma_lsp.session.requests import Requests
from engine.errors import (
    Cancelled,
    DeadlineExceeded,
    EngineError,
    EngineUnavailable,
    ModelError,
    OutOfMemory,
    describe,
)

logger = logging.getLogger(__name__)


class Trouble:
    """The trouble of one session with its engine; whoever sees the engine work ends it.

    last_error: the one that holds now. missed: requests in a row for which the engine, with its
    model loaded, had nothing in time. ask: gives what the engine says of itself. whose: what
        messages begin with, if there are several engines.
    """

    def __init__(self, requests: Requests, client: Client, ask: Ask, whose: str = "") -> None:
        self.last_error: EngineError | None = None
        self.missed = 0
        self._requests, self._client, self._ask = requests, client, ask
        self._whose = whose

    def report(self, error: EngineError, invoked: bool = False) -> None:
        """Tells the user of an error of the engine: once, until it changes or the engine works.

        What the user asked for is never met with silence, so an `invoked` one is always told.
        """
        late = isinstance(error, Cancelled | DeadlineExceeded)  # nothing is broken
        if isinstance(error, DeadlineExceeded):
            self._requests.spawn(self._miss())
        if late and not invoked:
            return
        known = self.last_error is not None and self.last_error.code == error.code
        if not late:
            self.last_error = error
        logger.warning("%s: %s", error.code, error)
        self._requests.at_change()
        if invoked or not known:
            self._client.show(MessageType.Error, f"{self._whose}{error}")

    async def _miss(self) -> None:
        """Counts a missed deadline, unless the engine has a reason: it is starting or loading."""
        status = await self._ask() or {}
        if status.get("state") in LOADED:
            self.missed += 1
            self._requests.at_change()


def still(error: EngineError | None) -> EngineError | None:
    """What is left of an error once there is an engine with its model: nothing, if it said that
    there is none. A request may still be too large for it."""
    gone = isinstance(error, ModelError | EngineUnavailable) and not isinstance(error, OutOfMemory)
    return None if gone else error


def unexpected(error: Exception) -> EngineError:
    """What is told of an error that nobody foresaw."""
    return EngineError(f"internal error ({describe(error)}): please report it")
