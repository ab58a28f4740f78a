"""Patterns of paths, meant as git and VS Code mean them.

`*` and `?` stay within a name, `**` is any number of folders, `[ab]` one of these characters and
`{a,b}` one of these texts. A pattern begins anywhere behind a slash, unless it begins with a slash
or `~`. What lies in a folder that fits does too; with a slash at the end only that.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import lru_cache
from itertools import islice
from urllib.parse import unquote

_MOST = 256
"""A pattern with braces stands for no more patterns than these."""

_BRACES = 32


def path_of(uri: str) -> str:
    """What a URI says behind its scheme, as a path."""
    return unquote(uri.partition(":")[2]).removeprefix("//")


def fits_uri(uri: str, glob: str) -> bool:
    """Whether a document's path fits a pattern."""
    return fits(path_of(uri), glob)


def fits(path: str, glob: str) -> bool:
    """Whether a whole path fits, or a folder that it is in."""
    return any(_fits(path, way) for way in _ways(glob))


def problem(glob: str) -> str | None:
    """What is wrong with a pattern, so that it can't fit what is meant; None if nothing is."""
    if glob.startswith("!"):
        return "there is no `!` for what is not meant"
    if "\\" in glob:
        return "folders are separated by `/`, and nothing is escaped by a backslash"
    if {"..", "."} & {*glob.removeprefix("./").split("/")}:
        return "there is no `.` or `..` within a pattern"
    if not _in_pairs(glob):
        return "its braces don't come in pairs"
    if len(_ways(glob)) > _MOST:
        return "its braces stand for too many patterns"
    return None


def _in_pairs(glob: str) -> bool:
    depth = 0
    for char in glob:
        depth += (char == "{") - (char == "}")
        if depth < 0:
            return False
    return depth == 0


@lru_cache(maxsize=512)
def _ways(glob: str) -> list[str]:
    """The patterns without braces that one with braces stands for, at most one too many."""
    if not _in_pairs(glob):
        return [glob]
    if glob.count("{") > _BRACES:
        return [glob] * (_MOST + 1)
    return list(islice(_expanded(glob), _MOST + 1))


def _expanded(glob: str) -> Iterator[str]:
    start = glob.rfind("{")  # the innermost ones first
    if start < 0:
        yield glob
        return
    end = glob.index("}", start)
    for way in glob[start + 1 : end].split(","):
        yield from _expanded(glob[:start] + way + glob[end + 1 :])


def _fits(path: str, glob: str) -> bool:
    glob = os.path.expanduser(glob) if glob.startswith("~") else glob.removeprefix("./")
    whole = glob.startswith("/")
    if whole and not path.startswith("/"):
        return False
    names = path.removeprefix("/").split("/")
    parts = glob.removeprefix("/").removesuffix("/").split("/")
    # Up to where in the path the parts so far may reach.
    reached = {0} if whole else set(range(len(names)))
    for part in parts:
        if part == "**":
            reached = set(range(min(reached, default=len(names) + 1), len(names) + 1))
        else:
            fitting = (at for at in reached if at < len(names) and fnmatchcase(names[at], part))
            reached = {at + 1 for at in fitting}
    return any(at < len(names) or not glob.endswith("/") for at in reached)
