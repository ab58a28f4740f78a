"""A log of finished work in JSON lines, from which an interrupted evaluation goes on.

The first line holds the settings. A line that was being written when the process died is dropped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from engine.errors import BadRequest

Record = dict[str, Any]


class Journal:
    """Records by key, appended to a file as they come; what an earlier run left is in `records`.

    others: logs of other parts of the same evaluation. What they have is in `records`, too; nothing
    is written to them, since their own runs may still be at work.
    Raises BadRequest if a file is another evaluation's: its settings are not these.
    """

    def __init__(self, path: Path, settings: Record, others: Sequence[Path] = ()) -> None:
        self.records: dict[str, Record] = {}
        settings = json.loads(json.dumps(settings))
        for other in others:
            data = other.read_bytes()
            self.records |= _read(other, data[: data.rfind(b"\n") + 1], settings)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        try:
            self._resume(path, settings)
        except BaseException:
            self._file.close()
            raise

    def add(self, key: str, record: Record) -> None:
        """Keeps a record, on disk before this returns."""
        self.records[key] = record
        self._write({"key": key, **record})

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _resume(self, path: Path, settings: Record) -> None:
        self._file.seek(0)
        data = self._file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._file.truncate(len(whole))
        if not whole:
            self._write({"settings": settings})
        self.records |= _read(path, whole, settings)

    def _write(self, value: Record) -> None:
        self._file.write(json.dumps(value, ensure_ascii=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def _read(path: Path, data: bytes, settings: Record) -> dict[str, Record]:
    """The records of a log's whole lines. Raises BadRequest if its settings are not these."""
    # Not splitlines(): it would part a line at some characters of a text in it.
    lines = [json.loads(line) for line in data.split(b"\n") if line]
    before = lines[0].get("settings", {}) if lines else settings
    if before != settings:
        names = {**before, **settings}
        other = [name for name in names if before.get(name) != settings.get(name)]
        raise BadRequest(
            f"{path} was begun with another {', '.join(other)}: remove it, or write elsewhere"
        )
    return {line.pop("key"): line for line in lines[1:]}
