"""A real Neovim in a terminal, set up with the lines of its README."""

from __future__ import annotations

import sys
from pathlib import Path

import stub_server
from install import Program
from neovim import FAKE, editing

STUB = (sys.executable, str(stub_server.__file__))

SOURCE = """\
def add(a, b):
    return None


print(add(1, 2))
"""


def test_the_configuration_works_with_any_server(nvim: Program, tmp_path: Path) -> None:
    with editing(nvim, tmp_path, SOURCE, STUB) as session:
        session.wait_until_attached()
        session.type("/None\rC")
        session.wait_for(f"return {stub_server.SUGGESTION}")
        assert session.ghost() == stub_server.SUGGESTION
        assert stub_server.SUGGESTION not in session.buffer()
        session.type("\t")
        expected = SOURCE.replace("None", stub_server.SUGGESTION)
        session.wait_for(lambda: session.buffer() == expected)


REWRITTEN = "width * height\\n    # and more"
SHAPES = f"""\
# fake: {{"text": "base = {REWRITTEN}"}}
def area(width, height):
    base = width + height
    return base
"""


def test_a_code_action_is_one_undo_step(nvim: Program, tmp_path: Path) -> None:
    with editing(nvim, tmp_path, SHAPES, FAKE) as session:
        session.wait_until_attached()
        session.type("3GVgra")
        chosen = "Rewrite selection"
        shown = session.terminal.wait_for(chosen)
        (line,) = [line for line in shown.splitlines() if chosen in line]
        session.type(line.strip()[0] + "\r")
        first, rest = SHAPES.split("\n", 1)
        new = REWRITTEN.replace("\\n", "\n")
        expected = f"{first}\n{rest.replace('width + height', new)}"
        session.wait_for(lambda: session.buffer() == expected)
        session.type("\x1bu")
        session.wait_for(lambda: session.buffer() == SHAPES)


def test_commands(nvim: Program, tmp_path: Path) -> None:
    text = '# fake: {"text": " + 2"}\ndef wider(width):\n    return (width)\n'
    with editing(nvim, tmp_path, text, FAKE) as session:
        session.wait_until_attached()
        session.type("3G$:Diffgemma! fill\r")
        # A cursor in normal mode stands on a character, and what is filled goes before it.
        expected = text.replace("width)\n", "width + 2)\n")
        session.wait_for(lambda: session.buffer() == expected)
        session.type(":Diffgemma status\r")
        session.wait_for("diffgemma: ready (fake)")
        session.type(":Diffgemma\r")
        session.wait_for(":Diffgemma takes one of: body, docstring, fill, ")
        session.type("\r:Diffgemma nonsense\r")
        session.wait_for('there is no "nonsense"; :Diffgemma takes one of: body, ')
        session.type("\r")
        assert session.messages().count("diffgemma: ready (fake)") == 2
        session.type(":Diffgemma unload\r")
        session.wait_for(lambda: session.lua("probe.status().state") == "idle")
        names = set(session.lua("vim.fn.getcompletion('Diffgemma ', 'cmdline')"))
        assert names >= {"rewrite", "holes", "status", "off", "on", "restart", "unload"}
