"""The bare client with the server in its own event loop: quick, and its insides can be seen."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from lsp_client import LspClient

from diffgemma_lsp.lsp.log import silence_messages
from diffgemma_lsp.lsp.stdio import Framing
from diffgemma_lsp.server import build_server
from diffgemma_lsp.session.engine import Engine
from diffgemma_lsp.settings.schema import Settings


class InProcessClient(LspClient):
    """Talks to a server without a process or a pipe between them."""

    def connect(self, make_engine: Callable[[Settings], Engine]) -> None:
        """Instead of `start`."""
        silence_messages()
        self._began = time.perf_counter()
        self.server = build_server(make_engine)
        self.server.rpc.set_writer(self)
        self._to_server, self._from_server = Framing(), Framing()

    def send_raw(self, data: bytes) -> None:
        for body in self._to_server.feed(data):
            self.server.rpc.receive(body)

    def write(self, data: bytes) -> None:
        """The server's writer."""
        for body in self._from_server.feed(data):
            self._hear(json.loads(body))

    def close(self) -> None:
        """The server's writer."""
