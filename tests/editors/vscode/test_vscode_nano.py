"""The extension, the server and nano in a real VS Code. Takes the README's pictures,
which show mini."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

from code_server import REAL, ROOT, Editor, Window
from scenes import over, previewed

# Where to look for a suggestion in a file of this repository: the text from here to the end of its
# line is taken away and begun again. nano may have nothing to say at some of them.
REAL_FILE = ROOT / "diffgemma_lsp" / "commands" / "source.py"
PLACES = (
    "e last position there",
    "self.line",
    "Position(len",
    "starts[at",
    "length + 1:",
    "_LINE_END.search",
)


def appears(window: Window, place: str) -> bool:
    """Begins the text at a place anew; whether a suggestion for it comes. Undone if none does."""
    before = window.text().partition(place)[0]
    window.go(before.count("\n") + 1, len(before.rpartition("\n")[2]) + 1)
    # In two steps: where a text is replaced by a shorter one, nothing is suggested.
    window.press("Shift+End", "Delete")
    window.type(place[0])
    try:
        window.wait_for(lambda: window.ghost().strip(), 20)
    except AssertionError:
        window.press("Control+z", "Control+z")
        window.wait_for_text(REAL_FILE.read_text(encoding="utf-8"))
        return False
    return True


def test_nano_in_a_real_file(editor: Editor, real_engine: dict[str, str], tmp_path: Path) -> None:
    text = REAL_FILE.read_text(encoding="utf-8")
    with editor.window(tmp_path, text, REAL) as window:
        window.wait_for(lambda: "ready" in window.state)
        window.press("Control+b")  # the editor is what matters in pictures
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
    with editor.window(tmp_path, text, REAL) as window:
        window.wait_for(lambda: "ready" in window.state)
        window.press("Control+b")  # the editor is what matters in pictures
        line = text[: text.index("def position")].count("\n") + 1
        window.go(line + 1, 5)
        window.press("Shift+End")
        window.command("Rewrite Selection…")
        window.page.locator(".quick-input-widget", has_text="press Enter").wait_for()
        window.press("Enter")
        window.picture_while_it_settles("preview")
        previewed(window)
        window.wait_for(lambda: window.lens("Accept").count() or again(window))
        window.press("Control+Enter")
        over(window)
        window.wait_for(lambda: window.text() != text)
        window.press("Control+z")
        window.wait_for_text(text)


def test_nano_follows_an_edit(editor: Editor, tmp_path: Path) -> None:
    text = REAL_FILE.read_text(encoding="utf-8")
    before, function, after = text.partition("def split_place(")
    body, rest, others = after.partition("\n\n\n")
    renamed = before + function + re.sub(r"\bname\b", "place", body) + rest + others
    with editor.window(tmp_path, text, REAL) as window:
        window.wait_for(lambda: "ready" in window.state)
        window.press("Control+b")  # the editor is what matters in pictures
        window.go(before.count("\n") + 1, len(function) + 1)
        window.press("Control+Delete")
        window.type("place")
        window.wait_for(lambda: window.struck() == ["name", "name"])
        window.picture("next-edit")
        window.press("Tab", "Tab")
        window.wait_for(lambda: window.struck() == ["name"])
        window.press("Tab", "Tab")
        window.wait_for_text(renamed)


def engine_pid(env: dict[str, str]) -> int:
    """The process of the engine that the tests share."""
    lock = next(Path(env["DIFFGEMMA_LSP_RUNTIME_DIR"]).rglob("*.lock"))
    return int(lock.read_text())
