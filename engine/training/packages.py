"""The manifest of the training corpus, and the Python sources inside package archives.

Nothing here installs or runs a package: wheels are downloaded and their ``.py`` members are
read straight out of the zip.
"""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.training.licences import python_licence

MANIFEST = Path(__file__).with_name("manifest.toml")

_FORBIDDEN_LICENCE = re.compile(r"GPL|MPL|EUPL|SSPL|BUSL|CC-BY-SA|CC-BY-NC|Mozilla|Affero|GNU")
_PERMISSIVE_LICENCE = re.compile(
    r"\b0?BSD|\bMIT\b|Apache|\bISC\b|PSF|Python Software Foundation|Biopython|Unlicense|\bZPL\b"
)
_SKIPPED_DIRS = frozenset(
    {"_vendor", "vendor", "_vendored", "vendored", "_third_party", "third_party", "thirdparty"}
    | {"extern", "externals", "external", "node_modules", "site-packages", "lib2to3", "idlelib"}
)
_STDLIB_SKIPPED = frozenset({"test", "tests", "idlelib", "lib2to3", "site-packages", "turtledemo"})


class CorpusError(Exception):
    """A package, archive or manifest that the corpus cannot be built from."""


@dataclass(frozen=True)
class Package:
    """One distribution, pinned: its name, exact version and licence."""

    name: str
    version: str
    licence: str


@dataclass(frozen=True)
class Manifest:
    """What is trained on and what is held out, as written in ``manifest.toml``."""

    train: tuple[Package, ...]
    held_out: tuple[Package, ...]
    held_out_modules: frozenset[str]


@dataclass(frozen=True)
class SourceFile:
    """A ``.py`` file inside an archive: the distribution, the path in it and its bytes."""

    package: str
    path: str
    data: bytes


def load_manifest(path: Path = MANIFEST) -> Manifest:
    """Read the manifest.

    Raises:
        CorpusError: a held-out distribution is also listed for training.
    """
    raw = tomllib.loads(path.read_text("utf-8"))
    train = tuple(_package(entry) for entry in raw["train"])
    held_out = tuple(_package(entry) for entry in raw["held_out"])
    both = {p.name for p in train} & {p.name for p in held_out}
    if both:
        raise CorpusError(f"both trained on and held out: {', '.join(sorted(both))}")
    return Manifest(train, held_out, frozenset(raw["held_out_modules"]))


def _package(entry: dict[str, str]) -> Package:
    return Package(entry["name"], entry["version"], entry["licence"])


def find_wheel(package: Package, downloads: Path) -> Path | None:
    """The wheel of exactly this version in ``downloads``, or None."""
    stem = re.sub(r"[-_.]+", "_", package.name).lower()
    for path in sorted(downloads.glob("*.whl")):
        name, version = path.name.split("-")[:2]
        if re.sub(r"[-_.]+", "_", name).lower() == stem and version == package.version:
            return path
    return None


def fetch_wheel(package: Package, downloads: Path) -> Path:
    """Download the wheel of a pinned package unless it is there already.

    Raises:
        CorpusError: there is no wheel of that version, or the download failed.
    """
    found = find_wheel(package, downloads)
    if found is not None:
        return found
    downloads.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(downloads)]
    command.append(f"{package.name}=={package.version}")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = find_wheel(package, downloads)
    if done.returncode or found is None:
        raise CorpusError(f"no wheel of {package.name} {package.version}: {done.stderr[-500:]}")
    return found


def licence_of(wheel: Path) -> str:
    """The licence that a wheel's metadata declares (expression, short field or classifiers)."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return python_licence(archive.read(name))


def is_permissive(licence: str) -> bool:
    """Whether every part of a licence is permissive; of ``A OR B`` one alternative suffices."""
    alternatives = re.split(r"\s+OR\s+", licence)
    return any(
        _PERMISSIVE_LICENCE.search(part) is not None and _FORBIDDEN_LICENCE.search(part) is None
        for part in alternatives
    )


def check_licence(wheel: Path) -> str:
    """The declared licence of a wheel.

    Raises:
        CorpusError: the licence is unknown or not permissive.
    """
    licence = licence_of(wheel)
    if not is_permissive(licence):
        raise CorpusError(f"{wheel.name}: licence {licence!r} is not known to be permissive")
    return licence


def wanted_path(path: str) -> bool:
    """Whether a path in an archive may be trained on: Python, not vendored, not generated."""
    parts = path.split("/")
    if not path.endswith(".py") or path.endswith(("_pb2.py", "_pb2_grpc.py")):
        return False
    return not any(part in _SKIPPED_DIRS or part.endswith(".data") for part in parts[:-1])


def wheel_sources(package: str, wheel: Path) -> Iterator[SourceFile]:
    """The wanted ``.py`` members of a wheel, in sorted order."""
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            if wanted_path(name):
                yield SourceFile(package, name, archive.read(name))


def stdlib_sources(root: Path | None = None) -> Iterator[SourceFile]:
    """The standard library of the running Python, without its tests, in sorted order."""
    base = Path(sysconfig.get_paths()["stdlib"]) if root is None else root
    for path in sorted(base.rglob("*.py")):
        relative = path.relative_to(base)
        if not _STDLIB_SKIPPED & set(relative.parts) and wanted_path(relative.as_posix()):
            yield SourceFile("python-stdlib", relative.as_posix(), path.read_bytes())
