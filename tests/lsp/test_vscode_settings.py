"""The settings of the extension for VS Code are the server's: names, defaults, limits, words.

They are written in `editors/vscode/package.json`, which VS Code reads before anything runs.
"""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from diffgemma_lsp.settings.schema import SETTINGS, Settings
from diffgemma_lsp.settings.sources import read_own, read_shared

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = json.loads((ROOT / "editors/vscode/package.json").read_text(encoding="utf-8"))
PROPERTIES: dict[str, dict[str, Any]] = PACKAGE["contributes"]["configuration"]["properties"]
# Of the extension itself; the server never hears of them.
OWN = {"diffgemma.server.path", "diffgemma.server.languages"}
# Settings for a part of the documents; VS Code shows them as JSON.
SCOPES = {"diffgemma.languages", "diffgemma.globs"}
REACH = {"document": "resource", "session": "window", "machine": "machine"}


# What is not any text.
A_TEXT = {"engine_url": "https://gpu", "engine_token_file": "/token"}


def camel(name: str) -> str:
    """The setting's name as VS Code's users write it."""
    first, *rest = name.split("_")
    return "diffgemma." + first + "".join(word.title() for word in rest)


def said() -> dict[str, str]:
    """What the server says of each setting."""
    lines = (Settings.__doc__ or "").splitlines()[2:]
    joined = re.sub(r"\n {8}", " ", "\n".join(lines))
    return dict(re.findall(r"^    (\w+): (.*)$", joined, re.MULTILINE))


def plain(value: object) -> object:
    """A default as JSON has it."""
    return list(value) if isinstance(value, tuple) else value


def pairs(known: dict[str, Any]) -> object:
    """A default of the extension as the server has it in JSON."""
    default = known["default"]
    return [*default.items()] if isinstance(default, dict) else default


def test_there_are_the_same_settings() -> None:
    assert {camel(name) for name in SETTINGS} | OWN | SCOPES == set(PROPERTIES)


@pytest.mark.parametrize("field", fields(Settings), ids=lambda field: field.name)
def test_a_setting_is_the_servers(field: Any) -> None:
    known = PROPERTIES[camel(field.name)]
    rule, reach = SETTINGS[field.name]
    assert pairs(known) == plain(field.default)
    assert known["scope"] == REACH[reach]
    words = said()[field.name]
    assert known["markdownDescription"] == words[0].upper() + words[1:]
    types = known["type"] if isinstance(known["type"], list) else [known["type"]]
    examples: dict[str, list[Any]] = {
        "boolean": [True, False],
        "string": [A_TEXT.get(field.name, "text")],
        "array": [["a", "b"]],
        "integer": [known.get("minimum"), known.get("maximum")],
        "number": [known.get("minimum"), known.get("maximum")],
        "null": [None],
        "object": [{"rust": "mini"}, {}],
    }
    for kind in types:
        for value in examples[kind]:
            rule.read(value)  # raises ValueError if the server would not take it
    for value in ({"a": {}}, *([] if "null" in types else [None])):
        with pytest.raises(ValueError, match=r"^(a|the|true) "):
            rule.read(value)


@pytest.mark.parametrize("name", sorted(n for n in PROPERTIES if "minimum" in PROPERTIES[n]))
def test_less_than_the_least_is_refused(name: str) -> None:
    least = PROPERTIES[name]["minimum"]
    source = read_own({name.removeprefix("diffgemma."): least - 1})
    assert source.values == {}
    assert len(source.complaints) == 1


def test_the_defaults_make_no_difference_and_no_complaint() -> None:
    shared = {
        name.removeprefix("diffgemma."): known["default"]
        for name, known in PROPERTIES.items()
        if known["scope"] != "machine"
    }
    source = read_shared(shared, Settings())
    assert source.complaints == ()
    assert Settings(**source.values) == Settings()


def test_a_folder_that_is_not_trusted_can_only_turn_it_off() -> None:
    limited = PACKAGE["capabilities"]["untrustedWorkspaces"]
    assert limited["supported"] == "limited"
    of_workspaces = {name for name, known in PROPERTIES.items() if known["scope"] != "machine"}
    assert set(limited["restrictedConfigurations"]) == of_workspaces - {"diffgemma.enable"}
    assert all(PROPERTIES[name]["scope"] == "machine" for name in OWN)
