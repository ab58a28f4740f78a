"""A program in a terminal of its own: keys in, a screen out."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path

import pyte
from rich.style import Style
from rich.text import Text

ROWS, COLUMNS = 24, 88


class _Screen(pyte.Screen):
    """Takes the private forms of requests, which pyte reads but does not expect."""

    def report_device_status(self, mode: int, **kwargs: bool) -> None:
        if not kwargs:
            super().report_device_status(mode)


class Terminal:
    """Runs a command behind a pseudo terminal and keeps what it draws."""

    def __init__(
        self, command: Sequence[str], cwd: Path, env: Mapping[str, str], rows: int = ROWS
    ) -> None:
        self.screen = _Screen(COLUMNS, rows)
        self._stream = pyte.ByteStream(self.screen)
        self._lock = threading.Lock()
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, COLUMNS, 0, 0))
        # What opens a terminal first in a new session has it as its own, as some programs want.
        opened = f'exec "$0" "$@" <>{os.ttyname(slave)} >&0 2>&0'
        self._process = subprocess.Popen(
            ["sh", "-c", opened, *command],
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

    def picture(self) -> Text:
        """The screen with its colours, on whatever ground the picture has."""
        with self._lock:
            rows = [
                [self.screen.buffer[y][x] for x in range(COLUMNS)] for y in range(self.screen.lines)
            ]
        # Cells that were never drawn have no colour; those that were have the program's own.
        drawn = Counter(cell.bg for row in rows for cell in row if cell.bg != "default")
        ground = {"default", *(colour for colour, _ in drawn.most_common(1))}
        lines = [
            Text.assemble(
                *(
                    ("".join(cell.data for cell in cells), style)
                    for style, cells in groupby(row, key=lambda cell: _style(cell, ground))
                )
            )
            for row in rows
        ]
        return Text("\n").join(lines)

    def wait_for(self, condition: str | Callable[[str], bool], seconds: float = 60.0) -> str:
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

    def press_until(self, keys: str, text: str, back: str = "\x1b") -> None:
        """Types keys until the screen holds the text: a server may not be there yet. back: the keys
        that undo an attempt which came to nothing."""
        for _ in range(12):
            self.type(keys)
            try:
                self.wait_for(text, 5.0)
            except AssertionError:
                self.type(back)
            else:
                return
        raise AssertionError(f"{text!r} did not come:\n{self.text()}")

    def save_until(self, keys: str, file: Path, expected: str) -> None:
        """Types the keys that save until the file is as expected: a busy machine loses some. For a
        moment it may be gone, where an editor puts a new one in its place."""
        for _ in range(12):
            self.type(keys)
            try:
                self.wait_for(lambda _: file.exists() and file.read_text() == expected, 5.0)
            except AssertionError:
                continue
            return
        assert file.read_text() == expected, self.text()

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


def _style(character: pyte.screens.Char, ground: set[str]) -> Style:
    return Style(
        color=_colour(character.fg),
        bgcolor=None if character.bg in ground else _colour(character.bg),
        bold=character.bold,
        italic=character.italics,
        underline=character.underscore,
        reverse=character.reverse,
    )


def _colour(name: str) -> str | None:
    """pyte's name of a colour as rich's: six hexadecimal digits, or a name of the palette."""
    if name == "default":
        return None
    if re.fullmatch("[0-9a-fA-F]{6}", name):
        return f"#{name}"
    return name.replace("brown", "yellow").replace("bright", "bright_")
