"""A real Neovim to test with: its screen in a terminal, its state by a socket of its own."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from install import Program
from terminal import ROWS, Terminal

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60.0
"""For so long the tests wait: only a machine that is stuck takes longer."""

SERVER = (sys.executable, "-m", "diffgemma_lsp")

PROBE = Path(__file__).with_name("probe.lua")

FAKE = (sys.executable, str(ROOT / "tests" / "lsp" / "fake_server.py"))
"""The real server with an engine whose answers are written in the document."""


@dataclass(frozen=True)
class Session:
    """One running Neovim with one file."""

    folder: Path
    terminal: Terminal
    probe: BinaryIO

    def lua(self, expression: str) -> Any:
        """The value of a Lua expression, as JSON has it. Waits while Neovim asks for a key."""
        self.probe.write(expression.replace("\n", " ").encode() + b"\n")
        self.probe.flush()
        answer = json.loads(self.probe.readline())
        assert "error" not in answer, answer["error"]
        return answer["value"]

    def type(self, keys: str) -> None:
        """Sends keys: \\x1b is Escape, \\t is Tab."""
        self.terminal.type(keys)

    def buffer(self) -> str:
        """The text that is being edited."""
        return self.lua("probe.text()") + "\n"

    def ghost(self) -> str:
        """The ghost text that is shown; empty if there is none."""
        return self.lua("probe.ghost()")

    def preview(self) -> str:
        """What a preview shows below the text; empty if there is none."""
        return self.lua("probe.preview()")

    def messages(self) -> str:
        """All messages that were shown until now."""
        return self.lua("probe.messages()")

    def wait_until_attached(self) -> None:
        """Returns when the server has answered `initialize`."""
        self.wait_for(lambda: self.lua("probe.attached()") == 1)

    def wait_for(self, condition: str | Callable[[], object], seconds: float = PATIENCE_S) -> None:
        """Returns when the screen holds the text, or the condition is met; else fails."""
        if isinstance(condition, str):
            self.terminal.wait_for(condition, seconds)
        else:
            self.terminal.wait_for(lambda _: bool(condition()), seconds)


@contextmanager
def editing(
    nvim: Program,
    folder: Path,
    text: str,
    server: tuple[str, ...] = SERVER,
    env: dict[str, str] | None = None,
    config: str = "",
    rows: int = ROWS,
) -> Iterator[Session]:
    """Neovim with the text as `sample.py`, set up as its README says.

    config: more of `init.lua`.
    """
    (folder / "init.lua").write_text(f"{init_lua(server)}\n{config}\n")
    environment = {**os.environ, **nvim.env, "HOME": str(folder), "PYTHONPATH": str(ROOT)}
    environment |= {
        f"XDG_{kind}_HOME": str(folder) for kind in ("CONFIG", "DATA", "STATE", "CACHE")
    }
    with running(
        nvim, folder, text, environment | (env or {}), ("--clean", "-u", "init.lua"), rows
    ) as session:
        yield session


@contextmanager
def running(
    nvim: Program,
    folder: Path,
    text: str,
    environment: dict[str, str],
    arguments: tuple[str, ...],
    rows: int = ROWS,
) -> Iterator[Session]:
    """Neovim with the text as `sample.py` of the folder. arguments: more of its command line; what
    it reads has to load probe.lua."""
    (folder / "sample.py").write_text(text)
    # Editor and screen are started apart: one Neovim would start the other by its own path, which
    # for an unpacked one is that of its loader.
    editor = [*nvim.command, *arguments, "-n", "--headless"]
    editor += ["--listen", "./nvim.sock", "sample.py"]
    screen = [*nvim.command, "--server", "./nvim.sock", "--remote-ui"]
    with open(folder / "nvim.log", "wb") as log:
        process = subprocess.Popen(
            editor,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        with _connected(folder) as probe, Terminal(screen, folder, environment, rows) as terminal:
            terminal.wait_for(text.partition("\n")[0][:40], PATIENCE_S)
            yield Session(folder, terminal, probe)
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE_S)


@contextmanager
def _connected(folder: Path) -> Iterator[BinaryIO]:
    """The socket of probe.lua, as soon as it is there."""
    end = time.monotonic() + PATIENCE_S
    with socket.socket(socket.AF_UNIX) as probe:
        while True:
            try:
                probe.connect(str(folder / "probe.sock"))
                probe.settimeout(PATIENCE_S)
                break
            except OSError:
                assert time.monotonic() < end, (folder / "nvim.log").read_text()
                time.sleep(0.02)
        with probe.makefile("rwb") as stream:
            yield stream


def init_lua(server: tuple[str, ...]) -> str:
    """The README's configuration and keys, for this checkout and this server."""
    readme = (ROOT / "editors/neovim/README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```lua\n(.*?)```", readme, re.DOTALL)
    assert blocks, "the README has lost its configuration"
    cmd = ", ".join(f"[[{part}]]" for part in server)
    return "\n".join(
        [
            "vim.g.mapleader = ' '",
            *blocks,
            f"vim.lsp.config('diffgemma', {{ cmd = {{ {cmd} }} }})",
            # Patience for a machine that is busy with something else.
            "vim.lsp.config('diffgemma', { init_options = { automatic_budget_ms = 8000 } })",
            "vim.o.termguicolors = true",
            f"dofile([[{PROBE}]])",
        ]
    ).replace("~/src/diffgemma-lsp", str(ROOT))
