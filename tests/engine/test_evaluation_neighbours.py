"""The evaluation of what other files are worth: which holes need them, and the three arms."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny import tiny_engine

from engine.evaluation import neighbours
from engine.evaluation.answers import Answer
from engine.evaluation.definitions import Atlas
from engine.evaluation.holes import Source
from engine.evaluation.neighbours import ALONE, ARMS, SEPARATED, TITLED, arm_profile, judge, needs
from engine.profile import Profile

OVEN = """class Oven:
    def preheat(self, degrees):
        self.temperature = degrees


def unused_helper():
    timer = 1
"""
KITCHEN = """from .oven import Oven
from . import (
    pantry,
)
import os


def bake(oven):
    oven.preheat(180)
    oven.append(1)
    return pantry.flour + os.path
"""
FILES = {
    "cakes/__init__.py": "",
    "cakes/oven.py": OVEN,
    "cakes/pantry.py": "flour = 1\n",
    "cakes/other.py": "def bake(): pass\n",
    "cakes/broken.py": "def (",
    "pies/oven.py": "def append(): pass\n",
    "cakes/kitchen.py": KITCHEN,
}
SOURCES = [Source(name, text) for name, text in FILES.items()]
BY_NAME = {source.name: source for source in SOURCES}


@pytest.mark.parametrize(
    ("word", "place"),
    [
        ("Oven", ("cakes/oven.py", 0)),
        ("preheat", ("cakes/oven.py", 1)),
        ("temperature", ("cakes/oven.py", 2)),
        ("flour", ("cakes/pantry.py", 0)),
        ("append", None),  # everything has it
        ("bake", None),  # not imported
        ("degrees", None),
    ],
)
def test_where_names_are_defined(word: str, place: tuple[str, int] | None) -> None:
    found = Atlas(SOURCES).defined(word, BY_NAME["cakes/kitchen.py"])
    assert (found and (found[0].name, found[1])) == place


def test_which_holes_need_other_files() -> None:
    found = {need.cut.reference: need for need in needs(SOURCES, 0)}
    assert {text: need.names for text, need in found.items()} == {
        "oven.preheat(180)": ("preheat",),
        "return pantry.flour + os.path": ("flour",),
    }
    (piece,) = found["oven.preheat(180)"].context
    assert (piece.path, piece.text) == ("cakes/oven.py", OVEN)


def test_the_arms_differ_in_nothing_else() -> None:
    own = Profile(name="m", separator="<x>", neighbours=False)
    profiles = {arm: arm_profile(own, arm) for arm in ARMS}
    assert [profiles[arm].neighbours for arm in (ALONE, SEPARATED, TITLED)] == [False, True, True]
    assert [profiles[arm].separator for arm in (SEPARATED, TITLED)] == ["<x>", None]


def test_an_evaluation_from_end_to_end_and_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    out = tmp_path / "result.json"
    flags = ["--source", str(tmp_path / "cakes"), "--steps", "2", "--out", str(out)]
    assert neighbours.main(flags) == 0
    first = json.loads(out.read_text(encoding="utf-8"))
    assert first["settings"]["of"] == first["prefixes"]["all"]["holes"] == 2
    assert first["prefixes"]["long"]["holes"] == 0
    assert set(first["prefixes"]["all"]["arms"]) == set(ARMS)
    assert neighbours.main(flags) == 0  # all of it from the log
    assert json.loads(out.read_text(encoding="utf-8"))["prefixes"] == first["prefixes"]
    assert neighbours.main([*flags, "--steps", "3"]) == 2
    assert "another model" in capsys.readouterr().err


def test_a_judge_looks_for_the_name() -> None:
    engine = tiny_engine()
    need = next(need for need in needs(SOURCES, 0) if need.names == ("preheat",))
    right = judge(Answer("oven.preheat(1)"), need, engine)
    assert (right["has_name"], right["exact"]) == (True, False)
    assert not judge(Answer("oven.preheated()"), need, engine)["has_name"]
    found = neighbours.report(
        [dict.fromkeys(ARMS, right) | {ALONE: judge(Answer(""), need, engine)}]
    )
    assert found["differences"]["titled - alone"]["has_name"]["value"] == 1
    assert neighbours.table("all", found).row_count == 5
