"""The Lua of this repository: linted, formatted, and its help complete."""

from __future__ import annotations

import difflib
import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import stylua
from install import CannotInstall, Program

HELP = (stylua.NEOVIM / "doc" / "diffgemma.txt").read_text(encoding="utf-8")


def test_what_mini_knows_is_served() -> None:
    config = (stylua.NEOVIM / "lsp" / "diffgemma.lua").read_text(encoding="utf-8")
    listed = re.search(r"filetypes = \{(.*?)\}", config, re.DOTALL)
    assert listed is not None
    mini = json.loads((stylua.ROOT / "engine/weights/mini/infill.json").read_text(encoding="utf-8"))
    # Neovim calls all of these as LSP does.
    assert re.findall(r"'(\w+)'", listed[1]) == mini["languages"]


def test_luacheck_finds_nothing(luacheck: Program) -> None:
    files = map(str, stylua.lua_files())
    config = str(stylua.NEOVIM / ".luacheckrc")
    done = subprocess.run(
        [*luacheck.command, "--no-color", "--quiet", "--config", config, *files],
        env={**os.environ, **luacheck.env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_all_is_formatted() -> None:
    if os.environ.get("INSTALL_EDITORS"):
        try:
            stylua.install()
        except CannotInstall as error:
            pytest.skip(f"stylua: {error}")
    elif not stylua.found():
        pytest.skip("stylua is not here; `make test-neovim` fetches it")
    files = stylua.lua_files()
    for file, wanted in zip(files, stylua.formatted(files), strict=True):
        have = file.read_text(encoding="utf-8")
        difference = "\n".join(
            difflib.unified_diff(have.splitlines(), wanted.splitlines(), lineterm="", n=1)
        )
        assert have == wanted, f"{file.name}; mend it with `make format`\n{difference}"


def test_the_help_has_tags(nvim: Program, tmp_path: Path) -> None:
    (tmp_path / "diffgemma.txt").write_text(HELP)
    script = f"helptags {tmp_path} | set runtimepath+={tmp_path.parent} | qa"
    done = subprocess.run(
        [*nvim.command, "--clean", "--headless", "+" + script],
        env={**os.environ, **nvim.env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == "", done.stderr
    made = (tmp_path / "tags").read_text()
    kept = (stylua.NEOVIM / "doc" / "tags").read_text()
    assert kept == made, "`:helptags editors/neovim/doc` makes them anew"
    tags = {line.split("\t")[0] for line in made.splitlines()}
    assert tags >= {"diffgemma.txt", "diffgemma", ":Diffgemma", "g:diffgemma"}
    own = {link for link in re.findall(r"\|([\w.:()-]+)\|", HELP) if "iffgemma" in link}
    assert own <= tags, f"no such tags: {own - tags}"


def test_the_help_misses_nothing() -> None:
    lua = stylua.NEOVIM / "lua" / "diffgemma"
    functions = re.findall(r"^function M\.(\w+)", (lua / "init.lua").read_text(), re.MULTILINE)
    assert functions
    assert [name for name in functions if f"*diffgemma.{name}()*" not in HELP] == []
    command = (lua / "command.lua").read_text()
    actions = re.search(r"M\.ACTIONS = \{(.*?)\}", command, re.DOTALL)
    assert actions
    names = re.findall(r"'(\w+)'", actions[1])
    others = re.search(r"local others = \{\n(.*?)\n\}", command, re.DOTALL)
    assert others
    commands = re.findall(r"^  (\w+) = ", others[1], re.MULTILINE)
    assert "rewrite" in names
    assert "status" in commands
    missing = [name for name in names if not re.search(rf"^\s+{name}  ", HELP, re.MULTILINE)]
    missing += [name for name in commands if f":Diffgemma {name}" not in HELP]
    assert missing == []
    groups = re.findall(r"^  (\w+) = '\w+',", (lua / "draw.lua").read_text(), re.MULTILINE)
    assert groups
    assert [name for name in groups if f"*hl-Diffgemma{name}*" not in HELP] == []
