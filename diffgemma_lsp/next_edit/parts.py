"""What is said of an edit and of what may have to follow it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Region(NamedTuple):
    """An edit in a document: `old` is what stood where now there are the lines `first` to `last`.
    It has line ends, "\\n" alone. origin: the number of the change that it is or follows."""

    old: str
    first: int
    last: int
    origin: int = 0


@dataclass(frozen=True, slots=True)
class Op:
    """A part of an edit: the tokens `start` to `end` of the document in the place of the tokens
    `low` to `high` of what stood there."""

    low: int
    high: int
    start: int
    end: int


class Change(NamedTuple):
    """`new` in place of the characters from `start` to `end` of the document."""

    start: int
    end: int
    new: str


class Place(NamedTuple):
    """A line, and what may have to stand in its place, the likeliest first; without line ends."""

    line: int
    choices: tuple[str, ...]
