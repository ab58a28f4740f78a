"""What one source of settings says, and a line about everything in it that makes no sense.

Names are those of the settings or their camelCase. Besides them a source can have `languages` and
`globs`: settings for the documents of a language, or for those whose path fits a glob.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, cast

from diffgemma_lsp.settings import globs
from diffgemma_lsp.settings.schema import SETTINGS, Settings

Values = dict[str, Any]
"""What settings are set to, by their names; each has passed its rule."""

SECTION = "diffgemma"
"""The name under which clients keep this server's settings among those of others."""

_SCOPES = ("languages", "globs")
# What vscode-languageclient keeps for itself in the section of its server.
_OF_CLIENTS = ("trace",)


@dataclass(frozen=True, slots=True)
class Source:
    """What one source of settings says, and a line about everything in it that is wrong.

    values: for all documents.
    languages, globs: for those of a language, and for those whose path fits a glob.
    """

    values: Values = field(default_factory=Values)
    languages: dict[str, Values] = field(default_factory=dict[str, Values])
    globs: dict[str, Values] = field(default_factory=dict[str, Values])
    complaints: tuple[str, ...] = ()


def read_own(raw: object) -> Source:
    """What the client's initializationOptions say."""
    return _SourceReader(Settings(), own=True).read(raw, "initializationOptions")


def read_shared(raw: object, below: Settings) -> Source:
    """What a client pushed or answered, which a workspace may have had a say in.

    below: what holds where this source says nothing. null is "not set" here, unless the setting has
    a meaning for it: clients send it for what nobody has configured.
    """
    return _SourceReader(below, own=False).read(raw, "settings")


def section(raw: object) -> object:
    """This server's part of pushed settings: under its name, or bare among others' sections."""
    table = _table(raw)
    if not table:
        return raw
    if SECTION in table:
        return table[SECTION]
    named = {*SETTINGS, *_SCOPES}
    return {
        key: value
        for key, value in table.items()
        if _snake(key) in named or not isinstance(value, dict | list | None)
    }


class _SourceReader:
    """Reads one source. A wrong value counts as not said, and the others still hold."""

    def __init__(self, below: Settings, own: bool) -> None:
        self._below = below
        self._own = own
        self._complaints: list[str] = []

    def read(self, raw: object, name: str) -> Source:
        """What `raw` says, which is called `name` if it is something else altogether."""
        values: Values = {}
        scopes: dict[str, dict[str, Values]] = {name: {} for name in _SCOPES}
        for key, value in self._items(raw, name):
            if (scope := _snake(key)) in scopes:
                scopes[scope] = self._overrides(value, scope)
            else:
                self._take(values, key, value)
        return Source(values, **scopes, complaints=tuple(self._complaints))

    def _overrides(self, raw: object, name: str) -> dict[str, Values]:
        overrides: dict[str, Values] = {}
        for key, inner in self._items(raw, name):
            values: Values = {}
            if name == "globs" and not self._makes_sense(key, name):
                continue
            scope = f"{name}[{_short(key)}]"
            for setting, value in self._items(inner, scope):
                self._take(values, setting, value, f"{scope}.")
            overrides[key] = values
        return overrides

    def _take(self, values: Values, key: str, raw: object, scope: str = "") -> None:
        """Puts the value of one setting into `values`, or complains of it."""
        name = _snake(key)
        known = SETTINGS.get(name)
        if known is None:
            if self._own or key not in _OF_CLIENTS:
                self._complain(f"{scope}{_short(key)}: there is no such setting; it is ignored")
            return
        rule, reach = known
        try:
            value = rule.read(raw)
        except ValueError as error:
            if raw is None and not self._own:
                return
            instead = "it is ignored" if scope else f"using {_short(getattr(self._below, name))}"
            expected = f"expected {error}, got {_short(raw)}"
            self._complain(f"{scope}{name}: {expected}; {instead}")
            return
        if reach == "machine" and (scope or not self._own):
            # Some clients say the same, or null, in each way: no reason to speak of it.
            if raw is not None and value != getattr(self._below, name):
                self._complain(f"{scope}{name}: only initializationOptions set it; it is ignored")
        elif reach == "session" and scope:
            self._complain(f"{scope}{name}: it can't differ between documents; it is ignored")
        elif name == "globs_off":
            # One by one: what else is kept out stays out.
            values[name] = tuple(glob for glob in value if self._makes_sense(glob, name))
        else:
            values[name] = value

    def _makes_sense(self, glob: str, what: str) -> bool:
        """Whether a pattern can fit what is meant by it; complains if it can't."""
        if (problem := globs.problem(glob)) is not None:
            self._complain(f"{what}: {_short(glob)}: {problem}; it is ignored")
        return problem is None

    def _items(self, raw: object, what: str) -> Iterable[tuple[str, object]]:
        table = _table(raw)
        if table is None:
            self._complain(f"{what}: expected an object, got {_short(raw)}; it is ignored")
            return ()
        return table.items()

    def _complain(self, complaint: str) -> None:
        self._complaints.append(complaint)


def _table(raw: object) -> dict[str, Any] | None:
    """`raw` if it is an object. Nothing is an empty one, and so is Lua's empty table, a list."""
    if raw is None or raw == []:
        return {}
    return cast("dict[str, Any]", raw) if isinstance(raw, dict) else None


def _snake(key: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", key).lower()


def _short(value: object) -> str:
    shown = json.dumps(value, default=repr, ensure_ascii=False)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
