"""What a user can set, to what, and what holds by default.

`sources.py` reads what a source says, and `effective.py` lays all sources over one another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Literal, NamedTuple, TypeVar, cast
from urllib.parse import urlsplit

from diffgemma_lsp.settings.globs import problem

T = TypeVar("T")
Reach = Literal["document", "session", "machine"]
"""How far a setting reaches: one value for each document, for the whole session, or for all that
run on the machine.

What is "machine" decides what is loaded and run. A client pushes and answers with settings that can
come from a workspace (.vscode/settings.json, .dir-locals.el, ...), and to open somebody's folder
must not be enough to choose a model or a device. So only initializationOptions set it: those are
the editor's own configuration, written by its user.
"""


class Rule(NamedTuple):
    """`read` gives the value to use, or raises ValueError with what is expected, which is mostly
    `expected`."""

    expected: str
    read: Callable[[Any], Any]


def _plain(expected: str, fits: Callable[[Any], bool]) -> Rule:
    def read(raw: Any) -> Any:
        if not fits(raw):
            raise ValueError(expected)
        return raw

    return Rule(expected, read)


def _is_text(raw: Any) -> bool:
    return isinstance(raw, str) and bool(raw.strip())


def _is_texts(raw: Any) -> bool:
    return isinstance(raw, list) and all(map(_is_text, cast("list[Any]", raw)))


def _flag() -> Rule:
    return _plain("true or false", lambda raw: isinstance(raw, bool))


def _whole(low: int, high: int) -> Rule:
    # Not isinstance: True is an int.
    return _plain(
        f"a whole number from {low} to {high}", lambda raw: type(raw) is int and low <= raw <= high
    )


def _number(low: float, high: float) -> Rule:
    return _plain(
        f"a number from {low:g} to {high:g}",
        lambda raw: type(raw) in (int, float) and low <= raw <= high,
    )


def _name() -> Rule:
    return _plain("a text", _is_text)


def _model() -> Rule:
    # Relative to what? The folder that an editor opens must not choose a model.
    return _plain(
        "the name of a model, or the absolute path of its folder",
        lambda raw: _is_text(raw) and not raw.startswith("."),
    )


def _models() -> Rule:
    model, expected = _model(), "a model for each language or path, as an object"

    def read(raw: Any) -> tuple[tuple[str, str], ...]:
        if raw == []:  # Lua's empty table
            return ()
        if not isinstance(raw, dict):
            raise ValueError(expected)
        named = cast("dict[Any, Any]", raw)
        for key, value in named.items():
            try:
                if not _is_text(key) or problem(key) is not None:
                    raise ValueError
                model.read(value)
            except ValueError:
                raise ValueError(f"{expected} ({str(key)[:40]!r} is wrong)") from None
        return tuple(named.items())

    return Rule(expected, read)


def _url() -> Rule:
    return _plain("the URL of an engine: https, or http on this machine", is_engine_url)


def is_engine_url(raw: Any) -> bool:
    """Whether it is the URL of an engine that may be talked to."""
    if not isinstance(raw, str):
        return False
    try:
        parts = urlsplit(raw)
        odd = not parts.hostname or parts.query or parts.username or parts.port == 0
    except ValueError:
        return False
    # Code and tokens do not go through a network that others can read.
    local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    return not odd and (parts.scheme == "https" or (parts.scheme == "http" and local))


def _file() -> Rule:
    return _plain("the absolute path of a file", lambda raw: _is_text(raw) and raw[0] in "/~")


def _names() -> Rule:
    rule = _plain("a list of texts", _is_texts)

    def read(raw: Any) -> tuple[str, ...]:
        return tuple(rule.read(raw))

    return Rule(rule.expected, read)


def _optional(rule: Rule) -> Rule:
    def read(raw: Any) -> Any:
        return None if raw is None else rule.read(raw)

    return Rule(f"{rule.expected}, or null", read)


def _setting(default: T, rule: Rule, reach: Reach = "document") -> T:
    return field(default=default, metadata={"rule": rule, "reach": reach})


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings. What is said of each here is what editors show of it.

    enable: false turns every suggestion off.
    languages_off: language ids that get no suggestions.
    globs_off: patterns of paths that get no suggestions.
    warm_up: load the model as soon as a document is open that it serves.
    automatic_budget_ms: the time for a suggestion while typing, in milliseconds.
    invoked_budget_ms: the time for a suggestion that you asked for, in milliseconds.
    action_budget_ms: the time for what changes a document, rewrites and filling holes, in
        milliseconds.
    rewrite_strength: how much of a selection a rewrite may change, from 0 to 1.
    markers: texts that mark holes to be filled, beside `...`, `___` and TODO lines.
    candidates: how many different suggestions there are to choose from when you ask for one.
    look_ahead: think of the next suggestion while one is shown, as if it were accepted; read what
        stands in front of the cursor when it has moved.
    next_edits: after an edit, offer the other places of the document that must follow, one at a
        time, to editors that ask for them.
    max_tokens: the most tokens of a suggestion while typing; null leaves it to the model.
    max_lines: the most lines of a suggestion while typing; null shows all.
    min_confidence: show nothing of which the model is less sure than this, from 0 to 1; null leaves
        what comes by itself to the model, and shows all that you asked for.
    neighbours: read other files, open ones and those that a document imports, if the model makes
        something of them.
    stats: count what is shown, accepted and kept, in a file on this machine, for
        `diffgemma-lsp stats`.
    model: the model that the engine runs, a name that `diffgemma-lsp models` lists, the absolute
        path of a folder or a name on the hub; null means mini where its base is, else nano.
    models: other models for a language or for paths, such as `{"rust": "dreamon", "~/work/**":
        "mini"}`; each has an engine of its own beside that of `model`.
    device: on what the engine runs the model, such as `cpu` or `cuda`; null means the best there
        is.
    engine_url: where an engine runs that `diffgemma-lsp serve` lends out; nothing is loaded here
        then.
    engine_token_file: a file with the token for it, that only you can read.
    idle_unload_s: seconds without a request after which the engine frees the memory of the model;
        null means never.
    idle_exit_s: seconds without a request after which the engine ends; null means never.
    seed: the same seed gives the same suggestion for the same text.
    """

    enable: bool = _setting(True, _flag())
    languages_off: tuple[str, ...] = _setting((), _names(), "session")
    globs_off: tuple[str, ...] = _setting((), _names(), "session")
    warm_up: bool = _setting(True, _flag(), "session")
    automatic_budget_ms: int = _setting(550, _whole(50, 60_000))
    invoked_budget_ms: int = _setting(5_000, _whole(50, 600_000))
    action_budget_ms: int = _setting(30_000, _whole(50, 3_600_000))
    rewrite_strength: float = _setting(0.6, _number(0, 1))
    markers: tuple[str, ...] = _setting((), _names())
    candidates: int = _setting(3, _whole(1, 10))
    look_ahead: bool = _setting(True, _flag())
    next_edits: bool = _setting(True, _flag())
    max_tokens: int | None = _setting(32, _optional(_whole(1, 4_096)))
    max_lines: int | None = _setting(None, _optional(_whole(1, 1_000)))
    min_confidence: float | None = _setting(None, _optional(_number(0, 1)))
    neighbours: bool = _setting(True, _flag(), "session")
    stats: bool = _setting(True, _flag(), "session")
    model: str | None = _setting(None, _optional(_model()), "machine")
    models: tuple[tuple[str, str], ...] = _setting((), _models(), "machine")
    device: str | None = _setting(None, _optional(_name()), "machine")
    engine_url: str | None = _setting(None, _optional(_url()), "machine")
    engine_token_file: str | None = _setting(None, _optional(_file()), "machine")
    idle_unload_s: float | None = _setting(900.0, _optional(_number(1, 31_536_000)), "machine")
    idle_exit_s: float | None = _setting(3_600.0, _optional(_number(1, 31_536_000)), "machine")
    seed: int = _setting(0, _whole(0, 2**63 - 1))


class Known(NamedTuple):
    """What is known of a setting besides its default."""

    rule: Rule
    reach: Reach


SETTINGS = {f.name: Known(f.metadata["rule"], f.metadata["reach"]) for f in fields(Settings)}
