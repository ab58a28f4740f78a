"""Plugins of others for Neovim that the tests run: nothing of them is part of this repository.

They lie in `.cache/plugins`, each in a folder of its name, or in the folder that NEOVIM_PLUGINS
says. Where INSTALL_EDITORS is set, git fetches what is missing from GitHub, at these commits.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from install import CannotInstall

COMMITS = {
    "ggml-org/llama.vim": "a1c8e6e40cb45df59b78add5b65d575386832465",
    "milanglacier/minuet-ai.nvim": "479487c34041f53aad3184597428e42d9f3333b5",
    "folke/sidekick.nvim": "8ad0ede3ff9065878a853e4b037ba6ac88231fb0",
}
CACHE = Path(__file__).resolve().parents[2] / ".cache" / "plugins"


def plugin(repository: str) -> Path:
    """The folder of a plugin; without it the test is skipped."""
    name = repository.partition("/")[2]
    folder = Path(os.environ.get("NEOVIM_PLUGINS") or CACHE) / name
    if not folder.is_dir():
        if not os.environ.get("INSTALL_EDITORS"):
            pytest.skip(f"{name} is not here; `make test-neovim` fetches it")
        try:
            _fetch(repository, folder)
        except CannotInstall as error:
            pytest.skip(f"{name} is not in {folder.parent}: {error}")
    return folder


def _fetch(repository: str, folder: Path) -> None:
    beside = folder.with_name(f"{folder.name}.{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        _git(beside, "init", "--quiet")
        url = f"https://github.com/{repository}"
        _git(beside, "fetch", "--quiet", "--depth=1", url, COMMITS[repository])
        _git(beside, "checkout", "--quiet", "FETCH_HEAD")
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _git(folder: Path, *arguments: str) -> None:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            env={**os.environ, "GIT_TERMINAL_PROMPT": "0"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotInstall(f"git {arguments[0]}: {error}") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it failed silently"]
        raise CannotInstall(f"git {arguments[0]}: {said[-1]}")
