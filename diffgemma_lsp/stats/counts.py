"""How many suggestions were shown, taken and kept, by day, language and confidence: one file among
the user's own, that several servers add to. There is no text in it, and no path.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Literal, NamedTuple

logger = logging.getLogger(__name__)

Kind = Literal[
    "shown",
    "accepted",
    "accepted_whole",
    "characters",
    "seen_after_30s",
    "kept_30s",
    "seen_after_5min",
    "kept_5min",
]
"""What is counted. accepted: taken at least in part. characters: of what was taken. seen_after:
of those accepted, how many were in a document that was still open then; kept: still stood there."""

KEPT_DAYS = 400
"""Days after which numbers are dropped."""

LOCK_S = 1.0
"""For so long another server may be writing."""

_VERSION = 1


class Group(NamedTuple):
    """What is counted together. day: ISO 8601. confidence: in tenths, rounded down, as text; "" if
    it was not measured."""

    day: str
    language: str
    confidence: str


Counts = dict[Group, Counter[str]]


def stats_file() -> Path:
    """Where the numbers are kept. Creates nothing."""
    import platformdirs

    return platformdirs.user_state_path("diffgemma-lsp") / "stats.json"


def band(confidence: float | None) -> str:
    """The tenth that a confidence from 0 to 1 lies in."""
    return "" if confidence is None else f"{min(9, int(confidence * 10)) / 10:.1f}"


class Stats:
    """What has been counted since the numbers were last written, and the file they go to."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._new: Counts = {}
        self.session: Counter[str] = Counter()  # all since this began

    def add(self, kind: Kind, language: str, confidence: float | None, number: int = 1) -> None:
        """Counts something of today."""
        group = Group(date.today().isoformat(), language, band(confidence))
        self._new.setdefault(group, Counter())[kind] += number
        self.session[kind] += number

    @property
    def unwritten(self) -> bool:
        """Whether the file lacks anything."""
        return bool(self._new)

    def write(self) -> None:
        """Adds what is new to the file. What can't be written is logged, and kept for next time."""
        from filelock import FileLock, Timeout

        new, self._new = self._new, {}
        path = self._path or stats_file()
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with FileLock(path.with_suffix(".lock"), timeout=LOCK_S, mode=0o600):
                known = read(path)
                add_up(known, new)
                _replace(path, known)
        except (OSError, Timeout, NotImplementedError) as error:
            logger.warning("%s can't be written: %s", path, getattr(error, "strerror", error))
            add_up(self._new, new)


def read(path: Path) -> Counts:
    """The numbers in the file; none if it is not there. One that can't be read is put aside.

    Raises OSError.
    """
    try:
        said: Any = json.loads(path.read_text(encoding="utf-8"))
        if said["version"] != _VERSION:
            raise ValueError(f"version {said['version']}")
        return {
            Group(str(day), str(language), str(confidence)): Counter(dict(_numbers(numbers)))
            for day, language, confidence, numbers in said["counts"]
        }
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        aside = path.with_suffix(".broken.json")
        logger.warning("%s is broken (%s): it goes on from nothing, %s", path, error, aside)
        path.replace(aside)
        return {}


def add_up(counts: Counts, more: Counts) -> None:
    """Adds `more` to `counts`."""
    for group, numbers in more.items():
        counts.setdefault(group, Counter()).update(numbers)


def together(counts: Iterable[tuple[Group, Counter[str]]]) -> Counter[str]:
    """All numbers in one."""
    total: Counter[str] = Counter()
    for _, numbers in counts:
        total.update(numbers)
    return total


def _numbers(said: dict[str, int]) -> Iterator[tuple[str, int]]:
    for kind, number in said.items():
        if type(number) is not int:
            raise ValueError(f"{kind} is not a number")
        yield kind, number


def _replace(path: Path, counts: Counts) -> None:
    oldest = (date.today() - timedelta(days=KEPT_DAYS)).isoformat()
    rows = [[*group, dict(n)] for group, n in sorted(counts.items()) if group.day >= oldest]
    part = path.with_suffix(".part")
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump({"version": _VERSION, "counts": rows}, file)
    part.replace(path)
