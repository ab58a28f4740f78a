"""Finds the editors of the series that the tests are written for, or unpacks them into a cache.

The packages come from the Debian mirror that this machine's apt is configured with, from a newer
suite than the machine itself may run. They are unpacked, loader and libraries included, under
`.cache/editors`, so that nothing of the system changes and no root is needed.

    python tests/editors/install.py [NAME ...]     prints the commands that start them
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

SUITE = "forky"
CACHE = Path(__file__).resolve().parents[2] / ".cache" / "editors"

APT_CONF = """\
Dir "{root}";
Dir::State::status "{root}/var/lib/dpkg/status";
APT::Architecture "{architecture}";
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Check-Valid-Until "false";
"""


class CannotInstall(Exception):
    """A program can't be had here; the message says why."""


@dataclass(frozen=True)
class Program:
    """How to start it: the command, and what must be in its environment."""

    command: tuple[str, ...]
    env: dict[str, str]


@dataclass(frozen=True)
class Recipe:
    """What to unpack, and what of it to start.

    series: the version that the tests are written for, without its last part. banner: what
    `--version` prints before it. unpacked: what it takes to start the program from a folder of
    unpacked packages, beside its loader and libraries. on_path: its name where a user has it.
    """

    packages: tuple[str, ...]
    series: str
    banner: str
    unpacked: Callable[[Path], Program]
    on_path: str | None = None


def _neovim(root: Path) -> Program:
    runtime = root / "usr/share/nvim/runtime"
    return Program((str(root / "usr/bin/nvim"),), {"VIMRUNTIME": str(runtime)})


def _helix(root: Path) -> Program:
    folder = root / "usr/lib/hx"
    return Program((str(folder / "hx"),), {"HELIX_RUNTIME": str(folder / "runtime")})


def _emacs(root: Path) -> Program:
    version = RECIPES["emacs"].series
    shared = root / "usr/share/emacs" / version
    dumps = sorted(root.glob(f"usr/libexec/emacs/{version}/*/emacs-*.pdmp"))
    lisp = [
        shared / "lisp",
        *sorted(path for path in (shared / "lisp").rglob("*") if path.is_dir()),
    ]
    lisp += sorted(root.glob("usr/share/emacs/site-lisp/elpa-src/*"))
    env = {
        "EMACSDATA": str(shared / "etc"),
        "EMACSDOC": str(shared / "etc"),
        "EMACSPATH": str(dumps[0].parent) if dumps else "",
        "EMACSLOADPATH": ":".join(map(str, lisp)),
    }
    dump = ("--dump-file", str(dumps[0])) if dumps else ()
    return Program((str(root / "usr/bin/emacs-nox"), *dump), env)


def _luacheck(root: Path) -> Program:
    lua = root / "usr/share/lua/5.1"
    path = f"{lua}/?.lua;{lua}/?/init.lua"
    libraries = sorted(root.glob("usr/lib/*/lua/5.1"))
    cpath = ";".join(f"{folder}/?.so" for folder in libraries)
    # A script: what is started is its interpreter.
    command = (str(root / "usr/bin/lua5.1"), str(root / "usr/bin/luacheck"))
    return Program(command, {"LUA_PATH": path, "LUA_CPATH": cpath})


RECIPES = {
    "neovim": Recipe(("neovim",), "0.12", "NVIM v", _neovim, "nvim"),
    "emacs": Recipe(("emacs-nox", "elpa-lsp-mode"), "30.2", "GNU Emacs ", _emacs),
    "helix": Recipe(("hx",), "25.07", "helix ", _helix),
    "luacheck": Recipe(("lua-check",), "1.2", "Luacheck: ", _luacheck),
}


def find(name: str) -> Program | None:
    """A program of the right series that is already here: on the PATH, or in the cache."""
    recipe = RECIPES[name]
    return next((one for one in _candidates(name) if _runs(one, recipe)), None)


def install(name: str) -> Program:
    """`find()`, else downloads and unpacks it. Raises CannotInstall."""
    found = find(name)
    if found:
        return found
    recipe = RECIPES[name]
    for tool in ("apt-get", "dpkg", "dpkg-deb"):
        if not shutil.which(tool):
            raise CannotInstall(f"no {name} {recipe.series} here, and no {tool} to fetch one with")
    target, root = _folder(name), CACHE / f"apt-{name}"
    shutil.rmtree(target, ignore_errors=True)
    for package in _download(root, recipe.packages):
        _run(["dpkg-deb", "-x", str(package), str(target)])
    shutil.rmtree(root)
    found = find(name)
    if found is None:
        packages = " ".join(recipe.packages)
        raise CannotInstall(f"{packages} of {SUITE} is not a working {name} {recipe.series}")
    return found


def _folder(name: str) -> Path:
    return CACHE / f"{name}-{RECIPES[name].series}"


def _candidates(name: str) -> Iterator[Program]:
    recipe, root = RECIPES[name], _folder(name)
    if recipe.on_path and (on_path := shutil.which(recipe.on_path)):
        yield Program((on_path,), {})
    # The unpacked binary, started by the loader and with the libraries of its own suite.
    loaders = sorted(root.glob("usr/lib*/**/ld-linux*.so.*"))
    libraries = sorted({str(path.parent) for path in root.glob("usr/lib/*/libc.so.6")})
    if loaders and libraries:
        program = recipe.unpacked(root)
        command = (str(loaders[0]), "--library-path", ":".join(libraries), *program.command)
        yield Program(command, program.env)


def _runs(program: Program, recipe: Recipe) -> bool:
    """Whether it starts, and is of the series that the tests are written for."""
    try:
        done = subprocess.run(
            [*program.command, "--version"],
            env={**os.environ, **program.env},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    first = done.stdout.partition("\n")[0]
    version = re.match(re.escape(recipe.series) + r"(\.|$)", first.removeprefix(recipe.banner))
    return first.startswith(recipe.banner) and version is not None


def _download(root: Path, names: tuple[str, ...]) -> list[Path]:
    """The packages and all that they need, fetched with an apt that has a root of its own."""
    for folder in (
        "etc/apt/apt.conf.d",
        "etc/apt/preferences.d",
        "etc/apt/sources.list.d",
        "etc/apt/trusted.gpg.d",
        "var/lib/apt/lists/partial",
        "var/cache/apt/archives/partial",
        "var/lib/dpkg",
    ):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "var/lib/dpkg/status").write_text("")
    mirror, keyring = debian_mirror()
    source = f"deb [signed-by={keyring}] {mirror} {SUITE} main\n"
    (root / "etc/apt/sources.list").write_text(source)
    architecture = _run(["dpkg", "--print-architecture"]).strip()
    conf = root / "apt.conf"
    conf.write_text(APT_CONF.format(root=root, architecture=architecture))

    env = {**os.environ, "APT_CONFIG": str(conf)}
    _run(["apt-get", "-qq", "update"], env=env)
    _run(["apt-get", "-qq", "--download-only", "-y", "install", *names], env=env)
    packages = sorted((root / "var/cache/apt/archives").glob("*.deb"))
    if not packages:
        raise CannotInstall(f"apt-get fetched nothing for {names}")
    return packages


def debian_mirror(etc: Path = Path("/etc/apt")) -> tuple[str, str]:
    """Address and keyring of the Debian archive in apt's configuration. Raises CannotInstall."""
    texts = [path.read_text() for path in sorted(etc.glob("sources.list.d/*.sources"))]
    lists = [etc / "sources.list", *sorted(etc.glob("sources.list.d/*.list"))]
    texts += [_as_stanzas(path.read_text()) for path in lists if path.exists()]
    for stanza in re.split(r"\n\s*\n", "\n\n".join(texts)):
        fields = dict(re.findall(r"^([\w-]+):[ \t]*(.*)$", stanza, re.MULTILINE))
        uri = fields.get("URIs", "").split(" ")[0].rstrip("/")
        if uri.endswith("/debian") and "main" in fields.get("Components", "").split():
            keyring = fields.get("Signed-By", "/usr/share/keyrings/debian-archive-keyring.gpg")
            return uri, keyring
    raise CannotInstall(f"no Debian archive among apt's sources in {etc}")


def _as_stanzas(one_line_sources: str) -> str:
    """`deb [signed-by=K] URI SUITE COMPONENTS` lines in the form of .sources files."""
    stanzas: list[str] = []
    pattern = r"^deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+\S+\s+(.+)$"
    for options, uri, components in re.findall(pattern, one_line_sources, re.MULTILINE):
        keyring = re.search(r"signed-by=(\S+)", options)
        signed_by = f"Signed-By: {keyring[1]}\n" if keyring else ""
        stanzas.append(f"URIs: {uri}\nComponents: {components}\n{signed_by}")
    return "\n".join(stanzas)


def _run(command: list[str], env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise CannotInstall(f"{' '.join(command[:3])} failed: {lines[-1] if lines else 'silently'}")
    return done.stdout


def main(names: list[str]) -> int:
    """Prints how to start the programs; 1 and a line on stderr where there is no way to get one."""
    for name in names or RECIPES:
        try:
            program = install(name)
        except (CannotInstall, KeyError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
        print(*(f"{key}={value}" for key, value in program.env.items()), *program.command)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
