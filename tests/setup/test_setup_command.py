"""`diffgemma-lsp setup` as a process and at a terminal: what it asks, shows, writes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from terminal import Terminal

from diffgemma_lsp import cli
from diffgemma_lsp.commands import setup as setup_command
from diffgemma_lsp.commands import setup_questions
from diffgemma_lsp.commands.models import Machine
from engine.errors import complaint

ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-m", "diffgemma_lsp", "setup")
NEOVIM = ".config/nvim/after/plugin/diffgemma.lua"


def environment(home: Path) -> dict[str, str]:
    """That of a new user without an editor, with nothing to load a model from."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("XDG_")}
    kept |= {"HOME": str(home), "PATH": "/nowhere", "PYTHONPATH": str(ROOT)}
    return kept | {"HF_ENDPOINT": "http://127.0.0.1:9", "PIP_INDEX_URL": "http://127.0.0.1:9"}


def run(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words],
        env=environment(home),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def files(home: Path) -> list[str]:
    return sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file())


def test_it_shows_writes_and_takes_back(tmp_path: Path) -> None:
    shown = run(tmp_path, "neovim", "--model", "nano", "--dry-run")
    assert shown.returncode == 0
    assert f"+++ {tmp_path / NEOVIM}" in shown.stdout
    assert '+vim.lsp.enable("diffgemma")' in shown.stdout
    assert files(tmp_path) == []

    asked = run(tmp_path, "neovim", "--model", "nano")
    assert asked.returncode == 1
    assert ":help diffgemma has more" in shown.stdout, "what is left to the user is told, too"
    assert asked.stdout.startswith(shown.stdout.partition("Open a Python file")[0])
    assert asked.stdout.endswith("there is no terminal to ask at, and no --yes\n")
    assert files(tmp_path) == []

    written = run(tmp_path, "neovim", "--model", "nano", "--yes")
    assert written.returncode == 0, written.stderr
    assert f"wrote {tmp_path / NEOVIM}\n" in written.stdout
    assert files(tmp_path) == [NEOVIM]

    again = run(tmp_path, "neovim", "--model", "nano", "--yes")
    assert again.returncode == 0
    assert again.stdout.startswith("Neovim: is set up, nothing changes\n")

    removed = run(tmp_path, "neovim", "--remove", "--yes")
    assert removed.returncode == 0
    assert f"deleted {tmp_path / NEOVIM}\n" in removed.stdout
    assert files(tmp_path) == []
    assert run(tmp_path, "--remove", "neovim", "--yes").stdout == "Neovim: nothing of it is here\n"


def test_a_dry_run_says_what_becomes_of_the_extension(tmp_path: Path) -> None:
    vsix = tmp_path / "it.vsix"
    vsix.write_bytes(b"")
    words = ["vscode", "--vsix", str(vsix), "--model", "nano", "--dry-run"]
    assert f"Install {vsix} by Extensions" in run(tmp_path, *words).stdout
    program = tmp_path / "bin" / "code"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    path = f"{program.parent}{os.pathsep}{environment(tmp_path)['PATH']}"
    done = subprocess.run(
        [*COMMAND, *words],
        env={**environment(tmp_path), "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"$ code --install-extension {vsix}\n" in done.stdout
    assert files(tmp_path) == ["bin/code", "it.vsix"]


def test_several_at_once_with_what_is_there_kept(tmp_path: Path) -> None:
    settings = tmp_path / ".config/Code/User/settings.json"
    settings.parent.mkdir(parents=True)
    settings.write_text('{ "editor.tabSize": 2 } // mine\n')
    done = run(tmp_path, "vscode", "helix", "emacs", "service", "--model", "nano", "--yes")
    assert done.returncode == 0, done.stderr
    assert f"(before: {settings}.bak)" in done.stdout
    assert '"editor.tabSize": 2 } // mine\n' in settings.read_text()
    assert (
        settings.with_name("settings.json.bak").read_text() == '{ "editor.tabSize": 2 } // mine\n'
    )
    assert "systemctl --user enable --now" in done.stdout
    assert files(tmp_path) == [
        ".config/Code/User/settings.json",
        ".config/Code/User/settings.json.bak",
        ".config/helix/languages.toml",
        ".config/systemd/user/diffgemma-lsp.service",
        ".emacs.d/init.el",
    ]


def test_what_is_left_alone_is_told_with_what_to_put_there(tmp_path: Path) -> None:
    settings = tmp_path / ".config/Code/User/settings.json"
    settings.parent.mkdir(parents=True)
    settings.write_text('{ "editor.tabSize": }\n')
    done = run(tmp_path, "vscode", "helix", "--model", "nano", "--yes")
    assert done.returncode == 1
    assert f"{settings} is left alone: it is not JSON (" in done.stdout
    assert '"diffgemma.server.path": "' in done.stdout
    assert settings.read_text() == '{ "editor.tabSize": }\n'
    assert (tmp_path / ".config/helix/languages.toml").is_file()


def test_a_folder_that_can_not_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / ".config").write_text("")
    done = run(tmp_path, "neovim", "--model", "nano", "--yes")
    assert done.returncode == 2
    assert done.stderr == f"diffgemma-lsp: can't read {tmp_path / NEOVIM}: Not a directory\n"
    (tmp_path / ".config").unlink()
    (tmp_path / ".config").mkdir(mode=0o500)
    if os.access(tmp_path / ".config", os.W_OK):
        pytest.skip("root may write everywhere")
    done = run(tmp_path, "neovim", "--model", "nano", "--yes")
    assert done.returncode == 2
    assert done.stderr == f"diffgemma-lsp: can't write {tmp_path / NEOVIM}: Permission denied\n"


def test_a_disk_that_can_not_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr("tempfile.mkstemp", refused)
    assert cli.main(["setup", "helix", "--model", "nano", "--yes"]) == 2
    path = tmp_path / ".config/helix/languages.toml"
    said = f"can't write {path}: Read-only file system"
    assert capsys.readouterr().err == complaint(said) + "\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("vi", "--yes"), "vi is not one of vscode, neovim, "),
        (("--yes",), "name an editor, as in diffgemma-lsp setup neovim (here: -)"),
        (("neovim", "--model", "gpt", "--yes"), "there is no model gpt: diffgemma-lsp models"),
        (("vscode", "--vsix", "none.vsix"), "there is no file none.vsix: `make vsix`"),
    ],
)
def test_wrong_words_are_one_line(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    done = run(tmp_path, *words)
    assert done.returncode == 2
    assert done.stderr.startswith(f"diffgemma-lsp: {said}")
    assert done.stderr.count("\n") == 1
    assert files(tmp_path) == []


def at_a_terminal(home: Path) -> Terminal:
    # What is here is looked for by programs and folders, and this is one.
    (home / ".config" / "nvim").mkdir(parents=True, exist_ok=True)
    return Terminal(COMMAND, home, environment(home) | {"PATH": "/usr/bin:/bin"}, rows=60)


@pytest.mark.parametrize(("answer", "expected"), [("\r", [NEOVIM]), ("n\r", [])])
def test_three_questions(tmp_path: Path, answer: str, expected: list[str]) -> None:
    with at_a_terminal(tmp_path) as terminal:
        terminal.wait_for("Neovim               here")
        terminal.wait_for("Numbers or names [1")
        terminal.type("neovim\r")
        terminal.wait_for("Which model?")
        shown = terminal.wait_for("Number or name [1]:")
        assert re.search(r"1  mini .* 491 MB to load", shown)
        terminal.type("nano\r")
        terminal.wait_for("Write this? [Y/n]")
        assert 'init_options = { model = "nano" }' in terminal.text().replace("\n", "")
        terminal.type(answer)
        terminal.wait_for(lambda _: not terminal.running)
        assert files(tmp_path) == expected


def test_ctrl_c_at_a_question_writes_nothing(tmp_path: Path) -> None:
    with at_a_terminal(tmp_path) as terminal:
        terminal.wait_for("Numbers or names [1")
        terminal.type("\x03")
        terminal.wait_for(lambda _: not terminal.running)
        assert "Traceback" not in terminal.text()
        assert files(tmp_path) == []


def test_without_a_network_nano_serves(tmp_path: Path) -> None:
    done = run(tmp_path, "neovim", "--yes")
    assert done.returncode == 0, done.stderr
    assert "$ diffgemma-lsp pull mini\n" in done.stdout
    assert "nano serves until mini can be had" in done.stdout
    assert "init_options" not in (tmp_path / NEOVIM).read_text()


def test_a_model_that_can_not_be_had_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pulled: list[object] = []

    def pull(module: str, words: list[str]) -> int:
        pulled.append(words)
        return codes.pop()

    codes = [130, 2, 0]
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr(setup_questions, "run_program", pull)
    command = ["setup", "neovim", "--model", "dreamon", "--yes"]
    assert cli.main(command) == 0
    assert 'model = "dreamon"' in (tmp_path / NEOVIM).read_text()
    (tmp_path / NEOVIM).unlink()
    assert cli.main(command) == 2
    assert "dreamon is not here, so nothing was written" in capsys.readouterr().err
    assert cli.main(command) == 130
    assert files(tmp_path) == []
    assert pulled == [["--", "dreamon"]] * 3


def test_a_better_model_is_offered_where_it_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = Machine("cuda", "a card", 80_000_000_000)
    monkeypatch.setattr(setup_questions, "ask_machine", lambda: machine)
    monkeypatch.setattr("builtins.input", lambda _: "2")
    assert setup_questions.ask_model() == "dreamon"
    assert "2  dreamon              15.2 GB to load" in capsys.readouterr().out


def test_a_program_that_fails_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = tmp_path / "bin" / "code"
    code.parent.mkdir()
    code.write_text("#!/bin/sh\nexit 3\n")
    code.chmod(0o755)
    (tmp_path / "it.vsix").write_bytes(b"")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{code.parent}:/bin:/usr/bin")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    words = ["vscode", "--vsix", str(tmp_path / "it.vsix"), "--model", "nano", "--yes"]
    assert cli.main(["setup", *words]) == 2
    assert "it.vsix failed with 3" in capsys.readouterr().err
    assert setup_command.NOT_DONE == 1
