"""Which code and which weights there are on disk: what tells an engine from one of another
checkout, of another version, or of before an upgrade.

Looks at names, sizes and times of change, never into a file. Imports nothing heavy.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent

_WEIGHTS = (".json", ".safetensors", ".gguf")
"""What a model is read from."""


def code_on_disk() -> str:
    """The fingerprint of this package's source: another one for each place and each version."""
    return fingerprint(_sources(str(PACKAGE)))


def weights_on_disk(folders: Iterable[Path | None]) -> str:
    """The fingerprint of the files that a model in these folders is read from."""
    files = (file for folder in folders if folder is not None for file in _files(str(folder)))
    return fingerprint(file for file in files if file.name.endswith(_WEIGHTS))


def fingerprint(files: Iterable[os.DirEntry[str]]) -> str:
    """The same as long as no file is replaced or changed; one that is gone is left out."""
    seen = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.path):
        try:
            found = file.stat()
        except OSError:
            continue
        seen.update(f"{file.path}\0{found.st_size}\0{found.st_mtime_ns}\n".encode(errors="replace"))
    return seen.hexdigest()[:16]


def _sources(folder: str) -> Iterator[os.DirEntry[str]]:
    for entry in _entries(folder):
        if entry.name.endswith(".py"):
            yield entry
        elif entry.name != "__pycache__" and entry.is_dir(follow_symlinks=False):
            yield from _sources(entry.path)


def _files(folder: str) -> Iterator[os.DirEntry[str]]:
    return (entry for entry in _entries(folder) if entry.is_file())


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


CODE = code_on_disk()
"""That of the code that runs here: it was read a moment ago, and may be replaced at any time."""
