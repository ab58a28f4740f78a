"""A real Neovim in a terminal, set up with the lines of its README: ghost text comes, Tab takes it.

`make test-editors` fetches Neovim; without one these tests are skipped, except where CI is set.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import install_neovim
import pytest
import stub_server
from install_neovim import CannotInstall, Neovim
from neovim import editing

STUB = (sys.executable, str(stub_server.__file__))

SOURCE = """\
def add(a, b):
    return None


print(add(1, 2))
"""


@pytest.fixture(scope="session")
def nvim() -> Neovim:
    required = bool(os.environ.get("INSTALL_EDITORS"))
    try:
        found = install_neovim.install() if required else install_neovim.find()
        if found:
            return found
        raise CannotInstall("not here; `make test-editors` fetches it")
    except CannotInstall as error:
        if required and os.environ.get("CI"):
            pytest.fail(f"Neovim {install_neovim.SERIES} is needed here: {error}")
        pytest.skip(f"Neovim {install_neovim.SERIES}: {error}")


def test_the_configuration_works_with_any_server(nvim: Neovim, tmp_path: Path) -> None:
    with editing(nvim, tmp_path, SOURCE, STUB) as session:
        session.wait_until_attached()
        session.terminal.type("/None\rC")
        session.wait_for(f"return {stub_server.SUGGESTION}")
        assert session.ghost() == stub_server.SUGGESTION
        assert stub_server.SUGGESTION not in session.buffer()
        session.terminal.type("\t")
        expected = SOURCE.replace("None", stub_server.SUGGESTION)
        session.wait_for(lambda: session.buffer() == expected)


def test_tab_is_a_tab_without_a_suggestion(nvim: Neovim, tmp_path: Path) -> None:
    with editing(nvim, tmp_path, SOURCE, ("no-such-server",)) as session:
        session.terminal.type("GO\tx")
        session.wait_for(lambda: "    x\n" in session.buffer())
