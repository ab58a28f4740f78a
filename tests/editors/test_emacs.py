"""A real Emacs with the configurations of its page: a completion, a rewrite, holes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from install import Program
from neovim import FAKE, SERVER
from readme import HOLES, ROOT, TEXT, a_place, blocks
from terminal import Terminal

from diffgemma_lsp.setup.editors import BY_NAME

EGLOT, SETTINGS, LSP_MODE = 0, 1, 2
"""Which piece of code on the page is for what."""

# Without a package manager nobody loads what lsp-mode starts besides; and nothing is compiled.
QUIET = """
(setq native-comp-enable-subr-trampolines nil native-comp-jit-compilation nil)
(setq lsp-enabled-clients '(diffgemma)) ; and none that happens to be on the PATH
(setq lsp-auto-guess-root t lsp-lens-enable nil lsp-enable-file-watchers nil)
(setq lsp-headerline-breadcrumb-enable nil lsp-modeline-code-actions-enable nil)
(setq lsp-modeline-diagnostics-enable nil lsp-modeline-workspace-status-enable nil)
(setq make-backup-files nil create-lockfiles nil)
"""


@contextmanager
def editing(
    emacs: Program,
    folder: Path,
    text: str,
    parts: tuple[int, ...],
    server: tuple[str, ...] = SERVER,
    env: dict[str, str] | None = None,
) -> Iterator[Terminal]:
    """Emacs with the text as `sample.py`. parts: which pieces of code of the page hold."""
    page = blocks("emacs", "elisp")
    command = " ".join(json.dumps(part) for part in server)
    init = "\n".join(page[part] for part in parts).replace('"diffgemma-lsp"', command)
    # Patience for a machine that is busy with something else.
    init = init.replace("(:globs_off", "(:automatic_budget_ms 8000 :globs_off")
    with running(emacs, folder, text, init, env) as terminal:
        yield terminal


@contextmanager
def running(
    emacs: Program, folder: Path, text: str, init: str, env: dict[str, str] | None = None
) -> Iterator[Terminal]:
    """Emacs with the text as `sample.py`. init: its init.el."""
    (folder / "init.el").write_text(QUIET + init)
    (folder / "sample.py").write_text(text)
    environment = {**os.environ, **emacs.env, "HOME": str(folder), "PYTHONPATH": str(ROOT)}
    environment |= env or {}
    started = [*emacs.command, "-nw", "-Q", "-l", "init.el", "sample.py"]
    with Terminal(started, folder, environment) as terminal:
        terminal.wait_for(text.partition("\n")[0])
        yield terminal


def saved(terminal: Terminal, folder: Path, expected: str) -> None:
    """Returns when the document is as expected, and on the disk."""
    terminal.save_until("\x18\x13", folder / "sample.py", expected)


def line(number: int) -> str:
    """Keys that mark a line, without its end."""
    return f"\x1bg{'g'}{number}\r\x1bm\x00\x05"


def undo(terminal: Terminal) -> None:
    """Takes the last change back, wherever the region is."""
    terminal.type("\x1b:(deactivate-mark)\r\x1f")


def test_eglot(emacs: Program, tmp_path: Path) -> None:
    with editing(emacs, tmp_path, TEXT, (EGLOT, SETTINGS), FAKE) as terminal:
        terminal.wait_for("[eglot:")
        terminal.type(line(3) + "\x1bxeglot-code-actions\r")
        terminal.wait_for("Pick an action")
        terminal.type("Rewrite\t\r")
        saved(terminal, tmp_path, TEXT.replace("base = width + height", "width * height"))
        undo(terminal)
        saved(terminal, tmp_path, TEXT)
        terminal.type(line(4) + "\x1bxeglot-code-actions\r")
        terminal.wait_for("Pick an action")
        terminal.type("Fill all\t\r")
        filled = TEXT.replace("...", "width * height")
        saved(terminal, tmp_path, filled)
        terminal.type("\x1bgg5\r\x05w")
        terminal.press_until("\x1b\t", "wwidth * height", back="")
        saved(terminal, tmp_path, filled.replace("return ", "return wwidth * height"))


def test_eglot_with_nano(emacs: Program, warm_engine: dict[str, str], tmp_path: Path) -> None:
    with editing(emacs, tmp_path, HOLES, (EGLOT,), env=warm_engine) as terminal:
        terminal.wait_for("[eglot:")
        terminal.type("\x18h\x1bxeglot-code-actions\r")
        terminal.wait_for("Pick an action")
        terminal.type("Fill all\t\r")
        terminal.wait_for(lambda shown: "..." not in shown)
        undo(terminal)
        terminal.wait_for(lambda shown: shown.count("...") == 2)


def test_lsp_mode(emacs: Program, tmp_path: Path) -> None:
    with editing(emacs, tmp_path, TEXT, (LSP_MODE,), FAKE) as terminal:
        terminal.wait_for("initialized successfully")
        terminal.type("\x1bgg5\r\x05w")
        terminal.wait_for("return wwidth * height")  # ghost text
        terminal.type("\t")
        completed = TEXT.replace("return ", "return wwidth * height")
        saved(terminal, tmp_path, completed)
        terminal.type(line(3) + "\x1bxlsp-execute-code-action\r")
        terminal.wait_for("Select code action")
        terminal.type("Rewrite\t\r")
        saved(terminal, tmp_path, completed.replace("base = width + height", "width * height"))


def test_as_setup_leaves_it_with_lsp_mode(emacs: Program, tmp_path: Path) -> None:
    (edit,) = BY_NAME["emacs"].setup(a_place(tmp_path, FAKE)).files.values()
    with running(emacs, tmp_path, TEXT, edit.put(None)) as terminal:
        terminal.wait_for("initialized successfully")
        terminal.type("\x1bgg5\r\x05w")
        terminal.wait_for("return wwidth * height")  # ghost text
        terminal.type("\t")
        saved(terminal, tmp_path, TEXT.replace("return ", "return wwidth * height"))


def test_as_setup_leaves_it_without_lsp_mode(emacs: Program, tmp_path: Path) -> None:
    (edit,) = BY_NAME["emacs"].setup(a_place(tmp_path, FAKE)).files.values()
    gone = '(setq load-path (seq-remove (lambda (it) (string-search "lsp-mode" it)) load-path))'
    with running(emacs, tmp_path, TEXT, f"{gone}\n{edit.put(None)}") as terminal:
        terminal.wait_for("[eglot:")
        terminal.type(line(3) + "\x1bxeglot-code-actions\r")
        terminal.wait_for("Pick an action")
        terminal.type("Rewrite\t\r")
        saved(terminal, tmp_path, TEXT.replace("base = width + height", "width * height"))
