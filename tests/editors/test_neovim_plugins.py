"""Plugins of others in a real Neovim: llama.vim and minuet ask `serve`, sidekick.nvim the language
server for next edits. Without them the tests are skipped; `plugins.py` says where they lie."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from install import Program
from neovim import FAKE, PROBE, Session, running
from plugins import plugin
from readme import ROOT, blocks
from serving import AFTER, BEFORE, PATIENCE_S, configured, serving
from test_neovim_next_edit import FOLLOWED, LINE, RENAMED, TEXT, rename

pytestmark = pytest.mark.timeout(600)

ACCEPT_MINUET = "\x1ba"
"""The key of the README."""


@pytest.fixture(scope="module")
def llama_vim() -> Path:
    return plugin("ggml-org/llama.vim")


@pytest.fixture(scope="module")
def minuet() -> Path:
    return plugin("milanglacier/minuet-ai.nvim")


@pytest.fixture(scope="module")
def sidekick() -> Path:
    return plugin("folke/sidekick.nvim")


@pytest.fixture(scope="module")
def url(real_engine: dict[str, str]) -> Iterator[str]:
    """Where a server with nano is, which has answered already."""
    with serving(real_engine) as found:
        body = {"prompt": BEFORE, "suffix": AFTER}
        httpx.post(f"{found}/v1/completions", json=body, timeout=PATIENCE_S)
        yield found


@contextmanager
def with_plugin(
    nvim: Program, folder: Path, text: str, plugged: Path, *init: str
) -> Iterator[Session]:
    """Neovim with nothing but the plugin and these lines of Lua around it."""
    path = f"vim.opt.runtimepath:append([[{plugged}]])"
    probe = f"dofile([[{PROBE}]])"
    (folder / "init.lua").write_text("\n".join([path, *init, probe]))
    environment = {**os.environ, **nvim.env, "HOME": str(folder), "PYTHONPATH": str(ROOT)}
    environment |= {
        f"XDG_{kind}_HOME": str(folder) for kind in ("CONFIG", "DATA", "STATE", "CACHE")
    }
    with running(nvim, folder, text, environment, ("--clean", "-u", "init.lua")) as session:
        yield session


def ghost(session: Session, namespace: str) -> str:
    """What is drawn behind `return a`, which is typed for it, again where the time was up."""
    for _ in range(20):
        session.type("\x1b2G0C    return a")
        try:
            session.wait_for(lambda: session.lua(f"probe.drawn('{namespace}')"), 5)
        except AssertionError:
            continue
        return session.lua(f"probe.drawn('{namespace}')")
    raise AssertionError(session.terminal.text())


def accepted(session: Session) -> str:
    """What has come behind `return a`, with nothing else changed."""
    before, after = BEFORE + "a", AFTER
    session.wait_for(lambda: session.buffer() != before + after)
    text = session.buffer()
    assert text.startswith(before)
    assert text.endswith(after)
    return text[len(before) : -len(after)]


def test_llama_vim(nvim: Program, llama_vim: Path, url: str, tmp_path: Path) -> None:
    # All but the place is its default: it says at the end of the line how long it took.
    place = f"vim.g.llama_config = {{ endpoint_fim = '{url}/infill' }}"
    with with_plugin(nvim, tmp_path, BEFORE + AFTER, llama_vim, place) as session:
        shown = ghost(session, "vt_fim")
        session.type("\t")
        text = accepted(session)
        assert text.strip()
        assert shown.startswith(text.partition("\n")[0])


def test_minuet_as_the_readme_says(nvim: Program, minuet: Path, url: str, tmp_path: Path) -> None:
    setup = configured("minuet", url)
    patient = "require('minuet').config.request_timeout = 60"
    with with_plugin(nvim, tmp_path, BEFORE + AFTER, minuet, setup, patient) as session:
        shown = ghost(session, "minuet.virtualtext")
        session.type(ACCEPT_MINUET)
        text = accepted(session)
        assert text.strip()
        # It asks three times the same, and says behind a text how many different ones it has.
        assert shown.startswith(text.partition("\n")[0])


def test_sidekick_as_the_readme_says(nvim: Program, sidekick: Path, tmp_path: Path) -> None:
    ours = f"vim.opt.runtimepath:append([[{ROOT / 'editors' / 'neovim'}]])"
    cmd = ", ".join(f"[[{part}]]" for part in FAKE)
    server = f"vim.lsp.config('diffgemma', {{ cmd = {{ {cmd} }} }})"
    (block,) = blocks("neovim", "lua sidekick")
    key = """
        require("sidekick").setup({})
        vim.keymap.set("n", "<Tab>", function()
          if not require("sidekick").nes_jump_or_apply() then return "<Tab>" end
        end, { expr = true })
    """
    with with_plugin(nvim, tmp_path, TEXT, sidekick, ours, server, block, key) as session:
        drawn = "probe.drawn('sidekick.ui')"
        rename(session)
        session.wait_for("return widthside * height")  # the old name crossed out, and the new one
        assert session.lua(drawn) == "side"
        assert session.buffer() == RENAMED, "a mark is no text"
        session.type("\t")
        session.wait_for(lambda: session.lua(LINE) == 3)
        assert session.buffer() == RENAMED
        session.type("\t")
        session.wait_for(lambda: session.buffer() == FOLLOWED)
        session.wait_for(lambda: not session.lua(drawn))
        session.type("u")
        session.wait_for(lambda: session.buffer() == RENAMED)
        asked = "probe.reason('textDocument/copilotInlineEdit')"
        session.wait_for(lambda: session.lua(asked) == "nothing has to follow the last edits")
        assert session.lua(drawn) == "", "what was undone is not offered again"
        assert session.lua("probe.drawn('diffgemma.next_edit')") == ""
        assert session.lua("#vim.lsp.get_clients()") == 1
