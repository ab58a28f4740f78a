"""A real VS Code with the extension from its package: ghost text, rewrites, and what can go wrong.

`make test-vscode` installs VS Code; without one these tests are skipped, except where CI is set.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from code_server import FAKE, REAL, ROOT, Editor, Window


def planned(source: str, /, **plan: Any) -> str:
    """The source with a first line that tells the fake engine what to answer."""
    return f"# fake: {json.dumps(plan)}\n{source}"


# ---- ghost text ----

SOURCE = "def add(a, b):\n    return \n"
SUM = "alpha + beta"
ADD = planned(SOURCE, text=SUM)
DONE = ADD.replace("return \n", f"return {SUM}\n")


@pytest.fixture
def adding(editor: Editor, tmp_path: Path) -> Iterator[Window]:
    """A window in which the server suggests SUM as what is returned, once something is typed."""
    with editor.window(tmp_path, ADD.replace("return ", "return"), FAKE) as window:
        window.wait_until_ready()
        window.go(3, 11)
        yield window


def test_ghost_text_is_typed_through_and_accepted(adding: Window) -> None:
    adding.type(" ")
    assert adding.wait_for_ghost() == SUM
    assert SUM not in adding.text().partition("\n")[2], "ghost text is not text yet"
    adding.type("alp")
    assert adding.wait_for_ghost("ha + beta")
    adding.press("Tab")
    adding.wait_for_text(DONE)


def test_a_word_is_accepted_and_the_rest_stays(adding: Window) -> None:
    adding.type(" ")
    adding.wait_for_ghost(SUM)
    adding.press("Control+ArrowRight")
    adding.wait_for_text(ADD.replace("return ", "return alpha"))
    assert adding.wait_for_ghost(" + beta")


def test_what_is_not_wanted_goes_away(adding: Window) -> None:
    adding.type(" ")
    adding.wait_for_ghost(SUM)
    adding.press("Escape")
    adding.wait_for(lambda: adding.ghost() == "")
    adding.wait_for_text(ADD)


def test_a_line_is_accepted(editor: Editor, tmp_path: Path) -> None:
    text = planned("def f(x):\n    \n", text="y = x\n    return y")
    with editor.window(tmp_path, text, FAKE, {"diffgemma.maxTokens": None}) as window:
        window.wait_until_ready()
        window.go(3, 5)
        window.command("Suggest Here")
        window.wait_for_ghost()
        window.press("Control+End")
        window.wait_for_text(text.replace("    \n", "    y = x\n\n"))


def test_several_suggestions_are_cycled_through(editor: Editor, tmp_path: Path) -> None:
    # Two holes of one run would be one answer: the fake engine tells of the seed by its texts.
    with editor.window(tmp_path, planned(SOURCE, by_seed=["one", "two", "three"])) as window:
        window.wait_until_ready()
        window.go(3, 12)
        window.press("Alt+Backslash")
        seen = {window.wait_for_ghost()}
        for _ in range(2):
            before = window.ghost()
            window.press("Alt+]")
            window.wait_for(lambda before=before: window.ghost() not in ("", before))
            seen.add(window.ghost())
        assert seen == {"one", "two", "three"}


# ---- rewrites with a preview ----

AREA = """\
def area(width, height):
    base = width + height
    unit = 1
    return base
"""
NEW = "base = width * height\n    unit = 1\n    return base * unit"
TIMES = AREA.replace("width + height", "width * height").replace(
    "return base", "return base * unit"
)


def rewriting(window: Window) -> None:
    """Has lines 3 to 5 rewritten, of a document with a line in front of AREA."""
    window.wait_until_ready()
    window.go(3, 5)
    window.press("Shift+ArrowDown", "Shift+ArrowDown", "Shift+End")
    window.command("Rewrite Selection…")
    window.page.locator(".quick-input-widget", has_text="follows no instructions").wait_for()
    window.press("Enter")


def previewed(window: Window) -> list[str]:
    """The lines of the preview, when it has come to its end."""
    window.lens("Discard").wait_for()
    window.lens("Again").wait_for()
    return window.lines()


@pytest.fixture
def preview(editor: Editor, tmp_path: Path) -> Iterator[Window]:
    """A window with a preview of two changes in AREA."""
    with editor.window(tmp_path, planned(AREA, text=NEW)) as window:
        rewriting(window)
        shown = [line.strip() for line in previewed(window)]
        assert shown[2:4] == ["base = width + height", "base = width * height"]
        assert window.text() == planned(AREA, text=NEW), "a preview changes nothing"
        yield window


def over(window: Window) -> None:
    """Returns when the document itself is shown again."""
    window.page.locator(".tab", has_text="Preview").wait_for(state="detached")
    window.page.locator(".tab.active", has_text="sample.py").wait_for()


def test_a_rewrite_is_accepted_and_undone_once(preview: Window) -> None:
    preview.press("Control+Enter")
    over(preview)
    preview.wait_for_text(planned(TIMES, text=NEW))
    preview.press("Control+z")
    preview.wait_for_text(planned(AREA, text=NEW))


def test_a_rewrite_is_discarded(preview: Window) -> None:
    preview.press("Escape")
    over(preview)
    assert preview.text() == planned(AREA, text=NEW)


def test_one_change_alone_is_accepted(preview: Window) -> None:
    preview.lens("Accept only this").nth(1).click()
    over(preview)
    preview.wait_for_text(planned(AREA, text=NEW).replace("return base\n", "return base * unit\n"))


def test_a_change_is_left_out(preview: Window) -> None:
    preview.lens("Leave this out").nth(0).click()
    preview.lens("take it in again").wait_for()
    preview.wait_for(lambda: "    base = width * height" not in preview.lines())
    preview.lens("Leave this out").wait_for()
    preview.press("Control+Enter")
    over(preview)
    preview.wait_for_text(planned(AREA, text=NEW).replace("return base\n", "return base * unit\n"))


def test_an_outdated_preview_changes_nothing(preview: Window) -> None:
    changed = f"{planned(AREA, text=NEW)}# from elsewhere\n"
    (preview.folder / "sample.py").write_text(changed)
    preview.wait_for(lambda: _accept(preview) and "has changed" in preview.notifications())
    assert preview.text() == changed


def _accept(window: Window) -> bool:
    window.press("Control+Enter")
    return True


def test_again_more_and_less(editor: Editor, tmp_path: Path) -> None:
    answers = [f"base = {name}(<strength>)" for name in ("one", "two")]
    text = planned("base = 0\n", by_seed=answers)
    with editor.window(tmp_path, text) as window:
        window.wait_until_ready()
        window.go(2, 1)
        window.press("Shift+End")
        window.command("Rewrite Selection…")
        window.page.locator(".quick-input-widget", has_text="press Enter").wait_for()
        window.press("Enter")
        for key, expected in (
            ("", "one(0.6)"),
            ("Alt+Enter", "two(0.6)"),
            ("Alt+=", "two(0.8)"),
            ("Alt+-", "two(0.6)"),
            ("Alt+-", "two(0.4)"),
        ):
            window.press(*filter(None, [key]))
            window.wait_for(lambda expected=expected: f"base = {expected}" in window.lines())
            window.lens("Accept").wait_for()
        window.press("Control+Enter")
        window.wait_for_text(text.replace("base = 0\n", "base = two(0.4)\n"))


def test_a_rewrite_is_shown_as_it_settles(editor: Editor, tmp_path: Path) -> None:
    plan = {"frame": "base = unsure", "confidence": 0.3, "delay": 30.0}
    with editor.window(tmp_path, planned("base = 0\n", text="base = 1", **plan)) as window:
        window.wait_until_ready()
        window.go(2, 1)
        window.press("Shift+End")
        window.command("Rewrite Selection…")
        window.page.locator(".quick-input-widget", has_text="press Enter").wait_for()
        window.press("Enter")
        window.lens("pass 1 of 8").wait_for()
        assert "base = unsure" in window.lines()
        window.press("Escape")
        over(window)
        assert window.text() == planned("base = 0\n", text="base = 1", **plan)


def test_holes_are_filled(editor: Editor, tmp_path: Path) -> None:
    text = planned("width = ...\nheight = ...\n", texts=["3", "4"])
    with editor.window(tmp_path, text) as window:
        window.wait_until_ready()
        window.command("Fill All Holes")
        previewed(window)
        window.press("Control+Enter")
        filled = text.replace("width = ...", "width = 3").replace("height = ...", "height = 4")
        window.wait_for_text(filled)


def test_where_there_is_no_hole_it_says_so(editor: Editor, tmp_path: Path) -> None:
    with editor.window(tmp_path, "width = 3\n") as window:
        window.wait_until_ready()
        window.command("Fill All Holes")
        window.wait_for_message("there is no hole")


# ---- on and off ----


def test_it_is_turned_off_and_on(editor: Editor, tmp_path: Path) -> None:
    with editor.window(tmp_path, ADD) as window:
        window.wait_until_ready()
        window.command("Turn Suggestions On or Off")
        window.wait_for(lambda: "turned off" in window.state)
        window.go(3, 12)
        window.command("Suggest Here")
        window.status.click()
        window.page.locator(".quick-input-list", has_text="setting enable").wait_for()
        window.page.locator(".quick-input-list .monaco-list-row", has_text="Turn on every").click()
        window.wait_until_ready()
        window.command("Suggest Here")
        assert window.wait_for_ghost() == SUM


def test_it_is_turned_off_for_a_language_and_a_folder(editor: Editor, tmp_path: Path) -> None:
    with editor.window(tmp_path, ADD) as window:
        window.wait_until_ready()
        window.command("Turn Suggestions On or Off for This Language")
        window.wait_for(lambda: settings_of(window).get("diffgemma.languagesOff") == ["python"])
        window.status.click()
        window.page.locator(".quick-input-list", has_text="Turn on for python").wait_for()
        window.page.locator(".monaco-list-row", has_text="Turn on for python").click()
        window.wait_for(lambda: settings_of(window).get("diffgemma.languagesOff") == [])
        window.command("Turn Suggestions On or Off in This Folder")
        folder = tmp_path / ".vscode" / "settings.json"
        window.wait_for(lambda: folder.exists() and "enable" in folder.read_text())
        assert json.loads(folder.read_text()) == {"diffgemma.enable": False}


def settings_of(window: Window) -> dict[str, Any]:
    """The user's settings; empty while they are written."""
    try:
        return json.loads(window.settings_files["User"].read_text())
    except ValueError:
        return {}


# ---- what can go wrong ----


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
        said = window.wait_for_message(*words)
        assert said.startswith("Diffgemma: ")
        window.page.get_by_role("button", name="How to Install").wait_for()
        assert words[0] in window.state
        # Once the path is right, it starts without more ado.
        window.set(**{"server.path": str(editor.program("server", FAKE))})
        window.wait_until_ready()


@pytest.mark.parametrize(
    ("settings", "limit", "words"),
    [
        pytest.param({"diffgemma.model": "/nowhere"}, "", ["/nowhere"], id="a missing model"),
        pytest.param({}, "ulimit -v 1500000; ", ["memory"], id="too little memory"),
    ],
)
def test_an_engine_that_does_not_start_says_why(
    editor: Editor, tmp_path: Path, settings: dict[str, Any], limit: str, words: list[str]
) -> None:
    # An engine of its own: the one of the other tests is there already.
    env = ("env", f"DIFFGEMMA_LSP_RUNTIME_DIR={tmp_path / 'run'}")
    server = ("sh", "-c", f'{limit}exec "$@"', "sh", *env, *REAL)
    with editor.window(tmp_path, ADD, server, settings) as window:
        window.wait_for_message("diffgemma-lsp: ", *words)
        window.wait_for(lambda: all(word in window.state for word in words))


def test_a_broken_setting_is_named_and_the_rest_works(editor: Editor, tmp_path: Path) -> None:
    settings = {"diffgemma.maxTokens": "many"}
    with editor.window(tmp_path, ADD, settings=settings) as window:
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
        window.lens("(60% may change)").wait_for()
        assert not (tmp_path / "ran").exists()


# ---- with nano ----

# Where to look for a suggestion in a file of this repository: the text from here to the end of its
# line is taken away and begun again. nano may have nothing to say at some of them.
REAL_FILE = ROOT / "diffgemma_lsp" / "commands" / "source.py"
PLACES = ("self.line", "Position(len", "starts[at", "length + 1:", "_LINE_END.search")


def appears(window: Window, place: str) -> bool:
    """Begins the text at a place anew; whether a suggestion for it comes. Undone if none does."""
    before = window.text().partition(place)[0]
    window.go(before.count("\n") + 1, len(before.rpartition("\n")[2]) + 1)
    window.press("Shift+End")
    window.type(place[0])
    try:
        window.wait_for(lambda: window.ghost().strip(), 20)
    except AssertionError:
        window.press("Control+z")
        window.wait_for_text(REAL_FILE.read_text(encoding="utf-8"))
        return False
    return True


def test_nano_in_a_real_file(editor: Editor, real_engine: dict[str, str], tmp_path: Path) -> None:
    text = REAL_FILE.read_text(encoding="utf-8")
    with editor.window(tmp_path, text, REAL) as window:
        window.wait_for(lambda: "ready" in window.state)
        place = next(place for place in PLACES if appears(window, place))
        ghost = window.ghost()
        window.picture("ghost")
        window.press("Tab")
        before, _, after = text.partition(place)
        expected = f"{before}{place[0]}{ghost}\n{after.partition(chr(10))[2]}"
        window.wait_for_text(expected)
        os.kill(engine_pid(real_engine), signal.SIGKILL)
        window.press("Control+z")
        window.wait_for(lambda: window.text() != expected)
        window.command("Suggest Here")
        assert window.wait_for_ghost().strip()
        window.status.click()
        window.page.locator(".quick-input-list", has_text="Turn off for python").wait_for()
        window.picture("status")


def again(window: Window) -> bool:
    """Asks for another rewrite, if none is under way. False."""
    if window.lens("Again").count():
        window.press("Alt+Enter")
        window.page.wait_for_timeout(1000)
    return False


def test_nano_rewrites_with_a_preview(editor: Editor, tmp_path: Path) -> None:
    text = REAL_FILE.read_text(encoding="utf-8")
    # As much as there is may change, or nano might leave it as it is.
    settings = {"diffgemma.rewriteStrength": 1.0}
    with editor.window(tmp_path, text, REAL, settings) as window:
        window.wait_for(lambda: "ready" in window.state)
        line = text[: text.index("def position")].count("\n") + 1
        window.go(line + 2, 5)
        window.press("Shift+ArrowDown", "Shift+ArrowDown", "Shift+ArrowDown")
        window.command("Rewrite Selection…")
        window.page.locator(".quick-input-widget", has_text="press Enter").wait_for()
        window.press("Enter")
        previewed(window)
        window.wait_for(lambda: window.lens("Accept").count() or again(window))
        window.picture("preview")
        window.press("Control+Enter")
        over(window)
        window.wait_for(lambda: window.text() != text)
        window.press("Control+z")
        window.wait_for_text(text)


def engine_pid(env: dict[str, str]) -> int:
    """The process of the engine that the tests share."""
    lock = next(Path(env["DIFFGEMMA_LSP_RUNTIME_DIR"]).rglob("*.lock"))
    return int(lock.read_text())
