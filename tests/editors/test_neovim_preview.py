"""Rewrites that a real Neovim shows before they change anything, and each way to end one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from install import Program
from neovim import FAKE, Session, editing
from test_neovim_suggestions import SILENT

SHAPES = """\
# fake: {"frame": "base = unsure", "confidence": 0.7, "text": "base = width * height"}
def area(width, height):
    base = width + height
    return base
"""
AFTER = SHAPES.replace("width + height", "width * height")
# Takes for ever, once it has shown something.
ENDLESS = SHAPES.replace('"text"', '"delay": 600, "deaf": true, "text"')

HOLES = """\
class Rectangle:
    def __init__(self, width, height):
        self.width = ...
        self.height = ...
"""


def report(session: Session) -> dict[str, Any]:
    """What the fake engine was asked to do."""
    return session.lua("probe.ask('test/report')")


def rewrite(session: Session) -> None:
    """Has the third line rewritten, by the README's key."""
    session.wait_until_attached()
    session.type("3GV dr")


def accepting(session: Session) -> bool:
    """Whether it is done and waits for a key."""
    return "<CR> accept" in session.preview()


def test_accepted_in_one_step(nvim: Program, tmp_path: Path) -> None:
    with editing(nvim, tmp_path, SHAPES, FAKE) as session:
        rewrite(session)
        session.wait_for(lambda: accepting(session))
        assert "    base = width * height" in session.preview().splitlines()
        assert "70% sure" in session.preview()
        assert session.buffer() == SHAPES, "a preview is no change"
        session.type("\r")
        session.wait_for(lambda: session.buffer() == AFTER)
        assert session.preview() == ""
        assert session.lua("vim.fn.maparg('<CR>', 'n')") == "", "its keys are gone"
        session.type("u")
        session.wait_for(lambda: session.buffer() == SHAPES)
        assert session.lua("vim.fn.undotree().seq_cur") == 0


def test_again_more_less_and_discarded(nvim: Program, tmp_path: Path) -> None:
    with editing(nvim, tmp_path, SHAPES, FAKE) as session:
        rewrite(session)
        for runs, key in enumerate(("r", "+", "+", "+", "-", "\x1b"), start=1):
            session.wait_for(lambda runs=runs: report(session)["runs"] == runs)
            session.wait_for(lambda: accepting(session))
            session.type(key)
        session.wait_for(lambda: session.preview() == "")
        assert session.buffer() == SHAPES
        told = report(session)
        assert told["seeds"] == [0, 1, 1, 1, 1, 1]
        assert [round(it, 3) for it in told["strengths"]] == [0.6, 0.6, 0.8, 1.0, 1.0, 0.8]


def test_what_would_be_out_of_sight_is_brought_into_it(nvim: Program, tmp_path: Path) -> None:
    text = SHAPES.replace("def", "#\n" * 40 + "def") + "#\n" * 40
    with editing(nvim, tmp_path, text, FAKE) as session:
        session.wait_until_attached()
        session.type(":43\rzbV:Diffgemma rewrite\r")  # the last line in sight
        session.wait_for("    base = width * height")
        session.wait_for("<CR> accept")
        session.type("\r")
        session.wait_for(lambda: "width * height" in session.buffer())


def test_cancelled_while_it_works(nvim: Program, tmp_path: Path) -> None:
    with editing(nvim, tmp_path, ENDLESS, FAKE) as session:
        rewrite(session)
        session.wait_for("    base = unsure")
        assert "pass 1 of 8   <Esc> cancel" in session.preview()
        session.type("\r")
        session.wait_for("it is not done yet")
        session.type("\x1b")
        session.wait_for(lambda: session.preview() == "")
        session.wait_for(lambda: report(session)["cancelled"] == 1)
        assert session.buffer() == ENDLESS


def test_what_goes_on_is_said_where_the_user_looks(nvim: Program, tmp_path: Path) -> None:
    text = ENDLESS + "#\n" * 80
    with editing(nvim, tmp_path, text, FAKE) as session:
        session.wait_until_attached()
        session.type(":2,$Diffgemma rewrite\r")
        session.wait_for("pass 1 of 8   <Esc> cancel")
        session.type("\x1b")
        session.wait_for(lambda: session.preview() == "")
        session.wait_for(lambda: "pass 1 of 8" not in session.terminal.text())


def test_again_no_longer_shows_what_was(nvim: Program, tmp_path: Path) -> None:
    with editing(nvim, tmp_path, SHAPES, FAKE) as session:
        rewrite(session)
        session.wait_for(lambda: accepting(session))
        assert session.lua(SILENT)
        session.type("r")
        session.wait_for(lambda: "working   <Esc> cancel" in session.preview())
        assert "accept" not in session.preview()


def test_what_could_never_be_done_is_refused_in_a_line(nvim: Program, tmp_path: Path) -> None:
    text = SHAPES + "#" * 19 + "\n" + "# a line like many\n" * 5000
    with editing(nvim, tmp_path, text, FAKE) as session:
        session.wait_until_attached()
        session.type(":%Diffgemma rewrite\r")
        session.wait_for(lambda: "too long for 30 s: select" in session.messages())
        assert "Press ENTER" not in session.terminal.text()
        assert session.preview() == ""


def test_what_is_refused_at_the_end_of_the_window_is_said_and_leaves_nothing(
    nvim: Program, tmp_path: Path
) -> None:
    text = "#\n" * 100 + SHAPES.rstrip("\n") + "\n"
    with editing(nvim, tmp_path, text, FAKE) as session:
        session.wait_until_attached()
        session.type("GzbVk:Diffgemma rewrite shorter\r")
        session.wait_for(lambda: "does not follow instructions" in session.terminal.text())
        session.wait_for(lambda: "working" not in session.terminal.text())
        assert "does not follow instructions" in session.terminal.text()
        session.type("k")
        session.wait_for(lambda: session.preview() == "")
        assert "working" not in session.terminal.text()


def test_gone_when_the_text_changes(nvim: Program, tmp_path: Path) -> None:
    with editing(nvim, tmp_path, SHAPES, FAKE) as session:
        rewrite(session)
        session.wait_for(lambda: accepting(session))
        session.type("Gox = 1")
        session.wait_for(lambda: session.preview() == "")
        assert "the text was changed, so the preview is gone" in session.messages()
        assert session.lua("vim.fn.maparg('<CR>', 'n')") == ""
        expected = SHAPES + "x = 1\n"
        session.wait_for(lambda: session.buffer() == expected)


def test_part_of_a_line_and_keys_of_the_users(nvim: Program, tmp_path: Path) -> None:
    text = SHAPES.replace("base = width * height", "länge * breite").replace(
        "width + height", "größe + 1"
    )
    config = """
        vim.keymap.set('n', 'r', 'ix', { buffer = 1 })
        vim.g.diffgemma = { preview_keys = { accept = 'ga' } }
    """
    with editing(nvim, tmp_path, text, FAKE, config=config) as session:
        session.wait_until_attached()
        session.type("3G/größe\rvt+:Diffgemma rewrite\r")
        session.wait_for(lambda: "ga accept   <Esc> discard" in session.preview())
        session.type("ga")
        expected = text.replace("größe + 1", "länge * breite + 1")
        session.wait_for(lambda: session.buffer() == expected)
        assert session.lua("vim.fn.maparg('r', 'n')") == "ix", "a key of the user's is back"


def test_with_nano(nvim: Program, warm_engine: dict[str, str], tmp_path: Path) -> None:
    with editing(nvim, tmp_path, HOLES, env=warm_engine) as session:
        session.wait_until_attached()
        session.type(":%Diffgemma holes\r")
        session.wait_for(lambda: accepting(session))
        assert "..." not in session.preview()
        assert session.buffer() == HOLES
        session.type("\r")
        session.wait_for(lambda: "..." not in session.buffer())
        filled = session.buffer()
        session.type("u")
        session.wait_for(lambda: session.buffer() == HOLES)
        session.type("\x12")
        session.wait_for(lambda: session.buffer() == filled)
        session.type("4GV:Diffgemma rewrite\r")
        # With all of it free to change, some seed writes the line otherwise.
        for key in ("+", "+", *"rrrrrrrr"):
            session.wait_for(lambda: "r again" in session.preview())
            if accepting(session):
                break
            session.type(key)
            session.wait_for(lambda: "r again" not in session.preview())
        session.wait_for(lambda: accepting(session))
        session.type("\r")
        session.wait_for(lambda: session.buffer() != filled)
        session.type("u")
        session.wait_for(lambda: session.buffer() == filled)
