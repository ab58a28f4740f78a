"""What can go wrong in a real VS Code, and what is said then; and a folder that nobody trusts."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from code_server import FAKE, REAL, Editor
from playwright.sync_api import Error as PlaywrightError
from playwright.sync_api import Frame
from scenes import ADD, AREA, NEW, SUM, planned, previewed, rewriting


@pytest.mark.parametrize(
    ("path", "words"),
    [
        pytest.param("no-such-server", ["not on the PATH", "diffgemma.server.path"], id="none"),
        pytest.param("/nowhere/server", ["no program at /nowhere", "server.path"], id="wrong path"),
        pytest.param("bin/server", ["not an absolute path", "server.path"], id="relative"),
        pytest.param("/bin/false", ["not a working diffgemma-lsp", "server.path"], id="another"),
    ],
)
def test_without_a_server_there_is_a_way_out(
    editor: Editor, tmp_path: Path, path: str, words: list[str]
) -> None:
    with editor.window(tmp_path, ADD, settings={"diffgemma.server.path": path}) as window:
        (said,) = window.wait_for_message(*words).splitlines()
        assert said.startswith("Diffgemma: ")
        window.page.get_by_role("button", name="How to Install").wait_for()
        assert words[0] in window.state
        # Once the path is right, it starts without more ado.
        window.set(**{"server.path": str(editor.program("server", FAKE))})
        window.wait_until_ready()


def test_a_program_that_may_not_be_run_is_no_matter_of_settings(
    editor: Editor, tmp_path: Path
) -> None:
    program = editor.program("unready", FAKE)
    program.chmod(0o644)
    with editor.window(tmp_path, ADD, settings={"diffgemma.server.path": str(program)}) as window:
        window.wait_for_message("may not be run: chmod +x it")
        again = window.page.get_by_role("button", name="Try Again", exact=True)
        again.wait_for()
        assert not window.page.get_by_role("button", name="Set the Path").count()
        program.chmod(0o755)
        again.click()
        window.wait_until_ready()


def test_only_settings_that_count_start_another_server(editor: Editor, tmp_path: Path) -> None:
    with editor.window(tmp_path, ADD) as window:
        window.wait_until_ready()
        theirs = tmp_path / ".vscode" / "settings.json"
        theirs.parent.mkdir()
        written = {"diffgemma.model": "/theirs", "diffgemma.enable": False}
        theirs.write_text(json.dumps(written))
        window.wait_for(lambda: "turned off in this folder" in window.state)
        assert editor.log().count("Starting ") == 1, "a folder can't choose the model"
        window.set(idleExitS=50, seed=5)
        window.wait_for(lambda: editor.log().count("positions in utf-16") == 2)
        theirs.write_text("{}")
        window.wait_until_ready()
        window.go(3, 12)
        window.command("Suggest Here")
        assert window.wait_for_ghost() == SUM
        assert "[error]" not in editor.log()
        assert editor.log().count("Starting ") == 2


def test_the_ways_out_lead_somewhere(editor: Editor, tmp_path: Path) -> None:
    settings = {"diffgemma.server.path": "no-such-server"}
    with editor.window(tmp_path, ADD, settings=settings) as window:
        window.wait_for_message("not on the PATH")
        window.page.get_by_role("button", name="How to Install").click()
        window.wait_for(lambda: "Install from VSIX" in "".join(map(text_of, window.page.frames)))
        window.set(**{"server.path": "neither-this-one"})
        window.wait_for_message("neither-this-one is not on the PATH")
        window.page.get_by_role("button", name="Set the Path").click()
        window.page.locator(".settings-editor .setting-item", has_text="Server: Path").wait_for()


def text_of(frame: Frame) -> str:
    """The text of a frame; empty while it is being loaded."""
    try:
        return frame.locator("body").inner_text(timeout=1_000)
    except PlaywrightError:
        return ""


def test_a_server_that_ends_at_once_has_output(editor: Editor, tmp_path: Path) -> None:
    script = 'if [ "$1" = --version ]; then echo diffgemma-lsp 0; else echo its last words >&2; fi'
    with editor.window(tmp_path, ADD, ("sh", "-c", script, "sh")) as window:
        window.wait_for_message("The server did not start", "output says more")
        window.page.get_by_role("button", name="Show Output").click()
        window.page.locator(".panel .view-line", has_text="its last words").first.wait_for()


@pytest.mark.parametrize(
    ("settings", "limit", "words"),
    [
        pytest.param({"diffgemma.model": "/nowhere"}, "", ["/nowhere"], id="a missing model"),
        pytest.param({}, "ulimit -v 400000; ", ["memory"], id="too little memory"),
    ],
)
def test_an_engine_that_does_not_start_says_why(
    editor: Editor, tmp_path: Path, settings: dict[str, Any], limit: str, words: list[str]
) -> None:
    # An engine of its own: the one of the other tests is there already.
    env = ("env", f"DIFFGEMMA_LSP_RUNTIME_DIR={tmp_path / 'run'}")
    server = ("sh", "-c", f'{limit}exec "$@"', "sh", *env, *REAL)
    with editor.window(tmp_path, ADD, server, settings) as window:
        window.list_messages()
        window.wait_for_message("diffgemma-lsp: ", *words)
        window.wait_for(lambda: all(word in window.state for word in words))
        window.page.get_by_role("button", name="Show Output").first.wait_for()
        window.page.get_by_role("button", name="Open Settings").first.click()
        window.page.locator(".settings-editor").wait_for()


def test_a_broken_setting_is_named_and_the_rest_works(editor: Editor, tmp_path: Path) -> None:
    settings = {"diffgemma.maxTokens": "many"}
    with editor.window(tmp_path, ADD, settings=settings) as window:
        window.list_messages()
        window.wait_for_message("max_tokens", "many", "using 32")
        window.wait_until_ready()
        window.go(3, 12)
        window.command("Suggest Here")
        assert window.wait_for_ghost() == SUM


def test_a_server_that_was_killed_is_started_again(editor: Editor, tmp_path: Path) -> None:
    with editor.window(tmp_path, ADD, (*FAKE, str(tmp_path))) as window:
        window.wait_until_ready()
        first = pid_of(str(tmp_path))
        os.kill(first, signal.SIGKILL)
        window.wait_for(lambda: (now := pid_of(str(tmp_path))) and now != first)
        window.wait_until_ready()
        window.go(3, 12)
        window.command("Suggest Here")
        assert window.wait_for_ghost() == SUM


def test_a_preview_outlives_its_server(editor: Editor, tmp_path: Path) -> None:
    text = planned(AREA, by_seed=[NEW, NEW.replace("height", "depth")])
    with editor.window(tmp_path, text, (*FAKE, str(tmp_path))) as window:
        rewriting(window)
        previewed(window)
        first = pid_of(str(tmp_path))
        os.kill(first, signal.SIGKILL)
        window.wait_for(lambda: (now := pid_of(str(tmp_path))) and now != first)
        window.wait_until_ready()
        window.lens("Again").click()
        window.wait_for(lambda: "    base = width * depth" in window.lines())


def pid_of(argument: str) -> int:
    """The process that was started with this argument; 0 if there is none."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it has ended
        if argument.encode() in words and b"fake_server.py" in b" ".join(words):
            return int(folder.name)
    return 0


def test_a_folder_that_is_not_trusted_has_no_say(editor: Editor, tmp_path: Path) -> None:
    theirs = {
        "diffgemma.rewriteStrength": 0.1,
        "diffgemma.server.path": str(tmp_path / "evil"),
        "diffgemma.model": str(tmp_path),
    }
    (tmp_path / ".vscode").mkdir()
    (tmp_path / ".vscode" / "settings.json").write_text(json.dumps(theirs))
    (tmp_path / "evil").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (tmp_path / "evil").chmod(0o755)
    trust = {
        "security.workspace.trust.enabled": True,
        "security.workspace.trust.startupPrompt": "never",
        "security.workspace.trust.banner": "never",
    }
    with editor.window(tmp_path, planned(AREA, text=NEW), settings=trust) as window:
        window.page.locator(".statusbar-item", has_text="Restricted Mode").wait_for()
        rewriting(window)
        previewed(window)
        window.lens("60%").wait_for()
        assert not (tmp_path / "ran").exists()
