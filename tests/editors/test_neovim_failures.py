"""What a user of Neovim sees when something is wrong: a message with the way out, never silence."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from install import Program
from neovim import FAKE, SERVER, Session
from neovim import editing as editing_with
from test_neovim_suggestions import PLANNED, SUGGESTED, type_until_suggested

# Neovim asks to press a key after more lines than these.
editing = partial(editing_with, config="vim.o.cmdheight = 6")
STATUSLINE = "require('diffgemma').statusline()"


def health(session: Session) -> str:
    """What :checkhealth says."""
    session.type("\x1b:checkhealth diffgemma\r")
    session.wait_for(lambda: "diffgemma: the server" in session.buffer())
    return session.buffer()


def wait_for_message(session: Session, *parts: str) -> None:
    """Returns when all that was said holds all of the parts."""
    session.wait_for(lambda: all(part in session.messages() for part in parts))


def test_the_program_is_not_there(nvim: Program, tmp_path: Path) -> None:
    with editing(nvim, tmp_path, PLANNED, ("no-such-server",)) as session:
        wait_for_message(session, "no-such-server is not executable", ":checkhealth diffgemma")
        assert session.lua(STATUSLINE) == "diffgemma: no server"
        session.type("\r:Diffgemma status\r")
        wait_for_message(session, "no server for this buffer", ":checkhealth diffgemma says why")
        session.type("\rGO\tx")
        session.wait_for(lambda: "    x\n" in session.buffer())  # Tab is a tab
        told = health(session)
        assert "ERROR no-such-server is not executable" in told
        assert "vim.lsp.config(" in told


def test_a_filetype_that_is_not_served(nvim: Program, tmp_path: Path) -> None:
    with editing(nvim, tmp_path, PLANNED, FAKE, config="vim.o.cmdheight = 6") as session:
        session.wait_until_attached()
        session.type(":edit other.rb\r:Diffgemma status\r")
        wait_for_message(session, "no server for this buffer", ":checkhealth diffgemma says why")
        told = health(session)
        assert "open files of ruby are not served, only: python, javascript" in told
        assert "vim.lsp.config(" in told


def test_the_command_is_no_list(nvim: Program, tmp_path: Path) -> None:
    config = "vim.o.cmdheight = 6; vim.lsp.config('diffgemma', { cmd = '/bin/server' })"
    with editing(nvim, tmp_path, PLANNED, config=config) as session:
        wait_for_message(session, 'cmd has to be a list of words, not "/bin/server"')


@pytest.mark.parametrize("enable", ["", "vim.lsp.enable('other')"])
def test_there_is_no_configuration_of_its_name(nvim: Program, tmp_path: Path, enable: str) -> None:
    config = f"vim.o.cmdheight = 6; vim.g.diffgemma = {{ name = 'other' }}; {enable}"
    with editing(nvim, tmp_path, PLANNED, FAKE, config=config) as session:
        assert "ERROR cmd has to be a list of words, not nil" in health(session)


def test_a_server_that_is_enabled_late_is_not_there(nvim: Program, tmp_path: Path) -> None:
    config = "vim.o.cmdheight = 6; vim.lsp.enable('diffgemma', false)"
    with editing(nvim, tmp_path, PLANNED, ("no-such-server",), config=config) as session:
        session.type(":lua vim.lsp.enable('diffgemma')\ri")
        wait_for_message(session, "no-such-server is not executable", ":checkhealth diffgemma")


@pytest.mark.parametrize("code", [0, 3])
def test_the_server_ends_at_once(nvim: Program, tmp_path: Path, code: int) -> None:
    runs = tmp_path / "runs"
    server = ("sh", "-c", f"echo >> '{runs}'; exit {code}", "sh")
    said = f"the server ended before it served (code {code}, signal 0)"
    with editing(nvim, tmp_path, PLANNED, server) as session:
        wait_for_message(session, f"{said}; :checkhealth diffgemma says what to do")
        told = health(session)
        assert "it is not running" in told
        assert ":Diffgemma restart" in told
        assert "is not the doctor" in told
        assert "set its path: vim.lsp.config(" in told
        before = runs.stat().st_size
        session.type(":tabedit other.py\r")
        session.wait_for(lambda: runs.stat().st_size > before)
        assert session.messages().count(said) == 1, "it is said once"
        session.type(":Diffgemma restart\r")
        session.wait_for(lambda: session.messages().count(said) == 2)


def test_the_server_never_answers(nvim: Program, tmp_path: Path) -> None:
    with editing(nvim, tmp_path, PLANNED, ("sh", "-c", "cat > /dev/null")) as session:
        wait_for_message(session, "the server has not answered for 15 s; :checkhealth diffgemma")
        assert session.lua(STATUSLINE) == "diffgemma: starting"
        session.type("\r:Diffgemma status\r")
        wait_for_message(session, "the server is being started")
        assert "it was started and has not answered yet" in health(session)


def test_the_server_is_killed(nvim: Program, tmp_path: Path) -> None:
    children = "vim.api.nvim_get_proc_children(vim.fn.getpid())"
    with editing(nvim, tmp_path, PLANNED, FAKE) as session:
        session.wait_until_attached()
        (server,) = session.lua(children)
        os.kill(server, signal.SIGKILL)
        wait_for_message(session, "the server ended unexpectedly and is started again")
        session.wait_for(lambda: session.lua(children) not in ([], [server]))
        type_until_suggested(session)
        session.type("\t")
        session.wait_for(lambda: SUGGESTED.splitlines()[-1] in session.buffer().splitlines()[-1])
        (second,) = session.lua(children)
        session.type("\x1b:Diffgemma restart\r")
        session.wait_for(lambda: second not in session.lua(children))
        session.wait_until_attached()


def test_settings_that_make_no_sense(nvim: Program, tmp_path: Path) -> None:
    config = """
        vim.o.cmdheight = 6
        vim.g.diffgemma = { automatic = 'never', colour = 'red' }
        vim.lsp.config('diffgemma', { init_options = { candidates = 'many' } })
    """
    with editing(nvim, tmp_path, PLANNED, FAKE, config=config) as session:
        wait_for_message(session, "candidates", "expected a whole number", '"many"')
        wait_for_message(session, "colour: there is no such setting")
        wait_for_message(session, 'automatic: expected a boolean, got "never"')
        type_until_suggested(session)  # what is wrong counts as not said


def test_there_is_too_little_memory(nvim: Program, tmp_path: Path) -> None:
    plan = json.dumps({"error": "out_of_memory"})
    text = f"# fake: {plan}\n" + PLANNED.split("\n", 1)[1]
    with editing(nvim, tmp_path, text, FAKE) as session:
        session.wait_until_attached()
        session.type("3GV:Diffgemma rewrite\r")
        wait_for_message(session, "the fake engine was told to fail")
        session.wait_for(lambda: session.preview() == "")
        session.wait_for(lambda: session.lua(STATUSLINE) == "diffgemma: error")


def test_the_model_is_not_there(nvim: Program, real_engine: dict[str, str], tmp_path: Path) -> None:
    config = """
        vim.o.cmdheight = 6
        vim.lsp.config('diffgemma', { init_options = { model = '/no/such/model' } })
    """
    with editing(nvim, tmp_path, PLANNED, env=real_engine, config=config) as session:
        wait_for_message(session, "diffgemma: ", "/no/such/model")  # nobody asked for anything
        session.wait_for(lambda: session.lua(STATUSLINE) == "diffgemma: error")
        said = session.messages().count("/no/such/model")
        session.type("Gotyped")
        nothing = "probe.reason('textDocument/inlineCompletion')"
        session.wait_for(lambda: "/no/such/model" in session.lua(nothing))
        assert session.messages().count("/no/such/model") == said, "it is said once"
        session.type("\x1b3GV:Diffgemma rewrite\r")
        session.wait_for(lambda: session.messages().count("/no/such/model") > said)
        assert "no model at /no/such/model" in health(session)


def test_there_is_too_little_memory_for_the_engine(nvim: Program, tmp_path: Path) -> None:
    # An engine of its own: the one of the other tests is there already.
    env = {"DIFFGEMMA_LSP_RUNTIME_DIR": str(tmp_path / "run")}
    server = ("sh", "-c", 'ulimit -v 460000; exec "$@"', "sh", *SERVER)
    with editing(nvim, tmp_path, PLANNED, server, env=env) as session:
        wait_for_message(session, "diffgemma: ", "memory")
        session.wait_for(lambda: session.lua(STATUSLINE) == "diffgemma: error")


def test_the_engine_is_killed(nvim: Program, warm_engine: dict[str, str], tmp_path: Path) -> None:
    with editing(nvim, tmp_path, PLANNED, env=warm_engine) as session:
        session.wait_until_attached()
        before = engine_pid(warm_engine)
        os.kill(before, signal.SIGKILL)
        # What finds it gone says so, and what comes then has a new one.
        said = session.messages()
        while not rewrites(session):
            assert session.messages() != said, "it was silent about it"
            said = session.messages()
        assert engine_pid(warm_engine) != before


def rewrites(session: Session) -> bool:
    """Whether a rewrite comes to something."""
    session.type("2GV:Diffgemma rewrite\r")
    session.wait_for(lambda: "<Esc>" in session.preview())
    session.wait_for(lambda: "r again" in session.preview() or not session.preview())
    done = "r again" in session.preview()
    session.type("\x1b")
    session.wait_for(lambda: not session.preview())
    return done


def engine_pid(env: dict[str, str]) -> int:
    """The process that serves nano; one whose model is missing may still be there."""
    command = [sys.executable, "-m", "diffgemma_lsp", "engine", "status", "--json"]
    done = subprocess.run(command, env=env, capture_output=True, check=True)
    (pid,) = (one["pid"] for one in json.loads(done.stdout) if one["model"] is None)
    return pid
