"""Helix: a block at the end of languages.toml.

Helix merges the tables of a language by its name, the later over the earlier, and takes the later
list of servers whole: so the block repeats the list that holds, with one more server.
"""

from __future__ import annotations

import json
import tomllib
from typing import Any

from diffgemma_lsp.setup.edits import Block, Refused
from diffgemma_lsp.setup.place import Place, Setup, on_path

_NAME = "diffgemma"
_LANGUAGE = "python"
_OWN = ("ty", "ruff", "jedi", "pylsp")
"""What Helix 25.07 starts for Python; those that are not there it passes over."""


def is_here(place: Place) -> bool:
    return on_path("hx", "helix") or (place.config / "helix").is_dir()


def setup(place: Place) -> Setup:
    def lines(rest: str) -> str:
        return _lines(place, rest)

    return Setup(
        {place.config / "helix" / "languages.toml": Block("#", lines)},
        then=("Helix has no ghost text: suggestions are the last entry of the menu (Ctrl-x).",),
    )


def _lines(place: Place, rest: str) -> str:
    """The block behind the rest of the file. Raises Refused."""
    servers = _servers(rest)
    lines = f"[language-server.{_NAME}]\ncommand = {_inline(place.program)}\n"
    if place.other_model is not None:
        lines += f"config = {{ model = {_inline(place.other_model)} }}\n"
    lines += f'\n[[language]]\nname = "{_LANGUAGE}"\nlanguage-servers = {_inline(servers)}\n'
    try:
        parsed = tomllib.loads(f"{rest}\n{lines}")
    except tomllib.TOMLDecodeError as error:
        raise Refused(f"its tables can't be added to ({error})") from error
    if parsed["language"][-1] != {"name": _LANGUAGE, "language-servers": servers}:
        raise Refused("its tables can't be added to")
    return lines


def _servers(rest: str) -> list[Any]:
    """The servers that hold for the language, and this one."""
    try:
        parsed = tomllib.loads(rest)
        if _NAME in parsed.get("language-server", {}):
            raise Refused(f"it has a language-server.{_NAME} already")
        lists = [
            one["language-servers"]
            for one in parsed.get("language", [])
            if one.get("name") == _LANGUAGE and "language-servers" in one
        ]
    except (tomllib.TOMLDecodeError, AttributeError, TypeError) as error:
        raise Refused(f"it is not as Helix reads it ({error})") from error
    servers: list[Any] = [*(lists[-1] if lists else _OWN)]
    return servers if _NAME in servers else [*servers, _NAME]


def _inline(value: Any) -> str:
    """A value as TOML has it in one line: strings, and lists and tables of them."""
    if isinstance(value, list):
        return f"[{', '.join(map(_inline, value))}]"  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(value, dict):
        pairs = (f"{_inline(key)} = {_inline(it)}" for key, it in value.items())  # pyright: ignore
        return f"{{ {', '.join(pairs)} }}"
    return json.dumps(value, ensure_ascii=False)
