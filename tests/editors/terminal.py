"""A program in a terminal of its own: keys in, a screen out."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyte

ROWS, COLUMNS = 24, 88


class Terminal:
    """Runs a command behind a pseudo terminal and keeps what it draws."""

    def __init__(self, command: Sequence[str], cwd: Path, env: Mapping[str, str]) -> None:
        self.screen = pyte.Screen(COLUMNS, ROWS)
        self._stream = pyte.ByteStream(self.screen)
        self._lock = threading.Lock()
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self._process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**env, "TERM": "xterm-256color", "COLORTERM": "truecolor"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join(timeout=2)
        os.close(self._master)

    @property
    def running(self) -> bool:
        """Whether the program has not ended yet."""
        return self._process.poll() is None

    def type(self, keys: str) -> None:
        """Sends keys as a terminal would: \\x1b is Escape, \\t is Tab."""
        os.write(self._master, keys.encode())

    def lines(self) -> list[str]:
        """The screen as text, without the spaces at the ends of lines."""
        with self._lock:
            return [line.rstrip() for line in self.screen.display]

    def text(self) -> str:
        """The screen as one text."""
        return "\n".join(self.lines())

    def wait_for(self, condition: str | Callable[[str], bool], seconds: float = 20.0) -> str:
        """The screen as soon as it holds the text or meets the condition; else fails, with it."""
        met = (lambda shown: condition in shown) if isinstance(condition, str) else condition
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            shown = self.text()
            if met(shown):
                return shown
            time.sleep(0.03)
        wanted = condition if isinstance(condition, str) else "what was waited for"
        raise AssertionError(f"{wanted!r} did not come within {seconds} s:\n{self.text()}")

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._master, 65536)
            except OSError:
                return  # the program has ended, and its side of the terminal is closed
            if not data:
                return
            with self._lock:
                self._stream.feed(data)
