"""Next edits in a real Neovim: marked, jumped to, accepted, undone, and off."""

from __future__ import annotations

from pathlib import Path

from install import Program
from neovim import FAKE, Session, editing

TEXT = """\
def area(width, height):
    print(height)
    return width * height
"""
RENAMED = TEXT.replace("width,", "side,")
FOLLOWED = RENAMED.replace("return width", "return side")
SHOWN = "    return side * height"

NEXT = " dn"
"""The key of the README."""

REFUSED = " dx"

LINE = "vim.api.nvim_win_get_cursor(0)[1]"


def mark(session: Session) -> str:
    return session.lua("probe.drawn('diffgemma.next_edit')")


def rename(session: Session) -> None:
    """The first parameter, by its keys."""
    session.wait_until_attached()
    session.type("gg0fwcwside\x1b")
    session.wait_for(lambda: session.buffer() == RENAMED)


def test_it_is_marked_jumped_to_accepted_and_undone(nvim: Program, tmp_path: Path) -> None:
    with editing(nvim, tmp_path, TEXT, FAKE) as session:
        rename(session)
        session.wait_for(lambda: mark(session) == SHOWN)
        assert session.buffer() == RENAMED, "a mark is no text"
        session.type(NEXT)
        session.wait_for(lambda: session.lua(LINE) == 3)
        assert session.buffer() == RENAMED
        session.type(":Diffgemma next\r")
        session.wait_for(lambda: session.buffer() == FOLLOWED)
        session.wait_for(lambda: mark(session) == "")
        session.type("u")
        session.wait_for(lambda: session.buffer() == RENAMED)
        asked = "probe.reason('textDocument/copilotInlineEdit')"
        session.wait_for(lambda: session.lua(asked) == "nothing has to follow the last edits")
        assert mark(session) == "", "what was undone is not offered again"
        session.type(":Diffgemma next\r")
        session.wait_for(lambda: "no next edit here" in session.messages())


def test_one_that_is_out_of_sight_is_told_of(nvim: Program, tmp_path: Path) -> None:
    text = TEXT.replace("    return", "    pass\n" * 60 + "    return")
    with editing(nvim, tmp_path, text, FAKE) as session:
        session.wait_until_attached()
        session.type("gg0fwcwside\x1b")
        session.wait_for("next edit: line 63")
        session.type("ix\x1b")
        session.wait_for(lambda: "line 63" not in mark(session))


def test_a_refusal_leads_to_the_next_place(nvim: Program, tmp_path: Path) -> None:
    text = TEXT.replace("print(height)", "print(width)")
    renamed = text.replace("width,", "side,")
    with editing(nvim, tmp_path, text, FAKE) as session:
        session.wait_until_attached()
        session.type("gg0fwcwside\x1b")
        session.wait_for(lambda: mark(session) == "    print(side)")
        session.type(REFUSED)
        session.wait_for(lambda: mark(session) == SHOWN)
        assert session.buffer() == renamed
        session.type(":Diffgemma refuse\r")
        asked = "probe.reason('textDocument/copilotInlineEdit')"
        session.wait_for(lambda: session.lua(asked) == "nothing has to follow the last edits")
        session.type(":Diffgemma refuse\r")
        session.wait_for(lambda: "no next edit here" in session.messages())
        assert session.buffer() == renamed
        session.type("gg0fscwedge\x1b")
        session.wait_for(lambda: mark(session) == "    print(edge)")


def test_an_answer_that_got_lost_is_asked_for_again(nvim: Program, tmp_path: Path) -> None:
    with editing(nvim, tmp_path, TEXT, FAKE) as session:
        rename(session)
        session.wait_for(lambda: mark(session) == SHOWN)
        session.type(":enew\r")
        session.wait_for(lambda: session.buffer() == "\n")
        session.type(":buffer 1\r")
        session.wait_for(lambda: session.buffer() == RENAMED and mark(session) == SHOWN)
        session.type("xv")  # a change, and on to another mode before it is asked
        session.wait_for(lambda: session.buffer() != RENAMED and mark(session) == "")
        session.type("\x1b")
        session.wait_for(lambda: mark(session) == SHOWN.replace("side", "sid"))


def test_it_can_be_turned_off(nvim: Program, tmp_path: Path) -> None:
    config = "vim.g.diffgemma = { next_edits = false }"
    with editing(nvim, tmp_path, TEXT, FAKE, config=config) as session:
        rename(session)
        session.type(":Diffgemma next\r")
        session.wait_for(lambda: "no next edit here" in session.messages())
        assert session.lua("probe.ask('test/report').runs") == 0
