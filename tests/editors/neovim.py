"""A real Neovim to test with: its screen in a terminal, its state by remote expressions."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from install_neovim import Neovim
from terminal import Terminal

ROOT = Path(__file__).resolve().parents[2]
SERVER = (sys.executable, "-m", "diffgemma_lsp")


@dataclass(frozen=True)
class Session:
    """One running Neovim with one file."""

    nvim: Neovim
    folder: Path
    terminal: Terminal

    def ask(self, name: str) -> str:
        """What one of the functions of probe.lua returns."""
        command = [*self.nvim.command, "--server", "./nvim.sock"]
        done = subprocess.run(
            [*command, "--remote-expr", f"luaeval('probe.{name}()')"],
            cwd=self.folder,
            env={**os.environ, **self.nvim.env},
            capture_output=True,
            text=True,
            check=True,
        )
        # Not always the same of the two, and always without a line end of its own.
        return done.stdout or done.stderr

    def buffer(self) -> str:
        """The text that is being edited."""
        return self.ask("text") + "\n"

    def ghost(self) -> str:
        """The ghost text that is shown; empty if there is none."""
        return self.ask("ghost")

    def wait_until_attached(self) -> None:
        """Returns when the server has answered `initialize`."""
        self.wait_for(lambda: self.ask("attached") == "1")

    def wait_for(self, condition: str | Callable[[], object], seconds: float = 20.0) -> None:
        """Returns when the screen holds the text, or the condition is met; else fails."""
        if isinstance(condition, str):
            self.terminal.wait_for(condition, seconds)
        else:
            self.terminal.wait_for(lambda _: bool(condition()), seconds)


@contextmanager
def editing(
    nvim: Neovim,
    folder: Path,
    text: str,
    server: tuple[str, ...] = SERVER,
    env: dict[str, str] | None = None,
) -> Iterator[Session]:
    """Neovim with the text as `sample.py`, set up as its README says."""
    (folder / "init.lua").write_text(init_lua(server))
    (folder / "sample.py").write_text(text)
    environment = {**os.environ, **nvim.env, "HOME": str(folder), "PYTHONPATH": str(ROOT)}
    environment |= {
        f"XDG_{kind}_HOME": str(folder) for kind in ("CONFIG", "DATA", "STATE", "CACHE")
    }
    environment |= env or {}
    # Editor and screen are started apart: one Neovim would start the other by its own path, which
    # for an unpacked one is that of its loader.
    editor = [*nvim.command, "--clean", "-n", "-u", "init.lua", "--headless"]
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
        end = time.monotonic() + 20
        while not (folder / "nvim.sock").exists():
            assert time.monotonic() < end, "Neovim did not start"
            time.sleep(0.02)
        with Terminal(screen, folder, environment) as terminal:
            terminal.wait_for(text.partition("\n")[0])
            yield Session(nvim, folder, terminal)
    finally:
        process.terminate()
        process.wait(timeout=10)


def init_lua(server: tuple[str, ...]) -> str:
    """The README's configuration, for this checkout and this server."""
    readme = (ROOT / "editors/neovim/README.md").read_text(encoding="utf-8")
    block = re.search(r"```lua\n(.*?)```", readme, re.DOTALL)
    assert block, "the README has lost its configuration"
    cmd = ", ".join(f"[[{part}]]" for part in server)
    return "\n".join(
        [
            block[1].replace("~/src/diffgemma-lsp", str(ROOT)),
            f"vim.lsp.config('diffgemma', {{ cmd = {{ {cmd} }} }})",
            # Patience for a machine that is busy with something else.
            "vim.lsp.config('diffgemma', { init_options = { automatic_budget_ms = 8000 } })",
            "vim.o.termguicolors = true",
            f"dofile([[{Path(__file__).with_name('probe.lua')}]])",
        ]
    )
