"""Formats the Lua of this repository as `editors/neovim/stylua.toml` says.

StyLua comes from npm as WebAssembly, and runs in the node that comes with basedpyright.

    python tests/editors/stylua.py     formats the files in place
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

from install import CACHE, CannotInstall
from npm_packages import NODE, installed

PACKAGE = "@johnnymorganz/stylua"
VERSION = "2.5.2"
ROOT = Path(__file__).resolve().parents[2]
NEOVIM = ROOT / "editors" / "neovim"
FOLDER = CACHE / f"stylua-{VERSION}"
LIBRARY = FOLDER / "node_modules" / PACKAGE / "stylua_lib_node.cjs"


def lua_files() -> list[Path]:
    """All of them, the plugin's and those of the tests."""
    return sorted([*NEOVIM.rglob("*.lua"), *Path(__file__).parent.glob("*.lua")])


def found() -> bool:
    """Whether it is here already."""
    return LIBRARY.exists()


def install() -> None:
    """Fetches it into the cache. Raises CannotInstall."""
    if found():
        return
    installed(FOLDER, f"{PACKAGE}@{VERSION}", "2026-11-28")


def formatted(files: list[Path]) -> list[str]:
    """What the files would be. Raises CalledProcessError where one is no Lua."""
    options = tomllib.loads((NEOVIM / "stylua.toml").read_text(encoding="utf-8"))
    script = Path(__file__).with_suffix(".mjs")
    arguments = [NODE, script, LIBRARY.as_uri(), json.dumps(options), *files]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, arguments, done.stdout, done.stderr)
    return json.loads(done.stdout)


def main() -> int:
    """Formats what is not."""
    try:
        install()
        files = lua_files()
        texts = formatted(files)
    except (CannotInstall, subprocess.CalledProcessError) as error:
        print(f"stylua: {getattr(error, 'stderr', None) or error}", file=sys.stderr)
        return 1
    for file, text in zip(files, texts, strict=True):
        if file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")
            print(f"formatted {file.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
