"""A real Neovim in a terminal, set up with the lines of its README: ghost text comes, Tab takes it.

`make test-editors` fetches Neovim; without one these tests are skipped, except where CI is set.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import install_neovim
import pytest
import stub_server
from install_neovim import CannotInstall, Neovim
from terminal import Terminal

ROOT = Path(__file__).resolve().parents[2]
STUB = [sys.executable, stub_server.__file__]
REAL = [sys.executable, "-m", "diffgemma_lsp"]

SOURCE = """\
def add(a, b):
    return None


print(add(1, 2))
"""


@pytest.fixture(scope="session")
def neovim() -> Neovim:
    try:
        if os.environ.get("INSTALL_EDITORS"):
            return install_neovim.install()
        found = install_neovim.find()
        if found:
            return found
        raise CannotInstall("not here; `make test-editors` fetches it")
    except CannotInstall as error:
        if os.environ.get("CI") and os.environ.get("INSTALL_EDITORS"):
            pytest.fail(f"Neovim {install_neovim.SERIES} is needed here: {error}")
        pytest.skip(f"Neovim {install_neovim.SERIES}: {error}")


def init_lua(server: list[str]) -> str:
    """The README's configuration, for this checkout and this server."""
    readme = (ROOT / "editors/neovim/README.md").read_text(encoding="utf-8")
    block = re.search(r"```lua\n(.*?)```", readme, re.DOTALL)
    assert block, "the README has lost its configuration"
    cmd = ", ".join(f"[[{part}]]" for part in server)
    return (
        block[1].replace("~/src/diffgemma-lsp", str(ROOT))
        + f"\nvim.lsp.config('diffgemma', {{ cmd = {{ {cmd} }} }})\n"
    )


@contextmanager
def editing(
    neovim: Neovim, folder: Path, server: list[str], text: str, env: dict[str, str] | None = None
) -> Iterator[Terminal]:
    """Neovim with the text as `sample.py`, its screen in a terminal."""
    (folder / "init.lua").write_text(init_lua(server))
    (folder / "sample.py").write_text(text)
    environment = {**os.environ, **neovim.env, "HOME": str(folder), "PYTHONPATH": str(ROOT)}
    environment |= {
        f"XDG_{kind}_HOME": str(folder) for kind in ("CONFIG", "DATA", "STATE", "CACHE")
    }
    environment |= env or {}
    # Editor and screen are started apart: one Neovim would start the other by its own path, which
    # for an unpacked one is that of its loader.
    editor = [*neovim.command, "--clean", "-n", "-u", "init.lua", "--headless"]
    editor += ["--listen", "./nvim.sock", "sample.py"]
    screen = [*neovim.command, "--server", "./nvim.sock", "--remote-ui"]
    process = subprocess.Popen(editor, cwd=folder, env=environment, stdin=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 20
        while not (folder / "nvim.sock").exists():
            assert time.monotonic() < end, "Neovim did not start"
            time.sleep(0.02)
        with Terminal(screen, folder, environment) as terminal:
            terminal.wait_for(text.partition("\n")[0])
            yield terminal
    finally:
        process.terminate()
        process.wait(timeout=10)


def ask(neovim: Neovim, folder: Path, expression: str) -> str:
    """What the running Neovim evaluates a Vim expression to."""
    done = subprocess.run(
        [*neovim.command, "--server", "./nvim.sock", "--remote-expr", expression],
        cwd=folder,
        env={**os.environ, **neovim.env},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout or done.stderr


def buffer(neovim: Neovim, folder: Path) -> str:
    """The text that is being edited."""
    return ask(neovim, folder, "join(getline(1, '$'), \"\\n\")").rstrip("\n") + "\n"


def wait_until_attached(terminal: Terminal, neovim: Neovim, folder: Path) -> None:
    count = (
        "luaeval('#vim.tbl_filter(function(c) return c.initialized end, vim.lsp.get_clients())')"
    )
    terminal.wait_for(lambda _: ask(neovim, folder, count).strip() == "1")


def test_the_configuration_works_with_any_server(neovim: Neovim, tmp_path: Path) -> None:
    with editing(neovim, tmp_path, STUB, SOURCE) as terminal:
        wait_until_attached(terminal, neovim, tmp_path)
        terminal.type("/None\rC")
        terminal.wait_for(f"return {stub_server.SUGGESTION}")
        assert stub_server.SUGGESTION not in buffer(neovim, tmp_path)
        terminal.type("\t")
        expected = SOURCE.replace("None", stub_server.SUGGESTION)
        terminal.wait_for(lambda _: buffer(neovim, tmp_path) == expected)


def test_tab_is_a_tab_without_a_suggestion(neovim: Neovim, tmp_path: Path) -> None:
    with editing(neovim, tmp_path, ["no-such-server"], SOURCE) as terminal:
        terminal.type("GO\tx")
        terminal.wait_for(lambda _: "    x\n" in buffer(neovim, tmp_path))
