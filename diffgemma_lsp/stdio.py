"""Messages over standard input and output.

A thread reads and notes when each message arrived; the event loop handles them in order. pygls's
own reader makes three trips to a thread pool for each message, and its pool keeps the process from
ending while a read is under way.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

logger = logging.getLogger(__name__)

# Nobody edits files of this size; a length like that is garbage.
_LONGEST = 1 << 30


class Framing:
    """Cuts a stream of bytes into messages. Headers that say nothing useful are skipped."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._length: int | None = None
        self._scanned = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The bodies of the messages that are complete with `data`."""
        self._bytes += data
        while True:
            if self._length is None:
                end = self._bytes.find(b"\r\n\r\n", max(self._scanned - 3, 0))
                if end < 0:
                    self._scanned = len(self._bytes)
                    return
                self._length = _content_length(bytes(self._bytes[:end]))
                del self._bytes[: end + 4]
                self._scanned = 0
            if self._length is not None:
                if len(self._bytes) < self._length:
                    return
                body = bytes(self._bytes[: self._length])
                del self._bytes[: self._length]
                self._length = None
                yield body


def _content_length(header: bytes) -> int | None:
    for line in header.split(b"\r\n"):
        name, _, value = line.partition(b":")
        # Garbage may stand before the name, where the rest of a broken message was left.
        if name.lower().endswith(b"content-length") and value.strip().isdigit():
            length = int(value)
            if length <= _LONGEST:
                return length
    logger.warning("a message header without a usable Content-Length was skipped")
    return None


class Stdio:
    """Standard input and output, taken over: whoever else prints does so on stderr.

    at_end: called on the loop when the client is gone, in whichever direction.
    """

    def __init__(self, at_end: Callable[[], None]) -> None:
        self._at_end = at_end
        sys.stdout.flush()
        self._input, self._output = os.dup(0), os.dup(1)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)
        self._gone = False

    def read(
        self, loop: asyncio.AbstractEventLoop, receive: Callable[[bytes, float], None]
    ) -> None:
        """Has `receive` called on the loop with each message and its time of arrival."""

        def work() -> None:
            framing = Framing()
            try:
                while data := _read_some(self._input):
                    arrived = time.monotonic()
                    for body in framing.feed(data):
                        loop.call_soon_threadsafe(receive, body, arrived)
                loop.call_soon_threadsafe(self._at_end)
            except RuntimeError:
                return  # the loop is closed: there is nobody left to read for

        # os.read and not sys.stdin: a thread that dies holding the lock of a buffered stream takes
        # the interpreter's shutdown down with it.
        threading.Thread(target=work, name="stdin", daemon=True).start()

    def write(self, data: bytes) -> None:
        """Writes one message."""
        view = memoryview(data)
        try:
            while view and not self._gone:
                view = view[os.write(self._output, view) :]
        except OSError as error:
            self._gone = True
            logger.warning("the client does not listen any more (%s)", error.strerror)
            self._at_end()

    def close(self) -> None:
        """pygls's writers can be closed; this one ends with the process."""


def _read_some(fd: int) -> bytes:
    try:
        return os.read(fd, 1 << 16)
    except OSError:
        return b""  # as good as the end
