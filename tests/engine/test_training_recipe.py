"""One file describes a training run; what is wrong in it is named in one line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.errors import ModelError, TrainingError
from engine.training import data, train
from engine.training.data import Opened
from engine.training.dataset import Code
from engine.training.files import Files
from engine.training.recipe import Recipe, read_recipe
from engine.training.syntax import SYNTAX_KINDS

NANO = Path(train.__file__).with_name("nano.toml")


def parse(*words: str) -> Recipe:
    return train.recipe_of(train._parser().parse_args(words))


def test_the_shipped_recipe_is_complete_but_for_its_folders(tmp_path: Path) -> None:
    recipe = parse(str(NANO), "--data", str(tmp_path), "--out", "run", "--minutes", "7")
    assert recipe.run.minutes == 7.0
    assert recipe.run.out == Path("run")
    assert isinstance(recipe.data, Code)
    assert recipe.data.folder == tmp_path
    assert set(SYNTAX_KINDS) == set(recipe.data.shares)
    assert recipe.model.tokenizer is not None
    assert (recipe.model.tokenizer / "tokenizer.json").is_file()


def test_the_recipe_for_own_files_is_complete_but_for_them(tmp_path: Path) -> None:
    finetune = str(NANO.with_name("finetune.toml"))
    recipe = parse(finetune, "--files", "list.txt", "--out", "run")
    assert isinstance(recipe.data, Files)
    assert recipe.data.list == Path("list.txt")
    assert (recipe.run.minutes, recipe.lora.rank) == (5.0, 16)
    assert recipe.model.start_from is not None
    assert parse(finetune, "--files", "x", "--out", "y", "--rank", "0").lora.rank == 0
    with pytest.raises(ModelError, match="no model at"):
        parse(finetune, "--files", "x", "--out", "y", "--start-from", str(tmp_path / "none"))


def test_flags_suffice(tmp_path: Path) -> None:
    words = [
        "--minutes",
        "3",
        "--context",
        "512",
        "--canvas",
        "48",
        "--compile",
        "--processes",
        "2",
        "--seed",
        "5",
    ]
    recipe = parse("--data", "d", "--out", "o", "--tokenizer", "t", *words)
    assert (recipe.step.context, recipe.step.canvas, recipe.step.windows) == (512, 48, 4)
    assert (recipe.run.seed, recipe.run.processes, recipe.run.compile) == (5, 2, True)


def test_paths_of_a_file_are_relative_to_it(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('[run]\nout = "here"\nsteps = 2\n[data]\nfolder = "/there"\n')
    recipe = read_recipe(file, {})
    assert recipe.run.out == tmp_path / "here"
    assert recipe.data == Code(Path("/there"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[run\n", "is not TOML"),
        ("minutes = 3\n", r"minutes must be a table, \[minutes\]"),
        ("[data]\nfolder = 'x'\n", r"the table \[run\] is missing"),
        ("[runs]\n[run]\nout='x'\n[data]\n", "table runs is not known; did you mean run"),
        ("[run]\nout='x'\nminuts=1\n[data]\n", r"\[run\] key minuts is not known; .* minutes"),
        ("[run]\nminutes=1\n[data]\n", r"\[run\] out is missing"),
        ("[run]\nout='x'\n[data]\n", r"\[run\] minutes or steps"),
        ("[run]\nout='x'\nminutes='1'\n[data]\n", "minutes must be a number, not '1'"),
        ("[run]\nout='x'\nminutes=true\n[data]\n", "minutes must be a number, not True"),
        ("[run]\nout='x'\nminutes=0\n[data]\n", "minutes must be above 0, not 0"),
        ("[run]\nout='x'\nminutes=1\nprocesses=1.5\n[data]\n", "processes must be a whole number"),
        ("[run]\nout=1\nminutes=1\n[data]\n", "out must be a path, not 1"),
        ("[run]\nout='x'\nminutes=1\n[data]\n", r"\[data\] folder is missing"),
        ("[run]\nout='x'\nminutes=1\n[data]\nkind='chess'\n", "kind must be one of .*code.*chess"),
        (
            "[run]\nout='x'\nminutes=1\nprocesses=3\n[data]\nfolder='y'\n",
            "windows .4. must be a multiple",
        ),
    ],
)
def test_what_is_wrong_is_named_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "run.toml"
    file.write_text(text)
    with pytest.raises(TrainingError, match=said) as caught:
        read_recipe(file, {})
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


def test_the_command_says_so_and_exits_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main([str(tmp_path / "none.toml")]) == 2
    assert train.main(["--data", str(tmp_path), "--out", "o", "--minutes", "1"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "can't read" in first
    assert "train.bin is missing" in second


@dataclass(frozen=True)
class Puzzles:
    """A kind of data of somebody else's."""

    size: int = 9

    def prepare(self, recipe: Recipe) -> None: ...

    def open(self, recipe: Recipe) -> Opened:
        raise NotImplementedError


def test_another_kind_of_data_brings_its_own_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(data.KINDS, "puzzles", f"{__name__}:Puzzles")
    run = {"run": {"out": tmp_path, "steps": 1}}
    recipe = read_recipe(None, {**run, "data": {"kind": "puzzles", "size": 4}})
    assert recipe.data == Puzzles(4)
    with pytest.raises(TrainingError, match="folder is not known"):
        read_recipe(None, {**run, "data": {"kind": "puzzles", "folder": "x"}})
