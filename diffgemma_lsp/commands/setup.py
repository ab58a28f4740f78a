"""`diffgemma-lsp setup`: an editor's configuration, shown and then written, or taken back."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from diffgemma_lsp.commands import UsageError
from diffgemma_lsp.commands.setup_questions import (
    ask_editors,
    ask_model,
    bring,
    is_terminal,
    missing,
    yes,
)
from diffgemma_lsp.setup.change import Change, change
from diffgemma_lsp.setup.editors import BY_NAME, EDITORS, Editor
from diffgemma_lsp.setup.edits import Refused
from diffgemma_lsp.setup.place import Place, Setup, here

if TYPE_CHECKING:
    from diffgemma_lsp.commands import Subparsers

NOT_DONE = 1
"""What it exits with where something is still to be written or put in by hand."""

_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


@dataclass
class Plan:
    """What is to be done, of all editors. pull: the model to be loaded. left: whether a file can't
    be changed safely."""

    pull: str | None = None
    changes: list[Change] = field(default_factory=list[Change])
    programs: list[tuple[str, ...]] = field(default_factory=list[tuple[str, ...]])
    then: list[str] = field(default_factory=list[str])
    left: bool = False

    @property
    def is_empty(self) -> bool:
        return not self.changes and not self.programs and self.pull is None


def add_parser(subparsers: Subparsers) -> None:
    """Adds `setup` to the command line."""
    parser = subparsers.add_parser(
        "setup",
        help="write an editor's configuration, after showing it",
        description="Shows what an editor's configuration needs, asks, and writes it. Files that "
        "hold something else are added to, with a copy beside them (.bak), or left alone with a "
        "word on what to put where. A second run changes nothing. Exits with 1 if something was "
        "not written: a file was left alone, you said no, or there is no terminal to ask at and "
        "no --yes.",
    )
    add = parser.add_argument
    names = ", ".join(BY_NAME)
    add("editors", nargs="*", metavar="EDITOR", help=f"{names}; without one you are asked")
    add("--model", metavar="NAME", help="the model to use, which is pulled if it is not here")
    add("--vsix", type=Path, metavar="FILE", help="the extension for VS Code, made elsewhere")
    add("--remove", action="store_true", help="take back what setup wrote")
    add("--yes", action="store_true", help="ask nothing: mini is pulled if it is not here")
    add("--dry-run", action="store_true", help="show it, write nothing and ask nothing more")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Asks, shows and writes. Raises UsageError."""
    place = _place(arguments)
    editors = _editors(arguments, place)
    console = Console(highlight=False, soft_wrap=True)
    plan = Plan()
    if not arguments.remove and any(editor.has_model for editor in editors):
        place = replace(place, model=_model(arguments))
        plan.pull = missing(place.model)
    for editor in editors:
        _add(plan, editor, editor.setup(place), arguments.remove, console)
    if plan.is_empty:
        _say(plan.then)
        return NOT_DONE if plan.left else 0
    _show(plan, console)
    if arguments.dry_run:
        _say(plan.then)
        return NOT_DONE if plan.left else 0
    if not arguments.yes:
        if not is_terminal():
            print("nothing was written: there is no terminal to ask at, and no --yes")
            return NOT_DONE
        if not yes("Write this?"):
            return NOT_DONE
    _do(plan)
    _say(plan.then)
    return NOT_DONE if plan.left else 0


def _place(arguments: argparse.Namespace) -> Place:
    extension: Path | None = arguments.vsix
    if extension is not None and not extension.is_file():
        raise UsageError(f"there is no file {extension}: `make vsix` in a checkout makes it")
    try:
        return here(extension=extension and extension.absolute())
    except (OSError, RuntimeError) as error:  # without HOME there is no home
        raise UsageError(str(error)) from error


def _editors(arguments: argparse.Namespace, place: Place) -> Sequence[Editor]:
    names: list[str] = arguments.editors
    unknown = [name for name in names if name not in BY_NAME]
    if unknown:
        raise UsageError(f"{unknown[0]} is not one of {', '.join(BY_NAME)}")
    if names:
        return [BY_NAME[name] for name in dict.fromkeys(names)]
    if not is_terminal() or arguments.yes or arguments.remove:
        found = ", ".join(editor.name for editor in EDITORS if editor.is_here(place))
        raise UsageError(f"name an editor, as in diffgemma-lsp setup neovim (here: {found or '-'})")
    return ask_editors(place)


def _model(arguments: argparse.Namespace) -> str | None:
    """The model that was chosen; None where nothing was said."""
    model: str | None = arguments.model
    if model is None and is_terminal() and not arguments.yes and not arguments.dry_run:
        return ask_model()
    if model is not None and os.path.isdir(os.path.expanduser(model)):
        return os.path.abspath(os.path.expanduser(model))
    return model


def _add(plan: Plan, editor: Editor, setup: Setup, remove: bool, console: Console) -> None:
    """Adds what is to be done for an editor, and says what can't be or needn't."""
    needed: list[Change] = []
    left = False
    for path, edit in setup.files.items():
        try:
            one = change(path, edit, remove)
        except Refused as error:
            left = True
            console.print(f"{path} is left alone: {error}.", markup=False)
            if not remove:
                console.print("Put this there yourself:\n", markup=False)
                console.print(edit.snippet, markup=False)
        except OSError as error:
            raise UsageError(f"can't read {path}: {error.strerror}") from error
        else:
            needed += [one] if one.is_needed else []
    programs = setup.uninstall if remove else setup.install
    if setup.files and not needed and not programs and not left:
        state = "nothing of it is here" if remove else "is set up, nothing changes"
        console.print(f"{editor.title}: {state}", markup=False)
    plan.changes += needed
    plan.programs += programs
    plan.left |= left
    if not remove or needed:
        plan.then += setup.afterwards if remove else setup.then


def _show(plan: Plan, console: Console) -> None:
    """The whole of it, as a diff and as commands."""
    if plan.pull is not None:
        console.print(Text(f"$ diffgemma-lsp pull {plan.pull}\n", style="cyan"))
    for one in plan.changes:
        for line in one.diff():
            console.print(Text(line, style=_COLOURS.get(line[:1], "")))
        console.print()
    for words in plan.programs:
        console.print(Text(f"$ {shlex.join(words)}", style="cyan"))


def _do(plan: Plan) -> None:
    """Writes and runs it. Raises UsageError."""
    if plan.pull is not None:
        bring(plan.pull)
    for one in plan.changes:
        try:
            kept = one.write()
        except (OSError, Refused) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise UsageError(f"can't write {one.path}: {why}") from error
        done = "wrote" if one.after is not None else "deleted"
        print(f"{done} {one.path}" + (f" (before: {kept})" if kept else ""))
    for words in plan.programs:
        try:
            code = subprocess.run(words, check=False, stdin=subprocess.DEVNULL).returncode
        except OSError as error:
            raise UsageError(f"can't run {words[0]}: {error.strerror}") from error
        if code:
            raise UsageError(f"{shlex.join(words)} failed with {code}")
    sys.stdout.flush()


def _say(lines: Iterable[str]) -> None:
    for line in dict.fromkeys(lines):
        print(line)
