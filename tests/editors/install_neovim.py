"""Finds a Neovim of the series that the tests are written for, or unpacks one into a cache.

The packages come from the Debian mirror that this machine's apt is configured with, from a newer
suite than the machine itself may run. They are unpacked, loader and libraries included, under
`.cache/editors`, so that nothing of the system changes and no root is needed.

    python tests/editors/install_neovim.py     prints the command that starts it
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SERIES = "0.12"
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
    """Neovim can't be had here; the message says why."""


@dataclass(frozen=True)
class Neovim:
    """How to start it: the command, and what must be in its environment."""

    command: tuple[str, ...]
    env: dict[str, str]


def find() -> Neovim | None:
    """A Neovim of the right series that is already here: on the PATH, or in the cache."""
    on_path = shutil.which("nvim")
    candidates = [Neovim((on_path,), {})] if on_path else []
    candidates += _unpacked(CACHE / f"neovim-{SERIES}")
    return next((nvim for nvim in candidates if _runs(nvim)), None)


def install() -> Neovim:
    """`find()`, else downloads and unpacks it. Raises CannotInstall."""
    found = find()
    if found:
        return found
    for tool in ("apt-get", "dpkg", "dpkg-deb"):
        if not shutil.which(tool):
            raise CannotInstall(f"no Neovim {SERIES} on the PATH, and no {tool} to fetch one with")
    target = CACHE / f"neovim-{SERIES}"
    shutil.rmtree(target, ignore_errors=True)
    for package in _download(CACHE / "apt", "neovim"):
        _run(["dpkg-deb", "-x", str(package), str(target)])
    shutil.rmtree(CACHE / "apt")
    for nvim in _unpacked(target):
        if _runs(nvim):
            return nvim
    raise CannotInstall(f"the neovim package of {SUITE} is not a working {SERIES}")


def _unpacked(root: Path) -> list[Neovim]:
    """The unpacked binary, started by the loader and with the libraries of its own suite."""
    binary = root / "usr/bin/nvim"
    loaders = sorted(root.glob("usr/lib*/**/ld-linux*.so.*"))
    libraries = sorted({str(path.parent) for path in root.glob("usr/lib/*/libc.so.6")})
    if not (binary.exists() and loaders and libraries):
        return []
    command = (str(loaders[0]), "--library-path", ":".join(libraries), str(binary))
    return [Neovim(command, {"VIMRUNTIME": str(root / "usr/share/nvim/runtime")})]


def _runs(nvim: Neovim) -> bool:
    """Whether it starts, and is of the series that the tests are written for."""
    try:
        done = subprocess.run(
            [*nvim.command, "--version"],
            env={**os.environ, **nvim.env},
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.stdout.startswith(f"NVIM v{SERIES}.")


def _download(root: Path, package: str) -> list[Path]:
    """The package and all that it needs, fetched with an apt that has a root of its own."""
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
    _run(["apt-get", "-qq", "--download-only", "-y", "install", package], env=env)
    packages = sorted((root / "var/cache/apt/archives").glob("*.deb"))
    if not packages:
        raise CannotInstall(f"apt-get fetched nothing for {package}")
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


def main() -> int:
    """Prints how to start Neovim; 1 and a line on stderr where there is no way to get it."""
    try:
        nvim = install()
    except CannotInstall as error:
        print(f"Neovim {SERIES}: {error}", file=sys.stderr)
        return 1
    print(*(f"{name}={value}" for name, value in nvim.env.items()), *nvim.command)
    return 0


if __name__ == "__main__":
    sys.exit(main())
