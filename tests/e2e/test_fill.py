"""The command line with the real engine and nano: whole programs, on real files."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from terminal import Terminal

from diffgemma_lsp.commands import demo, sudoku
from engine.sudoku import EMPTY, MODEL, parse_grid

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = [sys.executable, "-m", "diffgemma_lsp"]
SOURCE = ROOT / "diffgemma_lsp" / "commands" / "source.py"


def run(env: dict[str, str], *arguments: object, stdin: bytes = b"") -> bytes:
    """Standard output of a run that must end well."""
    done = subprocess.run(
        [*PROGRAM, *map(str, arguments)], env=env, input=stdin, capture_output=True, check=False
    )
    # 1 where the real model has nothing to give, which --json says itself.
    nothing = done.returncode == 1 and b'"text": null' in done.stdout
    assert done.returncode == 0 or nothing, done.stderr.decode()
    assert done.stderr == b""
    return done.stdout


@pytest.fixture
def own_engine(real_engine: dict[str, str]) -> Iterator[dict[str, str]]:
    """The environment of an engine that has not been started yet and serves one test."""
    with tempfile.TemporaryDirectory(prefix="dgtest-") as folder:
        env = {**real_engine, "DIFFGEMMA_LSP_RUNTIME_DIR": folder}
        yield env
        run(env, "engine", "stop", "--all")


def result(env: dict[str, str], *arguments: object, stdin: bytes = b"") -> dict[str, object]:
    return json.loads(run(env, "fill", *arguments, "--json", stdin=stdin))


@pytest.mark.parametrize("position", ["1:1", "25:5", "60:12", "72:1"])
def test_a_real_file(real_engine: dict[str, str], position: str) -> None:
    filled = result(real_engine, SOURCE, "--at", position, "--max-tokens", 16)
    assert list(filled) == [
        "text",
        "reason",
        "holes",
        "steps",
        "forward_passes",
        "stop_reason",
        "confidence",
        "ms",
    ]
    assert (filled["text"] is None) == (filled["reason"] is not None)
    sure = filled["confidence"]
    assert sure is None or (isinstance(sure, float) and 0 <= sure <= 1)
    raw = result(real_engine, SOURCE, "--at", position, "--max-tokens", 16, "--raw")
    assert [raw["text"]] == raw["holes"] == filled["holes"]


def test_the_same_seed_gives_the_same_text(real_engine: dict[str, str]) -> None:
    arguments = (SOURCE, "--at", "60:12", "--max-tokens", 12, "--seed", 3, "--raw")
    first, second = (result(real_engine, *arguments) for _ in range(2))
    assert first["text"] == second["text"]
    assert run(real_engine, "fill", *arguments).decode() == first["text"]


def test_a_rewrite_of_strength_0_changes_nothing(real_engine: dict[str, str]) -> None:
    text = "x = 1  # café 🙂\r\ny = <turn|>\n"
    flags = ("--at", "1:3", "--to", "2:12", "--strength", 0)
    filled = result(real_engine, "-", *flags, stdin=text.encode())
    assert filled["text"] == "= 1  # café 🙂\r\ny = <turn|>"
    assert filled["stop_reason"] == "unchanged"


@pytest.mark.parametrize("text", ["", "\n", "x", "\ufeff", "🙂", "a\rb\x0cc\u2028d"])
def test_odd_files(real_engine: dict[str, str], text: str) -> None:
    result(real_engine, "-", "--at", "1:1", "--max-tokens", 4, stdin=text.encode())


def test_watch_draws_the_passes(real_engine: dict[str, str], tmp_path: Path) -> None:
    arguments = ["fill", str(SOURCE), "--at", "60:12", "--max-tokens", "12", "--watch"]
    with Terminal([*PROGRAM, *arguments], tmp_path, real_engine) as terminal:
        shown = terminal.wait_for(" ms · ", 60)
        assert "60  " in shown
        terminal.wait_for(lambda _: not terminal.running)


def test_the_loading_is_shown(tmp_path: Path, own_engine: dict[str, str]) -> None:
    arguments = ["fill", str(SOURCE), "--at", "1:1", "--max-tokens", "4", "--json"]
    with Terminal([*PROGRAM, *arguments], tmp_path, own_engine) as terminal:
        terminal.wait_for("━", 60)
        # The screen wraps the line anywhere.
        shown = terminal.wait_for(lambda text: "}" in text, 60)
        assert "━" not in shown


def test_who_starts_the_server_by_hand_is_told_what_it_waits_for(
    own_engine: dict[str, str], tmp_path: Path
) -> None:
    with Terminal(PROGRAM, tmp_path, own_engine) as terminal:
        terminal.wait_for("waiting for an editor on standard input", 60)


def test_ctrl_c_while_the_engine_starts(own_engine: dict[str, str]) -> None:
    command = [*PROGRAM, "fill", str(SOURCE), "--at", "1:1"]
    process = subprocess.Popen(
        command,
        env=own_engine,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    folder = Path(own_engine["DIFFGEMMA_LSP_RUNTIME_DIR"])
    try:
        while not list(folder.glob("*.sock")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=20) == (b"", b"")
        assert process.returncode == 130
    finally:
        process.kill()


def test_the_demo_leaves_filled_files(real_engine: dict[str, str], tmp_path: Path) -> None:
    shown = run(real_engine, "demo", "--out", tmp_path).decode()
    for scene in demo.SCENES:
        text = (tmp_path / scene.file).read_text(encoding="utf-8")
        marked = (ROOT / "diffgemma_lsp/demo_files" / f"{scene.file}.txt").read_text("utf-8")
        fixed = demo.parse_scene(marked, scene.strength)
        assert text.startswith(fixed[0].text)
        assert text.endswith(fixed[-1].text)
        assert demo.verdict(text) in shown


def test_the_sudoku_keeps_its_clues_and_tells_the_truth(own_engine: dict[str, str]) -> None:
    shown = run(own_engine, "demo", "sudoku").decode()
    run(own_engine, "engine", "stop", "--model", MODEL)
    rows = [re.sub(r"[^1-9]", "", line) for line in shown.splitlines() if line.count("│") == 4]
    grid, puzzle = "".join(rows), parse_grid(sudoku.PUZZLE)
    assert len(grid) == 81
    assert all(clue in (EMPTY, cell) for clue, cell in zip(puzzle, grid, strict=True))
    assert sudoku.verdict(puzzle, grid) in shown


def test_a_sudoku_that_contradicts_itself_is_one_line_and_exit_2(
    tmp_path: Path, own_engine: dict[str, str]
) -> None:
    (tmp_path / "grid").write_text("55" + "." * 79)
    for name, said in (("grid", "A1 and A2 are both 5"), ("none", "can't read")):
        command = [*PROGRAM, "demo", "sudoku", "--grid", str(tmp_path / name)]
        done = subprocess.run(command, env=own_engine, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr
        assert done.stderr.count("\n") == 1


def test_the_doctor_is_content(real_engine: dict[str, str]) -> None:
    assert "All is well." in run(real_engine, "doctor").decode()
    (engine,) = json.loads(run(real_engine, "engine", "status", "--json"))
    assert engine["state"] in ("ready", "busy")


def test_a_model_that_ships_goes_by_its_name(real_engine: dict[str, str]) -> None:
    where = (SOURCE, "--at", "12:1", "--max-tokens", 8)
    named = result(real_engine, *where, "--model", "nano")
    assert named["text"] == result(real_engine, *where)["text"]


def test_a_broken_model_is_one_line_and_exit_2(tmp_path: Path, own_engine: dict[str, str]) -> None:
    (tmp_path / "config.json").write_text("{")
    command = [*PROGRAM, "fill", str(SOURCE), "--at", "1:1", "--model", str(tmp_path)]
    done = subprocess.run(command, env=own_engine, capture_output=True, text=True, check=False)
    run(own_engine, "engine", "stop", "--model", tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
