"""What a user can set, the defaults, and what is said about a value that makes no sense.

Settings come from the client's `initializationOptions`, by these names or their camelCase.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, TypeVar, cast
from urllib.parse import unquote

T = TypeVar("T")


class _Rule(NamedTuple):
    """`read` gives the value to use, or raises ValueError; `expected` is what to say then."""

    expected: str
    read: Callable[[Any], Any]


def _plain(expected: str, fits: Callable[[Any], bool]) -> _Rule:
    def read(raw: Any) -> Any:
        if not fits(raw):
            raise ValueError(expected)
        return raw

    return _Rule(expected, read)


def _is_text(raw: Any) -> bool:
    return isinstance(raw, str) and bool(raw.strip())


def _is_texts(raw: Any) -> bool:
    return isinstance(raw, list) and all(map(_is_text, cast("list[Any]", raw)))


def _flag() -> _Rule:
    return _plain("true or false", lambda raw: isinstance(raw, bool))


def _whole(low: int, high: int) -> _Rule:
    # Not isinstance: True is an int.
    return _plain(
        f"a whole number from {low} to {high}", lambda raw: type(raw) is int and low <= raw <= high
    )


def _number(low: float, high: float) -> _Rule:
    return _plain(
        f"a number from {low:g} to {high:g}",
        lambda raw: type(raw) in (int, float) and low <= raw <= high,
    )


def _name() -> _Rule:
    return _plain("a text", _is_text)


def _names() -> _Rule:
    rule = _plain("a list of texts", _is_texts)

    def read(raw: Any) -> tuple[str, ...]:
        return tuple(rule.read(raw))

    return _Rule(rule.expected, read)


def _optional(rule: _Rule) -> _Rule:
    def read(raw: Any) -> Any:
        return None if raw is None else rule.read(raw)

    return _Rule(f"{rule.expected}, or null", read)


def _setting(default: T, rule: _Rule) -> T:
    return field(default=default, metadata={"rule": rule})


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings.

    enable: False turns every suggestion off.
    languages_off, globs_off: language ids, and patterns of paths, that get no suggestions.
    warm_up: start the engine and load the model as soon as the editor is there.
    automatic_budget_ms, invoked_budget_ms: the time from the arrival of a request to its answer,
        for suggestions while typing, and for those that the user asked for.
    max_tokens: the most tokens of a suggestion while typing; null leaves it to the model.
    max_lines: the most lines of a suggestion while typing; null shows all.
    min_confidence: nothing is shown of which the model is less sure than this, from 0 to 1.
    neighbours: other files may be read, open ones and those that a document imports, if the model
        makes something of them.
    model, device: what the engine runs, and on what; null chooses the embedded model and the best
        device there is.
    idle_unload_s, idle_exit_s: seconds without a request after which the engine frees the memory
        of the model, and after which it exits; null means never.
    seed: the same seed gives the same suggestion for the same text.
    """

    enable: bool = _setting(True, _flag())
    languages_off: tuple[str, ...] = _setting((), _names())
    globs_off: tuple[str, ...] = _setting((), _names())
    warm_up: bool = _setting(True, _flag())
    automatic_budget_ms: int = _setting(550, _whole(50, 60_000))
    invoked_budget_ms: int = _setting(5_000, _whole(50, 600_000))
    max_tokens: int | None = _setting(32, _optional(_whole(1, 4_096)))
    max_lines: int | None = _setting(None, _optional(_whole(1, 1_000)))
    min_confidence: float = _setting(0.0, _number(0, 1))
    neighbours: bool = _setting(True, _flag())
    model: str | None = _setting(None, _optional(_name()))
    device: str | None = _setting(None, _optional(_name()))
    idle_unload_s: float | None = _setting(900.0, _optional(_number(1, 31_536_000)))
    idle_exit_s: float | None = _setting(3_600.0, _optional(_number(1, 31_536_000)))
    seed: int = _setting(0, _whole(0, 2**63 - 1))

    def off(self, uri: str, language_id: str) -> str | None:
        """Why there are no suggestions in this document, or None if there are."""
        if not self.enable:
            return "suggestions are turned off (setting enable)"
        if language_id in self.languages_off:
            return f"suggestions are turned off for {language_id} (setting languages_off)"
        path = unquote(uri.partition(":")[2]).removeprefix("//")
        for glob in self.globs_off:
            if fnmatchcase(path, glob) or fnmatchcase(path, f"*/{glob}"):
                return f"suggestions are turned off for {glob} (setting globs_off)"
        return None


def parse(raw: object) -> tuple[Settings, list[str]]:
    """The settings that `raw` asks for, and a line about everything in it that is wrong.

    A wrong value leaves its setting at the default; the others still count.
    """
    if raw is None:
        return Settings(), []
    if not isinstance(raw, dict):
        return Settings(), [f"initializationOptions: expected an object, got {_short(raw)}"]
    rules = {f.name: f.metadata["rule"] for f in fields(Settings)}
    values: dict[str, Any] = {}
    messages: list[str] = []
    for key, value in cast("dict[str, Any]", raw).items():
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", key).lower()
        if name not in rules:
            messages.append(f"{_short(key)}: there is no such setting; it is ignored")
            continue
        try:
            values[name] = rules[name].read(value)
        except ValueError:
            messages.append(
                f"{name}: expected {rules[name].expected}, got {_short(value)};"
                f" using {_short(getattr(Settings(), name))}"
            )
    return Settings(**values), messages


def _short(value: object) -> str:
    shown = json.dumps(value, default=repr, ensure_ascii=False)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
