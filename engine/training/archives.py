"""The manifest of the other languages: packages of three registries, and what is in them.

Nothing is installed or run: archives are downloaded with the registry's own client (``npm pack``,
``pip download``, ``apt-get source``) and their members are read straight out of them.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.training.licences import (
    DebianCopyright,
    is_permissive,
    npm_licence,
    python_licence,
)
from engine.training.packages import CorpusError

MANIFEST = Path(__file__).with_name("languages.toml")
MAX_MEMBER = 400_000
# For which Python distributions are chosen: nothing of them is run by the one that is running.
_PYTHON = "3.14"
# Where Debian installs sources: what comes behind is the path in the project.
_INSTALLED_SOURCE = re.compile(r"^usr/(share/cargo/registry/[^/]+|share/gocode/src|include)/")


@dataclass(frozen=True)
class Pinned:
    """One package of a registry, pinned to a version.

    Registries are ``npm``, ``pypi`` (a wheel), ``pypi-source`` (an sdist), ``debian`` (a binary
    package: libraries in Rust and Go are installed as source) and ``debian-source``.

    ``languages``: take only these (all, when empty).
    """

    registry: str
    name: str
    version: str
    licence: str
    languages: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The package's name with its registry's, which together are unique."""
        return f"{self.registry}:{self.name}"


@dataclass(frozen=True)
class LanguageManifest:
    """What is trained on, what is held out, and how many bytes of each language are wanted."""

    train: tuple[Pinned, ...]
    held_out: tuple[Pinned, ...]
    targets: dict[str, int]


@dataclass(frozen=True)
class Member:
    """A file in an archive: its path without the archive's own top folder, and its bytes."""

    path: str
    data: bytes


def load_manifest(path: Path = MANIFEST) -> LanguageManifest:
    """Read the manifest.

    Raises:
        CorpusError: a package is both trained on and held out, or its licence isn't permissive.
    """
    raw = tomllib.loads(path.read_text("utf-8"))
    manifest = LanguageManifest(_pinned(raw["train"]), _pinned(raw["held_out"]), raw["targets"])
    both = {p.key for p in manifest.train} & {p.key for p in manifest.held_out}
    if both:
        raise CorpusError(f"both trained on and held out: {', '.join(sorted(both))}")
    for package in manifest.train + manifest.held_out:
        if not is_permissive(package.licence):
            raise CorpusError(f"{package.key}: licence {package.licence!r} isn't permissive")
    return manifest


def _pinned(registries: dict[str, dict[str, dict[str, Any]]]) -> tuple[Pinned, ...]:
    return tuple(
        Pinned(registry, name, e["version"], e["licence"], tuple(e.get("languages", ())))
        for registry, packages in registries.items()
        for name, e in packages.items()
    )


def folder_of(package: Pinned, downloads: Path) -> Path:
    """Where the archives of a package are kept: one folder for each version."""
    safe = re.sub(r"[^\w.+~-]", "_", f"{package.name}-{package.version}")
    return downloads / package.registry / safe


def fetch(package: Pinned, downloads: Path) -> list[Path]:
    """The archives of a package, downloaded unless they are there already.

    Raises:
        CorpusError: the registry's client failed.
    """
    folder = folder_of(package, downloads)
    found = _archives(folder)
    if found:
        return found
    folder.mkdir(parents=True, exist_ok=True)
    exact = f"{package.name}@{package.version}"
    if package.registry == "npm":
        command = ["npm", "pack", "--silent", "--ignore-scripts", exact]
    elif package.registry == "debian":
        command = ["apt-get", "download", "--quiet", exact.replace("@", "=")]
    elif package.registry == "debian-source":
        # Needs a deb-src line of the release that the manifest was made from.
        exact = exact.replace("@", "=")
        command = ["apt-get", "source", "--download-only", "--quiet", "--only-source", exact]
    elif package.registry == "pypi-source":
        # pip would run the package's own code to learn what it needs; unearth only downloads.
        command = [sys.executable, "-m", "unearth", "--no-binary", "--download", "."]
        command += ["--python-version", _PYTHON]
        command.append(exact.replace("@", "=="))
    else:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary=:all:", "--python-version", _PYTHON]
        command.append(exact.replace("@", "=="))
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    found = _archives(folder)
    if done.returncode or not found:
        raise CorpusError(f"{package.key} {package.version}: {done.stderr[-500:]}")
    return found


def _archives(folder: Path) -> list[Path]:
    """The finished archives in a folder; of a source package, the upstream tree's comes first."""
    found = [p for p in folder.glob("*") if re.search(r"\.(tgz|whl|zip|deb|tar\.\w+)$", p.name)]
    return sorted(found, key=lambda p: (".debian.tar" in p.name, p.name))


def members(archive: Path, wanted: Callable[[str], bool]) -> Iterator[Member]:
    """The wanted regular files of an archive, as they come; huge ones are left out."""
    if archive.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                if info.file_size <= MAX_MEMBER and not info.is_dir() and wanted(info.filename):
                    yield Member(info.filename, opened.read(info))
    elif archive.suffix == ".deb":
        command = ["dpkg-deb", "--fsys-tarfile", str(archive)]
        # It complains when nobody reads to the end.
        with (
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            ) as unpacking,
            tarfile.open(fileobj=unpacking.stdout, mode="r|") as opened,
        ):
            yield from _tar_members(opened, archive, wanted)
    else:
        with tarfile.open(archive, "r|*") as opened:
            yield from _tar_members(opened, archive, wanted)


def _tar_members(
    opened: tarfile.TarFile, archive: Path, wanted: Callable[[str], bool]
) -> Iterator[Member]:
    for entry in opened:
        name = entry.name.removeprefix("./")
        if archive.suffix == ".deb":
            name = _INSTALLED_SOURCE.sub("", name)
        elif ".debian.tar" not in archive.name:
            name = name.partition("/")[2]
        if entry.isfile() and entry.size <= MAX_MEMBER and wanted(name):
            content = opened.extractfile(entry)
            if content is not None:
                yield Member(name, content.read())


class LicenceBook:
    """What a package's own metadata says: the licence of each of its files."""

    def __init__(self, package: Pinned, archives: list[Path]) -> None:
        self._debian: DebianCopyright | None = None
        self.licence = ""
        if package.registry == "debian-source":
            text = _read(archives[-1], "debian/copyright").decode("utf-8", "replace")
            self._debian = DebianCopyright(text)
            self.licence = self._debian.licence_of("a file that no narrower stanza names")
        elif package.registry == "debian":
            # Where files were installed from isn't known, so that all licences in it count.
            text = _read(archives[0], f"usr/share/doc/{package.name}/copyright")
            self.licence = ", and ".join(
                DebianCopyright(text.decode("utf-8", "replace")).licences()
            )
        elif package.registry == "npm":
            self.licence = npm_licence(_read(archives[0], "package.json"))
        else:
            last = ".dist-info/METADATA" if archives[0].suffix == ".whl" else "PKG-INFO"
            self.licence = python_licence(_read(archives[0], last))

    def permits(self, path: str) -> bool:
        """Whether the file at ``path`` is under a permissive licence."""
        licence = self.licence if self._debian is None else self._debian.licence_of(path)
        return is_permissive(licence)


def _read(archive: Path, name: str) -> bytes:
    """A member by its path, or by the path's end in a wheel."""
    wheel = archive.suffix == ".whl"
    for member in members(archive, lambda p: p == name or (wheel and p.endswith(name))):
        return member.data
    raise CorpusError(f"{archive.name}: no {name}")
