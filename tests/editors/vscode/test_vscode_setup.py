"""A real VS Code as `diffgemma-lsp setup` leaves it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

from code_server import ROOT, Editor
from install_vscode import VSCode
from scenes import ADD, DONE, SUM

SETUP = (sys.executable, "-m", "diffgemma_lsp", "setup", "vscode", "--model", "nano", "--yes")


def user(home: Path, vscode: VSCode, extensions: Path) -> dict[str, str]:
    """The environment of someone in this home who has code-server. extensions: where those are."""
    programs = home / "bin"
    programs.mkdir(parents=True)
    folders = ("--user-data-dir", str(home / "data"), "--extensions-dir", str(extensions))
    editor = programs / "code-server"
    editor.write_text(f'#!/bin/sh\nexec {shlex.join((*vscode.command, *folders))} "$@"\n')
    editor.chmod(0o755)
    kept = {name: text for name, text in os.environ.items() if not name.startswith("XDG_")}
    path = f"{programs}:/usr/bin:/bin"
    return kept | {"HOME": str(home), "PATH": path, "PYTHONPATH": str(ROOT)}


def set_up(env: dict[str, str], *words: str) -> str:
    done = subprocess.run([*SETUP, *words], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def listed(env: dict[str, str]) -> str:
    """The extensions that the editor has."""
    return subprocess.check_output(["code-server", "--list-extensions"], env=env, text=True)


def test_the_extension_comes_and_goes(vscode: VSCode, vsix: Path, tmp_path: Path) -> None:
    env = user(tmp_path, vscode, tmp_path / "extensions")
    shown = set_up(env, "--vsix", str(vsix))
    assert f"$ code-server --install-extension {vsix}" in shown
    assert "diffgemma.diffgemma-lsp" in listed(env)
    settings = tmp_path / ".local" / "share" / "code-server" / "Machine" / "settings.json"
    found = json.loads(settings.read_text())
    assert found["diffgemma.server.path"] == str(Path(sys.executable).with_name("diffgemma-lsp"))
    assert "VS Code: is set up, nothing changes" in set_up(env, "--vsix", str(vsix))
    assert "$ code-server --uninstall-extension" in set_up(env, "--remove")
    assert not settings.exists()
    assert "diffgemma" not in listed(env)


def test_ghost_text_comes_as_soon_as_it_is_set_up(
    editor: Editor, vscode: VSCode, vsix: Path, tmp_path: Path
) -> None:
    home, folder = tmp_path / "home", tmp_path / "folder"
    folder.mkdir()
    env = user(home, vscode, editor.home / "extensions")
    share = home / ".local" / "share"
    share.mkdir(parents=True)
    (share / "code-server").symlink_to(editor.home / "data")
    missing = {"diffgemma.server.path": None}
    with editor.window(folder, ADD.replace("return ", "return"), settings=missing) as window:
        window.wait_for(lambda: "not on the PATH" in window.state + window.notifications())
        shown = set_up(env, "--vsix", str(vsix))
        assert "--install-extension" not in shown, "it is there"
        assert '"diffgemma.server.path"' in shown
        # The program that is named answers what the document says, as in the other tests.
        named = str(Path(sys.executable).with_name("diffgemma-lsp"))
        settings = editor.settings_file("Machine")
        assert named in settings.read_text()
        fake = str(editor.home / "server")
        settings.write_text(settings.read_text().replace(named, fake))
        window.wait_until_ready()
        window.go(3, 11)
        window.type(" ")
        assert window.wait_for_ghost() == SUM
        window.press("Tab")
        window.wait_for_text(DONE)
