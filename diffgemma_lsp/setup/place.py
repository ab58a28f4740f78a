"""Where a user's configuration lies, and what there is to be put into it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from diffgemma_lsp.setup.edits import Edit
from engine.models import BEST

_PACKAGE = Path(__file__).resolve().parents[1]
SERVED = "http://127.0.0.1:8012"
"""Where `diffgemma-lsp serve` is when nothing is said."""


@dataclass(frozen=True)
class Place:
    """config, data: what XDG_CONFIG_HOME and XDG_DATA_HOME name. settings: where programs with
    windows keep theirs.

    program: the absolute path of the server. model: the one that was chosen; None if nothing was
    said. extension: the one for VS Code, packaged.
    """

    home: Path
    config: Path
    data: Path
    settings: Path
    program: str
    model: str | None = None
    extension: Path | None = None
    on_mac: bool = False

    @property
    def other_model(self) -> str | None:
        """What an editor has to say of the model: nothing, if it is what serves by itself."""
        return None if self.model == BEST else self.model


@dataclass(frozen=True)
class Setup:
    """What it takes to set an editor up in a place.

    files: by path, the edit of each. install, uninstall: programs to be run with it. then,
    afterwards: what is left to the user, a line each, when it is there and when it is gone.
    """

    files: Mapping[Path, Edit]
    install: tuple[tuple[str, ...], ...] = ()
    uninstall: tuple[tuple[str, ...], ...] = ()
    then: tuple[str, ...] = ()
    afterwards: tuple[str, ...] = ()


def here(extension: Path | None = None) -> Place:
    """This user's. Raises FileNotFoundError if the program that runs can't be named."""
    home, on_mac = Path.home(), sys.platform == "darwin"
    config = _named("XDG_CONFIG_HOME", home / ".config")
    data = _named("XDG_DATA_HOME", home / ".local" / "share")
    settings = home / "Library" / "Application Support" if on_mac else config
    return Place(home, config, data, settings, program(), None, extension or _packaged(), on_mac)


def program() -> str:
    """The absolute path of the running program, by the name that it was called: behind a link there
    may be another version tomorrow. Raises FileNotFoundError if there is none."""
    name = "diffgemma-lsp"
    called = Path(os.path.abspath(sys.argv[0]))
    found = called if called.name == name else Path(sys.executable).with_name(name)
    if not os.access(found, os.X_OK):
        raise FileNotFoundError(f"there is no program {found}, which an editor could start")
    return str(found)


def _named(variable: str, default: Path) -> Path:
    """The folder that a variable names; a relative one counts as not said."""
    said = os.environ.get(variable, "")
    return Path(said) if os.path.isabs(said) else default


def plugin() -> Path:
    """The folder of the Neovim plugin: in the package, or beside it in a checkout."""
    packaged = _PACKAGE / "neovim"
    return packaged if packaged.is_dir() else _PACKAGE.parent / "editors" / "neovim"


def _packaged() -> Path | None:
    made = _PACKAGE.parent / "editors" / "vscode" / "dist" / "diffgemma-lsp.vsix"
    return made if made.is_file() else None


def on_path(*names: str) -> bool:
    """Whether there is a program of one of the names."""
    return any(map(shutil.which, names))


def output_of(*command: str) -> str:
    """What a program prints; empty if it fails or is not there."""
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    except OSError:
        return ""
    return done.stdout if done.returncode == 0 else ""
