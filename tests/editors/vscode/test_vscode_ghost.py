"""Ghost text in a real VS Code: typed through, accepted in parts, cycled, turned off and on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from code_server import FAKE, Editor, Window
from scenes import ADD, DONE, SOURCE, SUM, planned


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


def test_it_is_turned_off_and_on(editor: Editor, tmp_path: Path) -> None:
    with editor.window(tmp_path, ADD) as window:
        window.wait_until_ready()
        window.command("Turn Suggestions On or Off")
        window.wait_for(lambda: "turned off" in window.state)
        window.go(3, 12)
        window.command("Suggest Here")
        window.wait_for(lambda: menu_says(window, "setting enable"))  # the server knows
        window.page.locator(".quick-input-list", has_text="turned off everywhere").wait_for()
        window.page.locator(".quick-input-list .monaco-list-row", has_text="Turn on every").click()
        window.wait_until_ready()
        window.command("Suggest Here")
        assert window.wait_for_ghost() == SUM


def test_it_is_turned_off_for_a_language_and_a_folder(editor: Editor, tmp_path: Path) -> None:
    with editor.window(tmp_path, ADD) as window:
        window.wait_until_ready()
        window.command("Turn Suggestions On or Off for This Language")
        window.wait_for(lambda: settings_of(window).get("diffgemma.languagesOff") == ["python"])
        window.wait_for(lambda: "turned off for python" in window.state)
        window.status.click()
        window.page.locator(".quick-input-list", has_text="Turn on for python").wait_for()
        window.page.locator(".monaco-list-row", has_text="Turn on for python").click()
        window.wait_for(lambda: settings_of(window).get("diffgemma.languagesOff") == [])
        window.command("Turn Suggestions On or Off in This Folder")
        folder = tmp_path / ".vscode" / "settings.json"
        window.wait_for(lambda: folder.exists() and "enable" in folder.read_text())
        assert json.loads(folder.read_text()) == {"diffgemma.enable": False}
        window.wait_for(lambda: "turned off in this folder" in window.state)


def test_a_language_in_which_the_model_only_answers(editor: Editor, tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text(planned("A sum is \n", text=SUM))
    server = ("env", "FAKE_LANGUAGES=python", *FAKE)
    with editor.window(tmp_path, server=server) as window:
        window.wait_until_ready()
        window.open("notes.md")
        window.wait_for(lambda: "not used for markdown" in window.state)
        window.status.click()
        rows = window.page.locator(".quick-input-list .monaco-list-row")
        rows.filter(has_text="diffgemma.server.languages").wait_for()
        limits = "The model may suggest in markdown only when you ask"
        rows.filter(has_text="Turn on for markdown").filter(has_text=limits).click()
        window.wait_for_message(f"it is on. {limits}")
        window.wait_for(lambda: "not used" not in window.state)
        window.wait_until_ready()
        window.open("notes.md")
        window.go(2, 10)
        window.command("Suggest Here")
        assert window.wait_for_ghost() == SUM
        window.press("Escape")
        window.status.click()
        limits = "fake suggests in markdown only when you ask"
        rows.filter(has_text="Turn off for markdown").filter(has_text=limits).wait_for()


def menu_says(window: Window, words: str) -> bool:
    """Opens the menu; closes it again where it does not have the words."""
    window.status.click()
    menu = window.page.locator(".quick-input-widget")
    menu.wait_for()
    if words in menu.inner_text():
        return True
    window.press("Escape")
    menu.wait_for(state="hidden")
    return False


def settings_of(window: Window) -> dict[str, Any]:
    """The user's settings; empty while they are written."""
    try:
        return json.loads(window.settings_files["User"].read_text())
    except ValueError:
        return {}
