"""A log of finished work in JSON lines, from which an interrupted evaluation goes on.

The first line holds the settings. A line that was being written when the process died is dropped.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from engine.errors import BadRequest

Record = dict[str, Any]


class Journal:
    """Records by key, appended to a file as they come; what an earlier run left is in `records`.

    Raises BadRequest if the file is another evaluation's: its settings are not these.
    """

    def __init__(self, path: Path, settings: Record) -> None:
        self.records: dict[str, Record] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        try:
            self._resume(path, json.loads(json.dumps(settings)))
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
        lines = [json.loads(line) for line in whole.splitlines()]
        if not lines:
            self._write({"settings": settings})
            return
        before = lines[0].get("settings", {})
        if before != settings:
            names = {**before, **settings}
            other = [name for name in names if before.get(name) != settings.get(name)]
            raise BadRequest(
                f"{path} was begun with another {', '.join(other)}: remove it, or write elsewhere"
            )
        self.records = {line.pop("key"): line for line in lines[1:]}

    def _write(self, value: Record) -> None:
        self._file.write(json.dumps(value, ensure_ascii=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
