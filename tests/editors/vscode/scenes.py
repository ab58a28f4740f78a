"""What the tests in VS Code have in common: documents, and the way into a preview and out of it."""

from __future__ import annotations

import json
from typing import Any

from code_server import Window


def planned(source: str, /, **plan: Any) -> str:
    """The source with a first line that tells the fake engine what to answer."""
    return f"# fake: {json.dumps(plan)}\n{source}"


SOURCE = "def add(a, b):\n    return \n"
SUM = "alpha + beta"
ADD = planned(SOURCE, text=SUM)
DONE = ADD.replace("return \n", f"return {SUM}\n")


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


def over(window: Window) -> None:
    """Returns when the document itself is shown again."""
    window.page.locator(".tab", has_text="Preview").wait_for(state="detached")
    window.page.locator(".tab.active", has_text="sample.py").wait_for()
