"""What came of requests."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Generator

from lsprotocol.types import MessageType

from diffgemma_lsp.lsp.client import Client
from diffgemma_lsp.session.requests import Nothing
from engine.errors import EngineError

logger = logging.getLogger(__name__)


class Outcomes:
    """Why there was nothing to show, kept until somebody asks, and what is told.

    Reasons are kept by document and by method, because an editor asks for several things at every
    key, and what is asked for by itself must not hide why what the user asked for came to nothing.
    report: tells of an error of a document's engine, and is told whether the user asked for it.
    """

    def __init__(self, client: Client, report: Callable[[str, EngineError, bool], None]) -> None:
        self._client, self._report = client, report
        self._reasons: dict[str, dict[str, str]] = {}
        self.last_reason: str | None = None

    def open(self, uri: str) -> None:
        """From here on reasons are kept for this document; there are none yet."""
        self._reasons[uri] = {}

    def close(self, uri: str) -> None:
        """Forgets the document."""
        self._reasons.pop(uri, None)

    def reasons(self, uri: str) -> dict[str, str]:
        """Why each method last came to nothing, for those of which the last request did."""
        return dict(self._reasons.get(uri, {}))

    @contextlib.contextmanager
    def account(
        self, uri: str, method: str, asked: bool, tell: bool = False, aside: bool = False
    ) -> Generator[None]:
        """Ends its block where there is nothing to show, and keeps why; what is shown is noted too.

        asked: the user asked for it, so an error is told; tell: any other reason is told as well.
        aside: it is no suggestion, and its reason hides none of one.
        """
        came_to = self.note if aside else self.came_to
        try:
            yield
        except Nothing as reason:
            (self.tell if tell else came_to)(uri, method, str(reason))
        except EngineError as error:
            self._report(uri, error, asked)
            came_to(uri, method, str(error))
        else:
            came_to(uri, method, None)

    def tell(self, uri: str, method: str, reason: str) -> None:
        """Tells the user why what was asked for came to nothing."""
        self.came_to(uri, method, reason)
        self._client.show(MessageType.Info, reason)

    def came_to(self, uri: str, method: str, reason: str | None) -> None:
        """Notes what a request came to: nothing, for this reason, or something to show."""
        self.last_reason = reason
        self.note(uri, method, reason)
        if reason is not None:
            logger.debug("nothing shown: %s", reason)

    def note(self, uri: str, method: str, reason: str | None) -> None:
        """The same for this document alone."""
        # None are kept for what is not open: a client could ask for ever new documents.
        known = self._reasons.get(uri)
        if known is None:
            return
        if reason is None:
            known.pop(method, None)
        else:
            known[method] = reason
