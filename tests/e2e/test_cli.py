"""The command line, with a fake engine behind it: input, output, exit codes."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from diffgemma_lsp import cli
from diffgemma_lsp.commands import demo, doctor, streaming, sudoku
from diffgemma_lsp.commands.view import FillView
from engine.errors import OutOfMemory
from engine.types import Fixed, Frame, Hole, Infill, InfillRequest, Other, Piece, SamplingParams


class FakeEngine:
    """Stands where the engine client stands; remembers what it was asked."""

    def __init__(self) -> None:
        self.requests: list[InfillRequest] = []
        self.done: list[str] = []
        self.fills = ["filled"]
        self.others: tuple[Other, ...] = ()
        self.error: BaseException | None = None

    def __call__(self, options: Any) -> FakeEngine:
        self.options = options
        return self

    async def stream(self, request: InfillRequest) -> AsyncGenerator[Frame | Infill]:
        self.requests.append(request)
        if self.error:
            raise self.error
        count = sum(isinstance(part, Hole) for part in request.template)
        holes = tuple((self.fills * count)[:count])
        yield Frame(1, 8, tuple((Piece(text, 0.3),) for text in holes), 1.5)
        times = {"total": 123.456}
        yield Infill("".join(holes), holes, 3, 5, "settled", 0.87654, times, self.others)

    async def status(self) -> dict[str, Any] | None:
        return None

    async def aclose(self) -> None:
        self.done.append("aclose")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    engine = FakeEngine()
    monkeypatch.setattr(streaming, "EngineClient", engine)
    return engine


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.py"
    path.write_bytes(b"def f(x):\r\n    return \r\n\x0cprint('\xf0\x9f\x99\x82e\xcc\x81')\n")
    return path


def run(*arguments: object) -> int:
    """The exit code, also where argparse leaves by an exception."""
    try:
        return cli.main([str(argument) for argument in arguments])
    except SystemExit as error:
        return int(error.code or 0)


def complaint(capfd: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr; nothing may be on stdout."""
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.endswith("\n")
    assert captured.err.count("\n") == 1
    return captured.err


def test_fill_prints_the_middle_alone(
    fake: FakeEngine, source: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("fill", source, "--at", "2:12") == 0
    assert capfd.readouterr() == ("filled", "")
    prefix, hole, suffix = fake.requests[0].template
    assert prefix == Fixed("def f(x):\r\n    return ")
    assert hole == Hole()
    assert suffix == Fixed("\r\n\x0cprint('🙂e\u0301')\n")
    assert fake.done == ["aclose"]


def test_what_else_was_considered_stands_in_where_the_best_does_not_fit(
    fake: FakeEngine, source: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fake.fills, fake.others = ["= 1"], (Other("= 2", 0.2), Other("x", 0.1), Other("y", 0.05))
    assert run("fill", source, "--at", "2:12") == 0
    assert capfd.readouterr() == ("x", "")
    assert run("fill", source, "--at", "2:12", "--json") == 0
    shown = json.loads(capfd.readouterr().out)
    assert (shown["text"], shown["confidence"], shown["holes"]) == ("x", 0.1, ["= 1"])
    fake.others = (Other("= 2", 0.2),)
    assert run("fill", source, "--at", "2:12") == 1
    assert "syntax" in complaint(capfd)
    assert run("fill", source, "--at", "2:12", "--raw") == 0
    assert capfd.readouterr() == ("= 1", "")


def test_flags_reach_the_engine(fake: FakeEngine, source: Path) -> None:
    flags = ["--seed", 7, "--steps", 9, "--max-tokens", 5, "--device", "cpu"]
    assert run("fill", source, "--at", "2:12", *flags) == 0
    request = fake.requests[0]
    assert request.seed == 7
    assert request.params == SamplingParams(max_steps=9)
    assert request.template[1] == Hole(max_tokens=5)
    assert fake.options.device == "cpu"


def test_a_range_is_a_rewrite(fake: FakeEngine, source: Path) -> None:
    assert run("fill", source, "--at", "1:1", "--to", "2:5", "--strength", "0.25", "--raw") == 0
    assert fake.requests[0].template[:2] == (Fixed(""), Hole("def f(x):\r\n    ", 0.25))
    assert run("fill", source, "--at", "2:5", "--to", "2:5") == 0
    assert fake.requests[1].template[1] == Hole()


def test_a_relative_model_path_is_made_absolute(
    fake: FakeEngine, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    assert run("fill", source, "--at", "2:12", "--model", "model") == 0
    assert fake.options.model == str((tmp_path / "model").resolve())


@pytest.mark.parametrize(
    ("position", "prefix"),
    [
        ("1:10", "def f(x):"),
        ("3:1", "def f(x):\r\n    return \r\n"),
        ("3:10", "def f(x):\r\n    return \r\n\x0cprint('🙂"),
        ("4:1", "def f(x):\r\n    return \r\n\x0cprint('🙂e\u0301')\n"),
    ],
)
def test_columns_are_characters_and_a_form_feed_ends_no_line(
    fake: FakeEngine, source: Path, position: str, prefix: str
) -> None:
    assert run("fill", source, "--at", position, "--raw") == 0
    assert fake.requests[0].template[0] == Fixed(prefix)


def test_standard_input(
    fake: FakeEngine, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbfx = \r1")))
    assert run("fill", "-", "--at", "1:5") == 0
    assert fake.requests[0].template == (Fixed("x = "), Hole(), Fixed("\r1"))


def test_json_is_all_that_is_on_stdout(
    fake: FakeEngine, source: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fake.fills = ["é\n"]
    assert run("fill", source, "--at", "2:12", "--json", "--watch") == 0
    assert json.loads(capfd.readouterr().out) == {
        "text": "é",
        "reason": None,
        "holes": ["é\n"],
        "steps": 3,
        "forward_passes": 5,
        "stop_reason": "settled",
        "confidence": 0.8765,
        "ms": 123.5,
    }


def test_what_is_printed_is_what_an_editor_would_be_offered(
    fake: FakeEngine, source: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fake.fills = ["x)\n    return x\nprint('🙂é')"]  # a bracket too many, and what follows
    assert run("fill", source, "--at", "2:12") == 0
    assert capfd.readouterr() == ("x", "")
    fake.fills = ["x\n    foo = b.b.b.b.b.b.b.b.b.b.b.b"]
    assert run("fill", source, "--at", "2:12", "--raw") == 0
    assert capfd.readouterr() == (fake.fills[0], "")
    assert run("fill", source, "--at", "2:12") == 0
    assert capfd.readouterr() == ("x", "")
    fake.fills = ["x\n    y = x"]
    assert run("fill", source, "--at", "2:12") == 0
    assert capfd.readouterr() == ("x\r\n    y = x", "")


def test_a_filling_that_nobody_would_be_offered_has_its_reason(
    fake: FakeEngine, source: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fake.fills = ["print('🙂é')\n"]
    reason = "the suggestion only repeats what follows"
    assert run("fill", source, "--at", "3:2") == 1
    said = f"diffgemma-lsp: {reason}; --raw prints what the model wrote\n"
    assert capfd.readouterr() == ("", said)
    assert run("fill", source, "--at", "3:2", "--json") == 1
    shown = json.loads(capfd.readouterr().out)
    assert (shown["text"], shown["reason"], shown["holes"]) == (None, reason, fake.fills)


def test_a_place_stands_behind_the_file(
    fake: FakeEngine, source: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for place in (f"{source}:2:12", f"{source}:2"):
        assert run("fill", place) == 0
        assert capfd.readouterr() == ("filled", "")
        assert fake.requests[-1].template[0] == Fixed("def f(x):\r\n    return ")


def test_several_holes_and_actions_are_a_diff_or_are_written(
    fake: FakeEngine, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "two.py"
    path.write_bytes(b"\xef\xbb\xbfx = \ny = \ndef f(a):\n    ...\n")
    fake.fills = ["1", "2"]
    assert run("fill", path, "--at", "1:5", "--at", "2:5") == 0
    assert "-x = \n-y = \n+x = 1\n+y = 2\n" in capfd.readouterr().out
    assert run("fill", f"{path}:1:5", "--at", "2:5", "--write") == 0
    fake.fills = ["return a"]
    assert run("fill", f"{path}:3", "--action", "body", "--write") == 0
    assert capfd.readouterr() == ("", "")
    assert path.read_bytes() == b"\xef\xbb\xbfx = 1\ny = 2\ndef f(a):\n    return a\n"
    assert [each.name for each in tmp_path.iterdir()] == ["two.py"]


def test_candidates_differ(
    fake: FakeEngine, source: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fake.fills, fake.others = ["x"], (Other("x", 0.3), Other("y", 0.2), Other("z", 0.1))
    assert run("fill", source, "--at", "2:12", "--candidates", "2") == 0
    assert capfd.readouterr().out == "# 1: 88% sure\nx\n# 2: 20% sure\ny\n"


def test_a_rewrite_keeps_the_white_space_at_its_end(
    fake: FakeEngine, source: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fake.fills = ["def g(x):\r\n    b.b.b.b.b.b\r\n\r\n"]
    assert run("fill", source, "--at", "1:1", "--to", "3:1") == 0
    assert capfd.readouterr() == ("def g(x):\r\n    b.b.b.b.b.b \r\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.py", "--at", "1:1"], "can't read missing.py: No such file"),
        ([".", "--at", "1:1"], "can't read .: Is a directory"),
        (["binary", "--at", "1:1"], "binary is a binary file"),
        (["latin1", "--at", "1:1"], "latin1 is not UTF-8 (byte 4)"),
        (["ok.py", "--at", "3:1"], "3:1 is past the end; the last position is 2:1"),
        (["ok.py", "--at", "1:7"], "1:7 is past the end of its line; the last position there is 1"),
        (["ok.py", "--at", "1:3", "--to", "1:2"], "--to 1:2 lies before --at 1:3"),
        (["ok.py", "--at", "0:1"], "argument --at: expected LINE:COL, both from 1, not '0:1'"),
        (["ok.py", "--at", "1"], "argument --at: expected LINE:COL"),
        (["ok.py"], "where? name a place: ok.py:LINE:COL, or --at LINE:COL"),
        (["ok.py", "--at", "1:1", "--candidates", "2", "--write"], "--write takes what is best"),
        (["ok.py", "--at", "1:1", "--steps", "0"], "a whole number of at least 1, not '0'"),
        (["ok.py", "--at", "1:1", "--seed", "-1"], "from 0 to 9223372036854775807, not '-1'"),
        (["ok.py", "--at", "1:1", "--seed", "x"], "not 'x'"),
        (["ok.py", "--at", "1:1", "--max-tokens", "1e3"], "not '1e3'"),
        (["ok.py", "--at", "1:1", "--strength", "0.5"], "--strength is for a rewrite"),
        (["ok.py", "--at", "1:1", "--to", "1:2", "--strength", "nan"], "from 0 to 1, not 'nan'"),
        (["ok.py", "--at", "1:1", "--model", "nowhere"], "no model at nowhere"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    fake: FakeEngine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    (tmp_path / "ok.py").write_bytes(b"x = 1\n")
    (tmp_path / "binary").write_bytes(b"\x7fELF\0\0")
    (tmp_path / "latin1").write_bytes("café".encode("latin-1") + b"\xff")
    monkeypatch.chdir(tmp_path)
    assert run("fill", *arguments) == 2
    assert message in complaint(capfd)
    assert fake.requests == []


def test_an_engine_that_can_not_is_one_line_and_exit_2(
    fake: FakeEngine, source: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fake.error = OutOfMemory("not enough memory:\ntry a smaller model")
    assert run("fill", source, "--at", "1:1") == 2
    assert complaint(capfd) == "diffgemma-lsp: not enough memory: try a smaller model\n"


def test_ctrl_c(fake: FakeEngine, source: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fake.error = KeyboardInterrupt()
    assert run("fill", source, "--at", "1:1") == 130
    assert capfd.readouterr() == ("", "")


def test_a_reader_that_leaves_is_no_traceback(tmp_path: Path) -> None:
    script = (
        "import sys, time; from diffgemma_lsp import cli; from diffgemma_lsp.commands import fill\n"
        "fill.run = lambda _: [print('x' * 100) for _ in range(5000)]\n"
        "sys.exit(cli.main(['fill', 'x', '--at', '1:1']))"
    )
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=writer, stderr=subprocess.PIPE, text=True
    )
    os.close(writer)
    os.close(reader)
    assert process.communicate() == (None, "")
    assert process.returncode == cli.BROKEN_PIPE


def test_no_subcommand_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    server = pytest.importorskip("diffgemma_lsp.server")
    monkeypatch.setattr(server, "run_stdio", lambda client: client or 5)
    assert run() == 5
    assert run("--stdio") == 5
    assert run("--stdio", "--clientProcessId=7") == 7
    assert run("--clientProcessId", "7") == 7
    assert run("--clientProcessId=x") == 2


def test_help_and_version(capfd: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capfd.readouterr().out.startswith("diffgemma-lsp ")
    assert run("--help") == 0
    shown = capfd.readouterr().out
    assert all(name in shown for name in ("fill", "demo", "doctor", "engine"))
    assert run("frobnicate") == 2
    assert "frobnicate" in complaint(capfd)
    assert run("-x") == 2
    assert "COMMAND" in complaint(capfd)


def test_demo_keeps_what_comes_out_and_says_what_it_is(
    fake: FakeEngine, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fake.fills = ["1 +"]
    assert run("demo", "--out", tmp_path / "new") == 0
    shown = capfd.readouterr().out
    for scene in demo.SCENES:
        text = (tmp_path / "new" / scene.file).read_text(encoding="utf-8")
        assert "1 +" in text
        assert "⟦" not in text
        assert scene.file in shown
        assert demo.verdict(text).startswith("does not parse")
    assert shown.count("does not parse") == len(demo.SCENES)
    assert f"They are in {tmp_path / 'new'}\n" in shown
    assert shown.startswith("nano is tiny and often wrong")
    assert sum(isinstance(part, Hole) for part in fake.requests[-1].template) == 5


def test_a_grid_shows_what_changed_and_what_is_wrong() -> None:
    puzzle = "." + "2" * 80
    before = [sudoku.Cell("·", None), *(sudoku.Cell("2", None) for _ in range(80))]
    changed: list[bool] = []
    for digit in "115":
        frame = Frame(1, 9, ((Piece(digit, 0.5),),), 0.1)
        before = sudoku.cells_of(puzzle, frame, before)
        changed.append(before[0].changed)
        assert [cell.text for cell in before] == [digit, *"2" * 80]
    assert changed == [False, False, True]
    rows = ("".join(str((3 * r + r // 3 + c) % 9 + 1) for c in range(9)) for r in range(9))
    solved = "".join(rows)
    assert sudoku.verdict(solved, solved) == "Solved."
    assert sudoku.verdict("." * 81, solved[:-1] + ".") == "Not solved: cells are empty."
    assert "are both" in sudoku.verdict("." * 81, solved[:-1] + solved[0])


def test_demo_says_where_it_can_not_write(
    fake: FakeEngine, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert run("demo", "--out", tmp_path / "file" / "below") == 2
    assert "can't write to" in complaint(capfd)


def test_doctor_says_what_to_do(
    fake: FakeEngine, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    fake.error = OutOfMemory("not enough memory: close something")
    monkeypatch.setattr(doctor, "PACKAGES", ("rich", "no-such-package"))
    assert run("doctor") == 1
    shown = capfd.readouterr().out
    assert "→ install it again" in shown
    assert "→ not enough memory: close something" in shown
    assert "problem" in shown


def test_where_the_home_can_t_be_written_train_names_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    home = tmp_path / "home"
    home.write_text("no folder, so that not even root can write into it")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert run("train", "--folder", tmp_path) == 2
    said = complaint(capfd)
    assert "can't write to" in said
    assert "--out" in said


def test_a_terminal_gets_no_control_characters(
    fake: FakeEngine,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    fake.fills = ["a\u202e\x1b[2Jb"]
    for at_a_terminal, shown in ((True, "a[2Jb\n"), (False, fake.fills[0])):
        monkeypatch.setattr(sys.stdout, "isatty", lambda yes=at_a_terminal: yes)
        assert run("fill", source, "--at", "2:12", "--raw") == 0
        assert capfd.readouterr().out == shown


def test_the_view_numbers_lines_leaves_out_far_ones_and_shows_no_control_characters() -> None:
    before = "".join(f"line {number}\n" for number in range(1, 101))
    between = "".join(f"\tmiddle\x1b[31m\u202e {number}\r\n" for number in range(40))
    template = (
        Fixed(before + "x = "),
        Hole(),
        Fixed(between),
        Hole("draft", 0.5),
        Fixed("\n" * 50),
    )
    console = Console(width=80, file=io.StringIO(), record=True)
    view = FillView(template, "a.py")
    console.print(view.draw(None))
    console.print(view.draw(Frame(2, 9, ((Piece("f(", 0.2), Piece("y)\n", 0.95)), ()), 0.5)))
    shown = console.export_text()
    assert "\x1b" not in shown
    assert "101  x = f(y)" in shown
    assert " 95  line 95" in shown
    assert "line 94" not in shown
    assert "⋮" in shown
    assert "      middle·[31m· 39" in shown
    assert "draft" in shown
    assert "pass 2 of 9 · 1 of 2 tokens settled" in shown


def test_windows_is_refused_in_one_line_that_the_readme_has_too(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    codes = [run(), run("--stdio"), run("doctor")]
    monkeypatch.undo()
    assert codes == [2, 2, 2]
    said = capfd.readouterr()
    assert said.out == ""
    assert set(said.err.splitlines()) == {
        "diffgemma-lsp: does not run on Windows itself: install and start it in WSL"
    }
    readme = (Path(cli.__file__).parents[1] / "README.md").read_text()
    assert "does not run on Windows itself: install and start it in WSL" in readme
