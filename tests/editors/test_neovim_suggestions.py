"""Ghost text in a real Neovim: typed through, accepted in parts, chosen from, dismissed, off."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from install import Program
from neovim import FAKE, ROOT, Session, editing

WORD, LINE, NEXT, DISMISS, ASK = "\x1bw", "\x1bl", "\x1bn", "\x1be", "\x1ba"
"""Keys of the README."""

# Where to look for a suggestion in a file of this repository: the text from here to the end of its
# line is taken away and begun again, as someone would who wants to write it anew. Where something
# was only deleted, nothing is suggested.
REAL_FILE = ROOT / "diffgemma_lsp" / "commands" / "source.py"
PLACES = (
    "self.line",
    "Position(len",
    "starts[at",
    "length + 1:",
    "_LINE_END.search",
    "data.decode",
)

SUGGESTED = "first + second\n    third = value.real\n    return third"
PLANNED = f"""\
# fake: {{"text": "{SUGGESTED.replace(chr(10), chr(92) + "n")}"}}
def total(first, second):
    pass
"""
BEGUN = PLANNED.replace("pass", "value = ")


def type_until_suggested(session: Session) -> None:
    """Writes the last line anew, as far as the suggestion goes on from."""
    session.wait_until_attached()
    session.type("/pass\rCvalue = ")
    session.wait_for(lambda: session.ghost() == SUGGESTED)


def with_all(*accepted: str) -> str:
    """The document when so much is accepted."""
    return BEGUN.replace("value = ", "value = " + "".join(accepted))


def test_what_is_typed_through_is_accepted_in_parts(nvim: Program, tmp_path: Path) -> None:
    with editing(nvim, tmp_path, PLANNED, FAKE) as session:
        type_until_suggested(session)
        session.type("fi")
        session.wait_for(lambda: session.ghost() == SUGGESTED[2:])
        # Two at once: the second goes on from what the first has left.
        session.type(WORD + WORD)
        session.wait_for(lambda: session.buffer() == with_all("first +"))
        session.wait_for(lambda: session.ghost() == SUGGESTED[len("first +") :])
        session.type(LINE)
        session.wait_for(lambda: session.buffer() == with_all("first + second"))
        session.type(LINE)
        two = "first + second\n    third = value.real"
        session.wait_for(lambda: session.buffer() == with_all(two))
        session.wait_for(lambda: session.ghost() == "\n    return third")
        session.type("\t")
        session.wait_for(lambda: session.buffer() == with_all(SUGGESTED))
        for left in (two, "first + second", "first +", "first"):
            session.type("\x1bu")
            session.wait_for(lambda left=left: session.buffer() == with_all(left))


def test_nothing_is_doubled_when_accepted_while_typing(nvim: Program, tmp_path: Path) -> None:
    with editing(nvim, tmp_path, PLANNED, FAKE) as session:
        type_until_suggested(session)
        session.type("firs\t")  # before the server can answer to any of it
        session.wait_for(lambda: session.buffer() == with_all(SUGGESTED))


SILENT = """(function()
    vim.lsp.get_clients({ name = 'diffgemma' })[1].request = function() return true, 0 end
    return true
end)()"""
"""From here on nothing is asked of the server, so that no answer changes what is shown."""


def test_what_something_else_is_typed_over_is_hidden_at_once(nvim: Program, tmp_path: Path) -> None:
    with editing(nvim, tmp_path, PLANNED, FAKE) as session:
        type_until_suggested(session)
        assert session.lua(SILENT)
        session.type("fi")
        session.wait_for(lambda: session.ghost() == SUGGESTED[2:])
        session.type("x")
        session.wait_for(lambda: session.ghost() == "")
        session.type("\t")
        session.wait_for(lambda: session.buffer().endswith(("value = fix \n", "value = fix\t\n")))


def test_off_for_a_buffer_and_a_path(nvim: Program, tmp_path: Path) -> None:
    config = """
        vim.api.nvim_create_autocmd('FileType', { pattern = 'python', callback = function()
          vim.b.diffgemma_off = true
        end })
        vim.lsp.config('diffgemma', { settings = { diffgemma = { globs_off = { 'sample.*' } } } })
    """
    is_on = "vim.lsp.inline_completion.is_enabled({ bufnr = 0 })"
    with editing(nvim, tmp_path, PLANNED, FAKE, config=config) as session:
        session.wait_until_attached()
        assert session.lua("require('diffgemma.server').is_starting()") is False
        session.wait_for(lambda: session.lua("probe.document().off"))
        assert "sample.*" in session.lua("probe.document().off")
        assert session.lua(is_on) is False
        assert session.lua("require('diffgemma').statusline()") == "diffgemma: off here"
        session.type(":Diffgemma status\r")
        session.wait_for("ghost text is turned off in this buffer")
        session.type("\r:Diffgemma on\r")
        session.wait_for(lambda: session.lua(is_on))
        session.type("/pass\rCvalue = ")
        session.wait_for(
            lambda: "sample.*" in session.lua("probe.reason('textDocument/inlineCompletion')")
        )
        assert session.ghost() == ""
        session.lua("probe.set({ languages_off = { 'python' } })")
        session.wait_for(lambda: "for python" in (session.lua("probe.document().off") or ""))
        session.lua("probe.set({})")
        session.wait_for(lambda: session.lua("probe.document().off") is None)
        session.type("f")
        session.wait_for(session.ghost)
        session.type("\x1b:Diffgemma! off\r")  # goes before what was said of the buffer
        session.wait_for(lambda: session.lua(is_on) is False)
        session.type(" dg")
        session.wait_for(lambda: session.lua(is_on))


def asked_and_typed_on(session: Session) -> None:
    """Nothing comes until it is asked for; what came is typed on."""
    session.type("/pass\rCvalue = ")
    session.wait_for(lambda: session.buffer() == BEGUN)
    session.type("\x1ba")
    session.wait_for(lambda: session.ghost() == f"{SUGGESTED} (1/1)")
    session.type("f")
    session.wait_for(lambda: session.ghost() == SUGGESTED[1:])


def test_only_when_asked(nvim: Program, tmp_path: Path) -> None:
    config = "vim.g.diffgemma = { automatic = false }"
    with editing(nvim, tmp_path, PLANNED, FAKE, config=config) as session:
        session.wait_until_attached()
        asked_and_typed_on(session)
        session.type("x")
        session.wait_for(lambda: session.ghost() == "")
        # Only the one that was asked for, and what was thought of ahead.
        budgets = session.lua("probe.ask('test/report').budgets")
        assert max(budgets) <= 5.0, "none of the 8 s that there are while typing"


def test_control_c_hides_it_as_escape_does(nvim: Program, tmp_path: Path) -> None:
    with editing(nvim, tmp_path, PLANNED, FAKE) as session:
        type_until_suggested(session)
        session.type("\x03")
        session.wait_for(lambda: session.ghost() == "")
        session.type("gg")
        session.wait_for(lambda: session.lua("vim.fn.line('.')") == 1)
        assert session.ghost() == ""
        assert session.buffer() == BEGUN


@pytest.mark.parametrize("keys", ["\x1b[A", "\x1b[D", "\x1b[H"])
def test_where_the_cursor_has_left_it_tab_is_a_tab(
    nvim: Program, tmp_path: Path, keys: str
) -> None:
    with editing(nvim, tmp_path, PLANNED, FAKE) as session:
        type_until_suggested(session)
        assert session.lua(SILENT)
        session.type(keys + "\t|")
        session.wait_for(lambda: "|" in session.buffer())
        assert re.sub(r"[\s|]", "", session.buffer()) == re.sub(r"\s", "", BEGUN)
        session.wait_for(lambda: session.ghost() == "")


def test_where_the_cursor_has_left_it_it_is_hidden(nvim: Program, tmp_path: Path) -> None:
    with editing(nvim, tmp_path, PLANNED, FAKE) as session:
        type_until_suggested(session)
        assert session.lua(SILENT)
        session.type("\x1b[D")
        session.wait_for(lambda: session.ghost() == "")


def test_what_was_accepted_is_repeated_as_what_was_typed(nvim: Program, tmp_path: Path) -> None:
    with editing(nvim, tmp_path, f"{PLANNED}\ndef other():\n    pass\n", FAKE) as session:
        session.wait_until_attached()
        session.type("/pass\rcwvalue = ")
        session.wait_for(lambda: session.ghost() == SUGGESTED)
        session.type(WORD)
        session.wait_for(lambda: session.ghost() == SUGGESTED[len("first") :])
        session.type("\t")
        session.wait_for(lambda: SUGGESTED in session.buffer())
        session.type(" # done\x1b")
        session.wait_for(lambda: session.lua("vim.fn.mode()") == "n")  # else it is a key with Alt
        session.type("n.")
        session.wait_for(lambda: session.buffer().count(f"    value = {SUGGESTED} # done\n") == 2)
        session.type("u")
        session.wait_for(lambda: session.buffer().endswith("def other():\n    pass\n"))


def begun_while(nvim: Program, folder: Path, server: tuple[str, ...], **more: str) -> None:
    """A text is begun as soon as Neovim is there, and no key comes after that: what is suggested
    has to come by itself."""
    config = "vim.lsp.config('diffgemma', { init_options = { automatic_budget_ms = 1000 } })"
    with editing(nvim, folder, PLANNED, server, config=config, env=more) as session:
        session.type("/pass\rCvalue = ")
        session.wait_for(lambda: session.buffer() == BEGUN)
        assert session.ghost() == ""
        session.wait_for(lambda: session.ghost() == SUGGESTED)
        session.type("\t")
        session.wait_for(lambda: session.buffer() == with_all(SUGGESTED))


def test_what_was_begun_while_the_model_was_loaded(nvim: Program, tmp_path: Path) -> None:
    begun_while(nvim, tmp_path, FAKE, FAKE_LOADING_S="12")


def test_what_was_begun_before_the_server_was_there(nvim: Program, tmp_path: Path) -> None:
    begun_while(nvim, tmp_path, ("sh", "-c", 'sleep 6; exec "$@"', "sh", *FAKE))


KEPT = "require('vim.lsp._capability').all.inline_completion.active[1]"
"""What Neovim keeps of the ghost text in the first buffer."""

AGAIN = {
    "read anew": ":e!\r",
    "restarted": ":Diffgemma restart\r",
    "crashed": ":call v:lua.vim.uv.kill(str2nr(system('cat fake.pid')), 9)\r",
}
"""Ways to have the server attached to a buffer once more."""

WITH_PID = ("sh", "-c", 'echo $$ > fake.pid; exec "$@"', "sh", *FAKE)


@pytest.mark.parametrize("how", AGAIN)
def test_what_does_not_fit_is_hidden_when_attached_again(
    nvim: Program, tmp_path: Path, how: str
) -> None:
    quiet = "vim.o.cmdheight = 4"
    with editing(nvim, tmp_path, PLANNED, WITH_PID, config=quiet) as session:
        session.wait_until_attached()
        attached_again(session, how)
        type_until_suggested(session)
        assert session.lua(SILENT)
        session.type("x")
        session.wait_for(lambda: session.ghost() == "")


@pytest.mark.parametrize("how", AGAIN)
def test_only_when_asked_holds_when_attached_again(nvim: Program, tmp_path: Path, how: str) -> None:
    config = "vim.o.cmdheight = 4; vim.g.diffgemma = { automatic = false }"
    with editing(nvim, tmp_path, PLANNED, WITH_PID, config=config) as session:
        session.wait_until_attached()
        attached_again(session, how)
        asked_and_typed_on(session)
        assert session.lua(f"{KEPT}.timer == nil"), "nothing is going to be asked by itself"


def attached_again(session: Session, how: str) -> None:
    """Has the server attached to the buffer once more."""
    session.lua(
        "(function() vim.api.nvim_create_autocmd('LspAttach', "
        "{ callback = function() vim.schedule(function() vim.g.again = 1 end) end }) "
        "return true end)()"
    )
    session.type(AGAIN[how])
    session.wait_for(lambda: session.lua("vim.g.again"))


SEVERAL = """\
# fake: {"text": "first", "others": [["second", 0.5], ["third", 0.4]], "delay": 0.3}
def total(first, second):
    pass
"""


def test_the_next_one_asked_for_in_quick_succession(nvim: Program, tmp_path: Path) -> None:
    with editing(nvim, tmp_path, SEVERAL, FAKE) as session:
        session.wait_until_attached()
        session.type("/pass\rCvalue = ")
        session.wait_for(lambda: session.ghost() == "first")
        session.type(NEXT * 2)
        session.wait_for(lambda: session.ghost() == "third (3/3)")
        assert "no suggestion" not in session.messages()


def test_what_was_dismissed_is_shown_when_asked_for(nvim: Program, tmp_path: Path) -> None:
    with editing(nvim, tmp_path, PLANNED, FAKE) as session:
        type_until_suggested(session)
        for _ in range(3):
            session.type(DISMISS + ASK)  # in one go, and
            session.wait_for(lambda: session.ghost().startswith(SUGGESTED))
            session.type(DISMISS)
            session.wait_for(lambda: session.ghost() == "")
            session.type(ASK)  # one by one
            session.wait_for(lambda: session.ghost().startswith(SUGGESTED))


def test_where_there_is_no_other_it_is_said(nvim: Program, tmp_path: Path) -> None:
    with editing(nvim, tmp_path, PLANNED, FAKE) as session:
        type_until_suggested(session)
        session.type(NEXT)
        session.wait_for(lambda: session.ghost() == f"{SUGGESTED} (no other)")


def test_ghost_text_of_the_real_server(
    nvim: Program, warm_engine: dict[str, str], tmp_path: Path
) -> None:
    text = REAL_FILE.read_text(encoding="utf-8")
    with editing(nvim, tmp_path, text, env=warm_engine) as session:
        session.wait_until_attached()
        place = next(place for place in PLACES if appears(session, place))
        ghost = session.ghost()
        before, _, after = text.partition(place)
        after = after.partition("\n")[2]
        before += place[0]
        assert session.buffer() == f"{before}\n{after}", "ghost text is not text yet"
        print(session.terminal.text())
        # Typed through: a letter of it, then a word, then the rest.
        session.type(ghost[0])
        session.wait_for(lambda: session.buffer() == f"{before}{ghost[0]}\n{after}")
        session.wait_for(lambda: session.ghost() == ghost[1:])
        if ghost[1:]:
            session.type(WORD)
            session.wait_for(lambda: len(session.buffer()) > len(f"{before}{ghost[0]}\n{after}"))
        if session.buffer() != f"{before}{ghost}\n{after}":
            session.type("\t")
        session.wait_for(lambda: session.buffer() == f"{before}{ghost}\n{after}")


def test_candidates_of_the_real_server(
    nvim: Program, warm_engine: dict[str, str], tmp_path: Path
) -> None:
    text = REAL_FILE.read_text(encoding="utf-8")
    with editing(nvim, tmp_path, text, env=warm_engine) as session:
        session.wait_until_attached()
        place = next(place for place in PLACES if has_candidates(session, place))
        shown = session.ghost()
        session.type(NEXT)
        session.wait_for(lambda: session.ghost() != shown)
        session.type("\x1bp")
        session.wait_for(lambda: session.ghost() == shown)
        session.type(DISMISS)
        session.wait_for(lambda: session.ghost() == "")
        before, _, after = text.partition(place)
        assert session.buffer() == f"{before}{place[0]}\n{after.partition(chr(10))[2]}"
        session.type("\x1b:checkhealth diffgemma\r")
        session.wait_for(lambda: "All is well." in session.buffer())
        assert "client 1 serves 1 buffers" in session.buffer()


def appears(session: Session, place: str) -> bool:
    """Begins the text at a place anew; whether a suggestion for it comes. Undone if none does."""
    session.type(f"gg/\\V{place}\rC{place[0]}")
    nothing = "probe.reason('textDocument/inlineCompletion')"
    session.wait_for(lambda: session.ghost().strip() or session.lua(nothing))
    if session.ghost().strip():
        return True
    session.type("\x1bu")
    return False


def has_candidates(session: Session, place: str) -> bool:
    """Begins the text at a place anew; whether there are several suggestions for it."""
    if not appears(session, place):
        return False
    session.type(NEXT)
    session.wait_for(lambda: "/" in session.ghost().rpartition("(")[2])
    if not session.ghost().endswith("/1)"):
        return True
    session.type("\x1bu")
    return False
