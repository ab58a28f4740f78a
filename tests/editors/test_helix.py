"""A real Helix with the configuration of its page: a completion, a rewrite, holes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from install import Program
from neovim import FAKE, SERVER
from readme import HOLES, ROOT, TEXT, a_place, blocks
from terminal import Terminal

from diffgemma_lsp.setup.editors import BY_NAME


@contextmanager
def editing(
    helix: Program,
    folder: Path,
    text: str,
    server: tuple[str, ...] = SERVER,
    env: dict[str, str] | None = None,
) -> Iterator[Terminal]:
    """Helix with the text as `sample.py`."""
    program, *arguments = server
    command = f"command = {json.dumps(program)}\nargs = {json.dumps(arguments)}"
    config = blocks("helix", "toml")[0].replace('command = "diffgemma-lsp"', command)
    # Patience for a machine that is busy with something else.
    config += "\n[language-server.diffgemma.config]\nautomatic_budget_ms = 8000\n"
    with running(helix, folder, text, config, env) as terminal:
        yield terminal


@contextmanager
def running(
    helix: Program, folder: Path, text: str, config: str, env: dict[str, str] | None = None
) -> Iterator[Terminal]:
    """Helix with the text as `sample.py`. config: its languages.toml."""
    (folder / "helix").mkdir()
    (folder / "helix" / "languages.toml").write_text(config)
    (folder / "sample.py").write_text(text)
    environment = {**os.environ, **helix.env, "HOME": str(folder), "PYTHONPATH": str(ROOT)}
    environment |= {f"XDG_{kind}_HOME": str(folder) for kind in ("CONFIG", "CACHE")}
    environment |= env or {}
    with Terminal([*helix.command, "sample.py"], folder, environment) as terminal:
        terminal.wait_for(text.partition("\n")[0])
        yield terminal


def saved(terminal: Terminal, folder: Path, expected: str) -> None:
    """Returns when the document is as expected, and on the disk. Not in insert mode."""
    terminal.save_until(":w!\r", folder / "sample.py", expected)


def test_completion_and_actions(helix: Program, tmp_path: Path) -> None:
    with editing(helix, tmp_path, TEXT, FAKE) as terminal:
        # A menu is there as soon as there is a server. A second x would take the next line along.
        terminal.press_until("3Gx a", "Rewrite selection", back="\x1b;gg")
        terminal.type("\r")
        rewritten = TEXT.replace("base = width + height", "width * height")
        saved(terminal, tmp_path, rewritten)
        terminal.press_until("u", "base = width + height", back="")
        saved(terminal, tmp_path, TEXT)
        terminal.press_until("4Gx a", "Fill all holes", back="\x1b;gg")
        terminal.type("\x0e\r")  # the one below it
        filled = TEXT.replace("...", "width * height")
        saved(terminal, tmp_path, filled)
        terminal.type("5GAw")
        terminal.press_until("\x18", "wwidth * height", back="")
        terminal.type("\t\r")
        terminal.type("\x1b")
        terminal.wait_for(" NOR ")
        saved(terminal, tmp_path, filled.replace("return ", "return wwidth * height"))


def test_as_setup_leaves_it(helix: Program, tmp_path: Path) -> None:
    place = a_place(tmp_path, FAKE)
    ((path, edit),) = BY_NAME["helix"].setup(place).files.items()
    assert path == tmp_path / "helix" / "languages.toml"
    # A server that was there first goes on being asked.
    mine = '[[language]]\nname = "python"\nlanguage-servers = ["mine"]\n'
    mine += f'[language-server.mine]\ncommand = "{sys.executable}"\n'
    mine += """args = ["-c", "open('asked', 'w')"]\n"""
    with running(helix, tmp_path, TEXT, edit.put(mine)) as terminal:
        terminal.press_until("3Gx a", "Rewrite selection", back="\x1b;gg")
        terminal.type("\r")
        saved(terminal, tmp_path, TEXT.replace("base = width + height", "width * height"))
        assert (tmp_path / "asked").exists()


def test_holes_with_nano(helix: Program, warm_engine: dict[str, str], tmp_path: Path) -> None:
    with editing(helix, tmp_path, HOLES, env=warm_engine) as terminal:
        terminal.press_until("% a", "Fill all holes")
        terminal.type("\x0e\r")
        terminal.wait_for(lambda shown: "..." not in shown)
        terminal.type("u")
        terminal.wait_for(lambda shown: shown.count("...") == 2)
