"""Next edits in a real VS Code: drawn, jumped to, accepted, undone, hidden, and off."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from code_server import Editor, Window
from scenes import planned

BODY = """\
def area(width, height):
    print(height)
    return width * height
"""
TEXT = planned(BODY, text="")
"""No ghost text is in the way."""
RENAMED = TEXT.replace("width,", "side,")
FOLLOWED = RENAMED.replace("return width", "return side")


def rename(window: Window) -> None:
    """The first parameter, by its keys."""
    window.wait_until_ready()
    window.go(2, 10)
    window.press("Control+Delete")
    window.type("side")


def shown(window: Window) -> bool:
    """Whether the next edit is drawn that has to follow."""
    return window.struck() == ["width"] and "side" in window.behind()


@pytest.fixture
def renamed(editor: Editor, tmp_path: Path) -> Iterator[Window]:
    """A window with a next edit that is shown."""
    with editor.window(tmp_path, TEXT) as window:
        rename(window)
        window.wait_for(lambda: shown(window))
        yield window


def test_it_is_drawn_jumped_to_accepted_and_undone(renamed: Window) -> None:
    assert renamed.behind() == ["side", "Tab: jump here"]
    assert renamed.text() == RENAMED, "a mark is no text"
    renamed.press("Tab")
    renamed.wait_for(lambda: renamed.behind() == ["side", "Tab: accept"])
    assert "Ln 4, Col 12" in renamed.cursor
    assert renamed.text() == RENAMED
    renamed.press("Tab")
    renamed.wait_for_text(FOLLOWED)
    renamed.wait_for(lambda: not renamed.behind())
    renamed.press("Control+z")
    renamed.wait_for_text(RENAMED)
    renamed.command("Jump to Next Edit")
    renamed.wait_for(lambda: "nothing has to follow the last edits" in renamed.bar)
    assert not renamed.behind(), "what was undone is not offered again"
    renamed.page.locator("[id='diffgemma.diffgemma-lsp.status']").click()
    menu = renamed.page.locator(".quick-input-widget")
    menu.wait_for()
    assert "nothing has to follow" not in menu.inner_text(), "which is no suggestion"


def test_what_is_typed_hides_it_and_tab_is_tab_again(renamed: Window) -> None:
    renamed.press("End", "Enter")
    renamed.wait_for(lambda: not renamed.struck())
    renamed.press("Tab")
    renamed.wait_for_text(RENAMED.replace("height):\n", "height):\n    \n"))
    renamed.wait_for(lambda: shown(renamed))


def test_escape_hides_it_and_tab_is_tab_again(renamed: Window) -> None:
    renamed.press("Escape")
    renamed.wait_for(lambda: not renamed.struck() and not renamed.behind())
    renamed.press("End", "Tab")
    renamed.wait_for_text(RENAMED.replace("height):\n", "height): \n"))
    renamed.press("Control+z")
    renamed.wait_for_text(RENAMED)
    renamed.wait_for(lambda: shown(renamed))
    renamed.press("Escape")
    renamed.wait_for(lambda: not renamed.struck())
    renamed.command("Jump to Next Edit")
    renamed.wait_for(lambda: "Ln 4, Col 12" in renamed.cursor)
    renamed.press("Tab")
    renamed.wait_for_text(FOLLOWED)


def test_a_refusal_leads_to_the_next_place(editor: Editor, tmp_path: Path) -> None:
    text = TEXT.replace("print(height)", "print(width)")
    with editor.window(tmp_path, text) as window:
        rename(window)
        window.wait_for(lambda: shown(window))
        window.press("Tab")
        window.wait_for(lambda: "Ln 3, Col 11" in window.cursor)
        window.press("Shift+Escape")
        window.wait_for(lambda: shown(window) and window.behind() == ["side", "Tab: jump here"])
        window.press("Tab")
        window.wait_for(lambda: "Ln 4, Col 12" in window.cursor)
        window.command("Refuse Next Edit")
        window.wait_for(lambda: not window.struck())
        window.command("Refuse Next Edit")
        window.wait_for(lambda: "no next edit here" in window.bar)
        assert window.text() == text.replace("width, ", "side, ")


def test_it_comes_again_when_one_is_back_from_elsewhere(editor: Editor, tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("elsewhere\n")
    with editor.window(tmp_path, TEXT) as window:
        rename(window)
        window.wait_for(lambda: shown(window))
        window.open("other.txt")
        window.wait_for(lambda: not window.struck())
        window.page.locator(".tab", has_text=".py").first.click()
        window.wait_for(lambda: shown(window))


def test_ghost_text_goes_first(editor: Editor, tmp_path: Path) -> None:
    with editor.window(tmp_path, planned(BODY, text="ways")) as window:
        rename(window)
        window.wait_for(lambda: shown(window))
        window.command("Suggest Here")
        window.wait_for_ghost("ways")
        assert shown(window)
        window.press("Tab")
        window.wait_for(lambda: "def area(sideways, height)" in window.text())
        window.wait_for(lambda: window.struck() == ["width"] and "sideways" in window.behind())


def test_one_that_is_out_of_sight_is_told_of(editor: Editor, tmp_path: Path) -> None:
    text = TEXT.replace("    return", "    pass\n" * 60 + "    return")
    with editor.window(tmp_path, text) as window:
        rename(window)
        window.wait_for(lambda: window.behind() == ["Tab: next edit, line 64"])
        window.press("Tab")
        window.wait_for(lambda: shown(window) and "Ln 64, Col 12" in window.cursor)
        window.press("Control+Alt+-")
        window.wait_for(lambda: "Ln 2, Col 14" in window.cursor)


def test_it_can_be_turned_off(editor: Editor, tmp_path: Path) -> None:
    with editor.window(tmp_path, TEXT, settings={"diffgemma.nextEdits": False}) as window:
        rename(window)
        window.command("Jump to Next Edit")
        window.wait_for(lambda: "next edits are turned off" in window.bar)
        assert not window.behind()
