"""Helix: a block at the end of languages.toml.

Helix merges the tables of a language by its name, the later over the earlier, and takes the later
list of servers whole: so the block repeats the list that holds of each language, with one more
server.
"""

from __future__ import annotations

import json
import tomllib
from typing import Any

from diffgemma_lsp.setup.edits import Block, Refused
from diffgemma_lsp.setup.place import Place, Setup, on_path

_NAME = "diffgemma"
_SCRIPT = ("typescript-language-server",)
_OWN: dict[str, tuple[str, ...]] = {
    "python": ("ty", "ruff", "jedi", "pylsp", "zuban"),
    "javascript": _SCRIPT,
    "jsx": _SCRIPT,
    "typescript": _SCRIPT,
    "tsx": _SCRIPT,
    "java": ("jdtls",),
    "go": ("gopls", "golangci-lint-lsp"),
    "rust": ("rust-analyzer",),
    "c": ("clangd",),
    "cpp": ("clangd",),
    "css": ("vscode-css-language-server",),
    "html": ("vscode-html-language-server", "superhtml"),
    "yaml": ("yaml-language-server", "ansible-language-server"),
    "toml": ("taplo", "tombi"),
}
"""The languages in which mini suggests by itself, and what Helix 25.07 starts for each; of these it
passes over what is not there."""


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
    tables = [
        {"name": name, "language-servers": servers} for name, servers in _servers(rest).items()
    ]
    lines = f"[language-server.{_NAME}]\ncommand = {_inline(place.program)}\n"
    if place.other_model is not None:
        lines += f"config = {{ model = {_inline(place.other_model)} }}\n"
    for table in tables:
        lines += "\n[[language]]\n" + "".join(f"{k} = {_inline(v)}\n" for k, v in table.items())
    try:
        parsed = tomllib.loads(f"{rest}\n{lines}")
    except tomllib.TOMLDecodeError as error:
        raise Refused(f"its tables can't be added to ({error})") from error
    if parsed["language"][-len(tables) :] != tables:
        raise Refused("its tables can't be added to")
    return lines


def _servers(rest: str) -> dict[str, list[Any]]:
    """By language, the servers that hold for it, and this one."""
    found: dict[str, list[Any]] = {name: list(servers) for name, servers in _OWN.items()}
    try:
        parsed = tomllib.loads(rest)
        if _NAME in parsed.get("language-server", {}):
            raise Refused(f"it has a language-server.{_NAME} already")
        for one in parsed.get("language", []):
            if one.get("name") in found and "language-servers" in one:
                found[one["name"]] = list(one["language-servers"])
    except (tomllib.TOMLDecodeError, AttributeError, TypeError) as error:
        raise Refused(f"it is not as Helix reads it ({error})") from error
    return {name: them if _NAME in them else [*them, _NAME] for name, them in found.items()}


def _inline(value: Any) -> str:
    """A value as TOML has it in one line: strings, and lists and tables of them."""
    if isinstance(value, list):
        return f"[{', '.join(map(_inline, value))}]"  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(value, dict):
        pairs = (f"{_inline(key)} = {_inline(it)}" for key, it in value.items())  # pyright: ignore
        return f"{{ {', '.join(pairs)} }}"
    return json.dumps(value, ensure_ascii=False)
