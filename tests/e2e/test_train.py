"""`diffgemma-lsp train`: from a folder of files to a folder that `--model` takes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from diffgemma_lsp.commands.train import default_out
from engine.engine import InfillEngine
from engine.types import InfillRequest, fill_in_the_middle

pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).parents[2]


def command(*words: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_DATA_HOME": str(home)}
    environment["PYTHONPATH"] = str(ROOT)
    return subprocess.run(
        [sys.executable, "-m", "diffgemma_lsp", "train", *words],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's folder, with a file that git ignores."""
    place = tmp_path / "project"
    (place / "inner").mkdir(parents=True)
    for source in sorted((ROOT / "engine" / "serve").glob("s*.py")):
        (place / "inner" / source.name).write_bytes(source.read_bytes())
    (place / "ignored.py").write_text("password = 1\n" * 40)
    (place / ".gitignore").write_text("ignored.py\n")
    (place / "keyed.py").write_text("token = 'a1b2c3d4e5f6a7b8c9d0e1f2'\n" * 40)
    return place


def test_a_folder_becomes_a_model(folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "small.toml"
    config.write_text(
        f"""
        [run]
        validation = 1
        [data]
        kind = "files"
        [model]
        start_from = "{ROOT / "engine" / "weights" / "nano"}"
        [step]
        windows = 1
        context = 128
        canvases = 2
        canvas = 32
        [lora]
        rank = 4
        """
    )
    words = (str(config), "--folder", str(folder), "--steps", "2", "--minutes", "60")
    done = command(*words, home=tmp_path / "home")
    assert done.returncode == 0, done.stderr
    model = Path(done.stdout.split("--model ")[1].strip())
    out = model.parent
    assert out.is_relative_to(tmp_path / "home")
    listed = (out / "files.txt").read_text()
    assert "inner/scheduler.py" in listed
    assert "ignored.py" not in listed
    assert "keyed.py" not in listed
    assert (out / "loss.svg").is_file()
    few = "2 steps change next to nothing: the same command with more --minutes"
    for said in ("what it trains on", "at step 0", "at step 2", "next in a hole", few):
        assert said in done.stderr
    engine = InfillEngine.load(str(model))
    assert engine.info.model == "nano"
    assert engine.fill(InfillRequest(fill_in_the_middle("x = ", "\n", 4))).steps >= 1

    again = command(*words, home=tmp_path / "home")
    assert again.returncode == 0
    assert "at step 2" in again.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "name a folder"),
        (("--folder", "nowhere"), "nowhere is not a folder"),
        (("--folder", "{here}", "--full", "--rank", "3"), "leave --rank out"),
        (("--folder", "{here}", "--suffix", ".cobol"), "there are no .cobol files"),
        (("{here}/none.toml",), "can't read"),
        (("--folder", "{here}", "--model", "{here}/none"), "no model at"),
        (("--folder", "{here}", "--minutes", "0"), "minutes must be above 0"),
    ],
)
def test_what_can_not_be_done_is_one_line(
    folder: Path, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    done = command(*(word.format(here=folder) for word in words), home=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_folders_of_one_name_do_not_share_a_run(tmp_path: Path) -> None:
    assert default_out([tmp_path / "a" / "x"]) != default_out([tmp_path / "b" / "x"])
