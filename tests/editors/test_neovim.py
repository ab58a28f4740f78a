"""A real Neovim in a terminal, set up with the lines of its README: ghost text comes, Tab takes it.

`make test-editors` fetches Neovim; without one these tests are skipped, except where CI is set.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import install
import pytest
import stub_server
from install import CannotInstall, Program
from neovim import Session, editing

ROOT = Path(__file__).resolve().parents[2]
STUB = (sys.executable, str(stub_server.__file__))
# The real server with an engine whose answers are written in the document.
FAKE = (sys.executable, str(ROOT / "tests" / "lsp" / "fake_server.py"))

# Where to look for a suggestion in a file of this repository: the text from here to the end of its
# line is taken away and begun again, as someone would who wants to write it anew. Where something
# was only deleted, nothing is suggested.
REAL_FILE = ROOT / "diffgemma_lsp" / "commands" / "source.py"
PLACES = (
    "self.line",
    "Position(len",
    "starts[at",
    "length + 1:",
    "_LINE_END.search",
    "data.decode",
)

SOURCE = """\
def add(a, b):
    return None


print(add(1, 2))
"""


@pytest.fixture(scope="session")
def nvim() -> Program:
    required = bool(os.environ.get("INSTALL_EDITORS"))
    try:
        found = install.install("neovim") if required else install.find("neovim")
        if found:
            return found
        raise CannotInstall("not here; `make test-editors` fetches it")
    except CannotInstall as error:
        if required and os.environ.get("CI"):
            pytest.fail(f"Neovim {install_neovim.SERIES} is needed here: {error}")
        pytest.skip(f"Neovim {install_neovim.SERIES}: {error}")


def test_the_configuration_works_with_any_server(nvim: Program, tmp_path: Path) -> None:
    with editing(nvim, tmp_path, SOURCE, STUB) as session:
        session.wait_until_attached()
        session.terminal.type("/None\rC")
        session.wait_for(f"return {stub_server.SUGGESTION}")
        assert session.ghost() == stub_server.SUGGESTION
        assert stub_server.SUGGESTION not in session.buffer()
        session.terminal.type("\t")
        expected = SOURCE.replace("None", stub_server.SUGGESTION)
        session.wait_for(lambda: session.buffer() == expected)


def test_tab_is_a_tab_without_a_suggestion(nvim: Program, tmp_path: Path) -> None:
    with editing(nvim, tmp_path, SOURCE, ("no-such-server",)) as session:
        session.terminal.type("GO\tx")
        session.wait_for(lambda: "    x\n" in session.buffer())


REWRITTEN = "width * height\\n    # and more"
SHAPES = f"""\
# fake: {{"text": "base = {REWRITTEN}"}}
def area(width, height):
    base = width + height
    return base
"""


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param("3GVgra", id="the code action"),
        pytest.param("3GV:Diffgemma! rewrite\r", id="the command"),
    ],
)
def test_a_rewrite_is_one_undo_step(nvim: Program, tmp_path: Path, keys: str) -> None:
    with editing(nvim, tmp_path, SHAPES, FAKE) as session:
        session.wait_until_attached()
        session.terminal.type(keys)
        if "gra" in keys:
            chosen = "Rewrite selection"
            shown = session.terminal.wait_for(chosen)
            (line,) = [line for line in shown.splitlines() if chosen in line]
            session.terminal.type(line.strip()[0] + "\r")
        first, rest = SHAPES.split("\n", 1)
        new = REWRITTEN.replace("\\n", "\n")
        expected = f"{first}\n{rest.replace('width + height', new)}"
        session.wait_for(lambda: session.buffer() == expected)
        session.terminal.type("\x1bu")
        session.wait_for(lambda: session.buffer() == SHAPES)


def test_without_a_server_the_command_says_so(nvim: Program, tmp_path: Path) -> None:
    with editing(nvim, tmp_path, SHAPES, ("no-such-server",)) as session:
        session.terminal.type(":Diffgemma status\r")
        session.wait_for("no server for this buffer")


def test_the_server_can_be_asked(nvim: Program, tmp_path: Path) -> None:
    with editing(nvim, tmp_path, SHAPES, FAKE) as session:
        session.wait_until_attached()
        session.terminal.type(":Diffgemma status\r")
        session.wait_for("diffgemma: ready, ready")
        session.terminal.type("\r2G$:Diffgemma! fill\r")
        first, head, rest = SHAPES.split("\n", 2)
        filling = "base = width * height\n    # and more"
        # A cursor in normal mode stands on a character, and what is filled goes before it.
        expected = f"{first}\n{head[:-1]}{filling}{head[-1:]}\n{rest}"
        session.wait_for(lambda: session.buffer() == expected)
        session.terminal.type(":Diffgemma nonsense\r")
        session.wait_for('there is no "nonsense"')
        session.terminal.type(":Diffgemma unload\r:Diffgemma status\r")
        session.wait_for("diffgemma: idle")


def test_ghost_text_of_the_real_server(
    nvim: Program, real_engine: dict[str, str], tmp_path: Path
) -> None:
    text = REAL_FILE.read_text(encoding="utf-8")
    with editing(nvim, tmp_path, text, env=real_engine) as session:
        session.wait_until_attached()
        warm = [sys.executable, "-m", "diffgemma_lsp", "fill", "-", "--at", "1:1"]
        subprocess.run(warm, env=real_engine, input=b"\n", stdout=subprocess.DEVNULL, check=True)
        place = next(place for place in PLACES if appears(session, place))
        ghost = session.ghost()
        before, _, after = text.partition(place)
        after = after.partition("\n")[2]
        before += place[0]
        assert session.buffer() == f"{before}\n{after}", "ghost text is not text yet"
        print(session.terminal.text())
        session.terminal.type("\t")
        expected = f"{before}{ghost}\n{after}"
        session.wait_for(lambda: session.buffer() == expected)


def appears(session: Session, place: str) -> bool:
    """Begins the text at a place anew; whether a suggestion for it comes. Undone if none does."""
    session.terminal.type(f"gg/\\V{place}\rC{place[0]}")
    try:
        session.wait_for(lambda: session.ghost().strip(), 9)
    except AssertionError:
        session.terminal.type("\x1bu")
        return False
    return True
