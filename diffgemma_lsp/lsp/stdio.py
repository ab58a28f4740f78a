"""Messages over standard input and output.

A thread reads and notes when each message arrived; the event loop handles them in order. pygls's
own reader makes three trips to a thread pool for each message, and its pool keeps the process from
ending while a read is under way.

Another thread writes, so that a client that does not read never holds the loop up. Neither way is
without a bound: what the loop has not come to is not read from the client, and a client that leaves
too much unread is given up.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

logger = logging.getLogger(__name__)

LONGEST = 128 << 20
"""Bytes of a message. Nobody edits files of this size; what is longer is passed over."""

# Digits of a length that may be one. Python refuses to read numbers of thousands of them.
_DIGITS = 15
# So much of a message that is passed over is kept: its method, its id, its document.
_HEAD = 1 << 12
# No header is as long as this; in what has no header, only so much is looked at for one.
_HEADER = 1 << 16

AHEAD = 8 << 20
"""So many bytes are read ahead of what is handled, or one message if that is longer."""

UNREAD = 64 << 20
"""A client that leaves more bytes than these unread is gone, or as good as gone."""

# What a message costs beside its body while it waits.
_OVERHEAD = 1_024


class TooLong(NamedTuple):
    """A message that was passed over: how many bytes it has, and the first of them."""

    length: int
    head: bytes


class Framing:
    """Cuts a stream of bytes into messages. Headers that say nothing useful are skipped."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._length: int | None = None
        self._scanned = 0
        # Of a message that is passed over: bytes that are yet to come.
        self._left = 0

    def feed(self, data: bytes) -> Iterator[bytes | TooLong]:
        """The bodies of the messages that are complete with `data`, in their order.

        What is longer than LONGEST is reported as soon as its head is here, and never kept.
        """
        passed = min(self._left, len(data))
        self._left -= passed
        self._bytes += data[passed:]
        while True:
            if self._length is None:
                end = self._bytes.find(b"\r\n\r\n", max(self._scanned - 3, 0))
                if end < 0:
                    del self._bytes[:-_HEADER]  # garbage without an end is not kept
                    self._scanned = len(self._bytes)
                    return
                self._length = _content_length(bytes(self._bytes[:end]))
                del self._bytes[: end + 4]
                self._scanned = 0
            if self._length is not None and self._length > LONGEST:
                head = min(_HEAD, self._length)
                if len(self._bytes) < head:
                    return
                found = TooLong(self._length, bytes(self._bytes[:head]))
                self._left = max(0, self._length - len(self._bytes))
                del self._bytes[: self._length]
                self._length = None
                yield found
            elif self._length is not None:
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
        value = value.strip()
        if name.lower().endswith(b"content-length") and value.isdigit() and len(value) <= _DIGITS:
            return int(value)
    logger.warning("a message header without a usable Content-Length was skipped")
    return None


class Stdio:
    """Standard input and output, taken over: whoever else prints does so on stderr.

    at_end: called on the loop when the client is gone, in whichever direction.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, at_end: Callable[[], None]) -> None:
        self._loop, self._at_end = loop, at_end
        sys.stdout.flush()
        self._input, self._output = os.dup(0), os.dup(1)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)
        self._gone = False
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        # Each counted by one thread alone: bytes to be written, and bytes written.
        self._given = self._taken = 0
        # os.read and os.write, not sys.stdin and sys.stdout: a thread that dies holding the lock of
        # a buffered stream takes the interpreter's shutdown down with it.
        self._writer = threading.Thread(target=self._write_all, name="stdout", daemon=True)
        self._writer.start()

    def read(self, receive: Callable[[bytes | TooLong, float], None]) -> None:
        """Has `receive` called on the loop with each message and its time of arrival."""
        room = _Room(AHEAD)

        def handle(body: bytes | TooLong, arrived: float) -> None:
            room.leave(len(body) + _OVERHEAD)
            receive(body, arrived)

        def work() -> None:
            framing = Framing()
            try:
                while data := _read_some(self._input):
                    arrived = time.monotonic()
                    for body in framing.feed(data):
                        room.enter(len(body) + _OVERHEAD)
                        self._loop.call_soon_threadsafe(handle, body, arrived)
                self._loop.call_soon_threadsafe(self._at_end)
            except RuntimeError:
                return  # the loop is closed: there is nobody left to read for

        threading.Thread(target=work, name="stdin", daemon=True).start()

    def write(self, data: bytes) -> None:
        """Has one message written. On the loop."""
        if self._gone:
            return
        self._given += len(data)
        self._outbox.put(data)
        if self._given - self._taken > UNREAD:
            self._leave("it does not read what it is sent")

    def flush(self, wait_s: float) -> None:
        """Waits until all is written, but no longer than that. The last thing to be called."""
        self._outbox.put(None)
        self._writer.join(wait_s)

    def close(self) -> None:
        """pygls's writers can be closed; this one ends with the process."""

    def _write_all(self) -> None:
        try:
            while (data := self._outbox.get()) is not None:
                view = memoryview(data)
                while view and not self._gone:
                    view = view[os.write(self._output, view) :]
                self._taken += len(data)
        except OSError as error:
            reason = f"it does not listen any more: {error.strerror}"
            try:
                self._loop.call_soon_threadsafe(self._leave, reason)
            except RuntimeError:
                return  # the loop is closed, and the server with it

    def _leave(self, reason: str) -> None:
        if not self._gone:
            self._gone = True
            logger.warning("the client is given up: %s", reason)
            self._at_end()


class _Room:
    """So much that waits; whoever brings more waits too. One thread enters, another one leaves."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0
        self._change = threading.Condition()

    def enter(self, size: int) -> None:
        """Waits for the room. What is larger than all of it comes in alone."""
        with self._change:
            self._change.wait_for(lambda: not self._taken or self._taken + size <= self._most)
            self._taken += size

    def leave(self, size: int) -> None:
        """Gives the room back."""
        with self._change:
            self._taken -= size
            self._change.notify()


def _read_some(fd: int) -> bytes:
    try:
        return os.read(fd, 1 << 16)
    except OSError:
        return b""  # as good as the end
