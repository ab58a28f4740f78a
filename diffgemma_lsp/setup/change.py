"""One file as it is and as it would be: shown as a diff, written whole or not at all.

A symbolic link is followed and stays one, permissions stay, and what was there is kept beside it
with `.bak` behind its name.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from diffgemma_lsp.setup.edits import Edit, OwnFile, Refused


@dataclass(frozen=True)
class Change:
    """before, after: its text; None where there is no file. keep: whether to leave a backup."""

    path: Path
    before: str | None
    after: str | None
    keep: bool = True

    @property
    def is_needed(self) -> bool:
        return self.before != self.after

    def diff(self) -> Iterator[str]:
        """The lines of a unified diff."""
        before, after = (text or "" for text in (self.before, self.after))
        absent = os.devnull
        yield from difflib.unified_diff(
            before.splitlines(),
            after.splitlines(),
            absent if self.before is None else str(self.path),
            absent if self.after is None else str(self.path),
            lineterm="",
        )

    def write(self) -> Path | None:
        """Makes it so, and returns the backup, if there is one. Raises OSError, and Refused if the
        file is not any more as it was."""
        if _read(self.path) != self.before:
            raise Refused("it was changed meanwhile")
        kept = _back_up(self.path) if self.keep and None not in (self.before, self.after) else None
        if self.after is None and not self.path.is_symlink():
            self.path.unlink()
        else:
            _replace(self.path.resolve(), self.after or "")
        return kept


def change(path: Path, edit: Edit, remove: bool = False) -> Change:
    """What an edit makes of a file, or its removal. Raises Refused, and OSError if it can't be
    read."""
    before = _read(path)
    keep = not isinstance(edit, OwnFile)
    if remove:
        return Change(path, before, None if before is None else edit.take(before), keep)
    return Change(path, before, edit.put(before), keep)


def _read(path: Path) -> str | None:
    try:
        # As it is: no line's end is translated.
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise Refused("it is not UTF-8") from error


def _back_up(path: Path) -> Path:
    """Copies the file to a free name beside it, or finds the copy that is there."""
    number = 0
    while True:
        copy = path.with_name(f"{path.name}.bak{number or ''}")
        if not os.path.lexists(copy):
            shutil.copy2(path, copy)
            return copy
        if copy.is_file() and copy.read_bytes() == path.read_bytes():
            return copy
        number += 1


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, name)
        else:
            os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
