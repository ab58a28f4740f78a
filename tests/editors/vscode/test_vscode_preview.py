"""Rewrites and filled holes in a real VS Code: the preview, and each of its endings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from code_server import Editor, Window
from scenes import AREA, NEW, TIMES, over, planned, previewed, rewriting


@pytest.fixture
def preview(editor: Editor, tmp_path: Path) -> Iterator[Window]:
    """A window with a preview of two changes in AREA."""
    with editor.window(tmp_path, planned(AREA, text=NEW)) as window:
        rewriting(window)
        shown = [line.strip() for line in previewed(window)]
        assert shown[2:4] == ["base = width + height", "base = width * height"]
        assert window.text() == planned(AREA, text=NEW), "a preview changes nothing"
        yield window


def button(title: str) -> str:
    """One in the title of the editor."""
    return f".editor-actions .action-label[aria-label^='{title}']"


def test_a_rewrite_is_accepted_and_undone_once(preview: Window) -> None:
    preview.page.locator(button("More Change")).wait_for()
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
    preview.lens("Only this").nth(1).click()
    over(preview)
    preview.wait_for_text(planned(AREA, text=NEW).replace("return base\n", "return base * unit\n"))


def test_a_change_is_left_out(preview: Window) -> None:
    preview.lens("Leave out").nth(0).click()
    preview.lens("Take it in again").wait_for()
    preview.wait_for(lambda: "    base = width * height" not in preview.lines())
    preview.lens("Leave out").wait_for()
    preview.press("Control+Enter")
    over(preview)
    preview.wait_for_text(planned(AREA, text=NEW).replace("return base\n", "return base * unit\n"))


def test_an_outdated_preview_changes_nothing(preview: Window) -> None:
    tabs = preview.page.locator(".tabs-container .tab")
    tabs.filter(has_not_text="Preview").click()
    preview.go(6, 1)
    preview.type("# more")
    changed = f"{planned(AREA, text=NEW)}# more"
    preview.wait_for_text(changed)
    tabs.filter(has_text="Preview").click()
    preview.lens("Accept").first.wait_for()
    preview.press("Control+Enter")
    preview.wait_for_message("has changed")
    preview.press("Escape")
    over(preview)
    assert preview.text() == changed


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
        window.press(*["Alt+="] * 4)
        window.lens("100% is all").wait_for()
        window.lens("Accept").wait_for()
        window.press(*["Alt+-"] * 3)
        window.wait_for(lambda: "base = two(0.4)" in window.lines())
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
        window.wait_for(window.tinted)
        window.press("Escape")
        over(window)
        assert window.text() == planned("base = 0\n", text="base = 1", **plan)


def test_holes_are_filled(editor: Editor, tmp_path: Path) -> None:
    text = planned("width = ...\nheight = ...\n", texts=["3", "4"])
    with editor.window(tmp_path, text) as window:
        window.wait_until_ready()
        window.command("Fill All Holes")
        previewed(window)
        window.page.locator(button("Again")).wait_for()
        assert not window.page.locator(button("More Change")).count(), "there is no draft"
        window.press("Control+Enter")
        filled = text.replace("width = ...", "width = 3").replace("height = ...", "height = 4")
        window.wait_for_text(filled)


def test_it_is_told_which_holes_are_left(editor: Editor, tmp_path: Path) -> None:
    text = planned("width = ...\n# TODO: print it\n", texts=["3", ""])
    with editor.window(tmp_path, text) as window:
        window.wait_until_ready()
        window.command("Fill All Holes")
        previewed(window)
        window.wait_for_message("1 of 2 places left: nothing came that fits")
        window.press("Control+Enter")
        window.wait_for_text(text.replace("width = ...", "width = 3"))


def test_there_are_previews_after_the_window_was_loaded_anew(preview: Window) -> None:
    preview.press("F1")
    preview.page.locator(".quick-input-widget input").first.wait_for()
    preview.page.keyboard.type("Developer: Reload Window")
    preview.page.locator(".quick-input-list .monaco-list-row").first.wait_for()
    preview.page.evaluate("window.before = true")
    preview.press("Enter")
    preview.page.wait_for_function("!window.before")
    preview.status.wait_for()
    preview.page.locator(".tab", has_not_text="Preview").click()
    rewriting(preview)
    assert "    base = width * height" in previewed(preview)
    preview.lens("Only this").first.wait_for()


def test_where_there_is_no_hole_it_says_so(editor: Editor, tmp_path: Path) -> None:
    with editor.window(tmp_path, "width = 3\n") as window:
        window.wait_until_ready()
        window.command("Fill All Holes")
        window.wait_for_message("there is no hole")
