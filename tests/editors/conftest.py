"""Editors as fixtures. `make test-terminal` and `make test-editors` fetch them; without one its
tests are skipped, but for Neovim where CI is set."""

from __future__ import annotations

import os
import subprocess
import sys

import install
import pytest
from install import CannotInstall, Program


def program(name: str, needed: bool = True) -> Program:
    """The program, or the test is skipped; where CI is set and it is needed, it fails."""
    wanted = bool(os.environ.get("INSTALL_EDITORS"))
    try:
        found = install.install(name) if wanted else install.find(name)
    except CannotInstall as error:
        if needed and os.environ.get("CI"):
            pytest.fail(f"{name} is needed here: {error}")
        pytest.skip(f"{name}: {error}")
    if not found:
        pytest.skip(f"{name} is not here; `make test-neovim` fetches it")
    return found


@pytest.fixture(scope="session")
def nvim() -> Program:
    return program("neovim")


@pytest.fixture(scope="session")
def luacheck() -> Program:
    return program("luacheck")


@pytest.fixture(scope="session")
def helix() -> Program:
    return _on_demand("helix")


@pytest.fixture(scope="session")
def emacs() -> Program:
    return _on_demand("emacs")


def _on_demand(name: str) -> Program:
    """An editor that not every run of the tests is for."""
    if not os.environ.get("INSTALL_EDITORS"):
        pytest.skip(f"`make test-terminal` runs {name}")
    return program(name, needed=False)


@pytest.fixture
def warm_engine(real_engine: dict[str, str]) -> dict[str, str]:
    """The real engine, with nano loaded."""
    fill = [sys.executable, "-m", "diffgemma_lsp", "fill", "-", "--at", "1:1"]
    subprocess.run(fill, env=real_engine, input=b"\n", stdout=subprocess.DEVNULL, check=True)
    return real_engine
