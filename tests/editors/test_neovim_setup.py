"""A real Neovim as `diffgemma-lsp setup` leaves it, in a home that was empty."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from install import Program
from neovim import FAKE, PROBE, ROOT, Session, running
from test_neovim_suggestions import PLACES, REAL_FILE, appears

WRITTEN = ".config/nvim/after/plugin/diffgemma.lua"

PATIENCE = "lua vim.lsp.config('diffgemma', { init_options = { automatic_budget_ms = 8000 } })"
"""For a machine that is busy with something else."""

STARTED = ("--cmd", PATIENCE, "-c", f"luafile {PROBE}")

TEXT = '# fake: {"text": "alpha + beta"}\ndef add(alpha, beta):\n    return\n'


def new_user(home: Path, nvim: Program, env: dict[str, str] | None = None) -> dict[str, str]:
    """The environment of someone whose programs lie in ~/.local/bin."""
    programs = home / ".local" / "bin"
    programs.mkdir(parents=True)
    found = {**os.environ, **nvim.env, **(env or {})}
    found = {name: text for name, text in found.items() if not name.startswith("XDG_")}
    path = f"{programs}:{os.environ['PATH']}"
    return found | {"HOME": str(home), "PATH": path, "PYTHONPATH": str(ROOT)}


def set_up(env: dict[str, str]) -> None:
    command = ["diffgemma-lsp", "setup", "neovim", "--model", "nano", "--yes"]
    subprocess.run(command, env=env, check=True, stdin=subprocess.DEVNULL)


def with_the_fake(home: Path, nvim: Program) -> dict[str, str]:
    """A new user whose diffgemma-lsp is the one that answers what the document says."""
    env = new_user(home, nvim)
    program = home / ".local" / "bin" / "diffgemma-lsp"
    program.symlink_to(Path(sys.executable).with_name("diffgemma-lsp"))
    set_up(env)
    program.unlink()
    program.write_text(f'#!/bin/sh\nexec {shlex.join(FAKE)} "$@"\n')
    program.chmod(0o755)
    return env


def test_three_commands_lead_to_ghost_text(
    nvim: Program, warm_engine: dict[str, str], tmp_path: Path
) -> None:
    env = new_user(tmp_path, nvim, warm_engine)
    # The first, `uv tool install`, leaves a link in ~/.local/bin to the environment that it makes;
    # here it is the one that runs the tests.
    installed = Path(sys.executable).with_name("diffgemma-lsp")
    (tmp_path / ".local" / "bin" / "diffgemma-lsp").symlink_to(installed)
    set_up(env)
    assert str(tmp_path / ".local/bin/diffgemma-lsp") in (tmp_path / WRITTEN).read_text()
    text = REAL_FILE.read_text(encoding="utf-8")
    with running(nvim, tmp_path, text, env, STARTED) as session:
        session.wait_until_attached()
        place = next(place for place in PLACES if appears(session, place))
        ghost = session.ghost()
        session.type("\t")
        before, _, after = text.partition(place)
        expected = f"{before}{place[0]}{ghost}\n{after.partition(chr(10))[2]}"
        session.wait_for(lambda: session.buffer() == expected)
        assert session.messages() == ""


def suggested(session: Session) -> None:
    """Has the suggestion shown."""
    session.wait_until_attached()
    session.type("3GA ")
    session.wait_for(lambda: session.ghost() == "alpha + beta")


def test_tab_is_what_it_was_where_nothing_is_shown(nvim: Program, tmp_path: Path) -> None:
    with running(nvim, tmp_path, TEXT, with_the_fake(tmp_path, nvim), STARTED) as session:
        suggested(session)
        session.type("\t")
        session.wait_for(lambda: "    return alpha + beta\n" in session.buffer())
        session.type("\x1b:Diffgemma off\r")
        session.type("Goa\t|")
        session.wait_for(lambda: session.buffer().endswith("a   |\n"))
        session.type("\x1bo")
        session.lua("vim.snippet.expand('f(${1:one}, ${2:two})')")
        session.type("\t")
        session.wait_for(lambda: session.lua("vim.snippet._session.current_tabstop.index") == 2)
        assert session.lua("vim.fn.exists(':Diffgemma')") == 2


def test_a_tab_of_the_users_own_is_left_alone(nvim: Program, tmp_path: Path) -> None:
    env = with_the_fake(tmp_path, nvim)
    (tmp_path / ".config" / "nvim" / "init.lua").write_text(
        "vim.keymap.set('i', '<Tab>', '<Plug>(mine)')\n"
        "vim.keymap.set('i', '<Plug>(mine)', 'mine')\n"
    )
    with running(nvim, tmp_path, TEXT, env, STARTED) as session:
        suggested(session)
        session.type("\t")
        session.wait_for(lambda: "    return mine\n" in session.buffer())


def test_nothing_is_said_where_the_package_has_gone(nvim: Program, tmp_path: Path) -> None:
    env = with_the_fake(tmp_path, nvim)
    written = tmp_path / WRITTEN
    written.write_text(written.read_text().replace(str(ROOT), "/nowhere"))
    with running(nvim, tmp_path, TEXT, env, STARTED) as session:
        assert session.messages() == ""
        assert session.lua("vim.fn.exists(':Diffgemma')") == 0
