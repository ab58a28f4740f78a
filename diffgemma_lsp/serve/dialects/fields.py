"""The fields of a body, read with care: what is missing is None or empty, what is of another kind
than it should be is a BadRequest that names it, and what nobody here knows is ignored."""

from __future__ import annotations

from typing import Any, cast

from diffgemma_lsp.serve.ask import LONGEST, MOST_ANSWERS
from engine.errors import BadRequest
from engine.types import Snippet

Json = dict[str, Any]


def text(body: Json, name: str, default: str | None = "") -> str:
    """A text. default: None if it must be there."""
    value = body.get(name)
    value = default if value is None else value
    if not isinstance(value, str):
        raise BadRequest(f"{name} must be a text")
    return value


def number(body: Json, name: str) -> int | None:
    """A whole number, or None."""
    value = body.get(name)
    if value is not None and type(value) not in (int, float):
        raise BadRequest(f"{name} must be a number")
    return None if value is None or not -(2**63) < value < 2**63 else int(value)


def most_tokens(body: Json, *names: str) -> int | None:
    """The most tokens of an answer; what is below 1 leaves it to us."""
    given = next((n for name in names if (n := number(body, name)) is not None), None)
    return None if given is None or given < 1 else min(given, LONGEST)


def answers(body: Json, *names: str) -> int:
    """How many different answers are wanted."""
    given = next((n for name in names if (n := number(body, name)) is not None), 1)
    return max(1, min(given, MOST_ANSWERS))


def seed(body: Json, *names: str) -> int:
    """The seed; what is below 0 means any."""
    return max(0, next((n for name in names if (n := number(body, name)) is not None), 0))


def texts(body: Json, name: str) -> tuple[str, ...]:
    """One text or a list of them, without empty ones."""
    value = body.get(name)
    if value is None:
        return ()
    found = cast("list[Any]", value if isinstance(value, list) else [value])
    if not all(isinstance(one, str) for one in found):
        raise BadRequest(f"{name} must be a list of texts")
    return tuple(one for one in found if one)


def flag(body: Json, name: str, default: bool = False) -> bool:
    """True or false."""
    value = body.get(name)
    return default if value is None else bool(value)


def within(body: Json, name: str) -> Json:
    """An object in it; empty if it is not there."""
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadRequest(f"{name} must be an object")
    return cast("Json", value)


def snippets(body: Json, name: str, path: str, content: str) -> tuple[Snippet, ...]:
    """A list of pieces of files, whose path and text are called so."""
    value = body.get(name)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):  # pyright: ignore[reportUnknownVariableType]
        raise BadRequest(f"{name} must be a list of objects")
    found = cast("list[Json]", value)
    return tuple(Snippet(text(one, path), text(one, content, None)) for one in found)
