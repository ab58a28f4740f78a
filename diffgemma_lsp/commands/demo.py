"""`diffgemma-lsp demo`: a hole, a rewrite and several holes, in files that ship with it.

Nothing is rehearsed: each file is denoised once, with a fixed seed, and what comes out is shown,
checked with the compiler, and written, whatever it is. `demo sudoku` is a show of its own, in the
file of that name beside this one.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import tempfile
import warnings
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from diffgemma_lsp.commands import UsageError, sudoku
from diffgemma_lsp.commands.streaming import add_engine_flags, connected, follow
from diffgemma_lsp.commands.view import FillView, Screen
from diffgemma_lsp.engine_client import EngineClient
from engine.models import SHIPPED, default_model
from engine.types import Fixed, Hole, Infill, InfillRequest, Template

if TYPE_CHECKING:
    from diffgemma_lsp.commands import Subparsers

SEED = 0


@dataclass(frozen=True)
class Scene:
    """One file of the show."""

    file: str
    title: str
    strength: float = 1.0


SCENES = (
    Scene("words.py", "A hole: everything around it is known, before and after"),
    Scene("basket.py", "A rewrite: the marked lines are a draft, to be changed by 60 %", 0.6),
    Scene("rectangle.py", "Five holes at once, in one canvas"),
)


def add_parser(subparsers: Subparsers) -> None:
    """Adds `demo` to the command line."""
    parser = subparsers.add_parser(
        "demo",
        help="watch it fill, rewrite, and fill several holes; or solve a Sudoku",
        description="Fills small Python files that ship with it, drawn live, and keeps them; "
        "or has a model that was trained for it solve a Sudoku.",
    )
    shows = ("code", "sudoku")
    parser.add_argument("show", nargs="?", choices=shows, default="code", help="default: code")
    parser.add_argument("--out", metavar="DIR", help="where to put the files (default: a new one)")
    sudoku.add_flags(parser)
    add_engine_flags(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Plays all scenes and says where the filled files are, or plays the Sudoku."""
    if arguments.show == "sudoku":
        return sudoku.run(arguments)
    folder = _out_folder(arguments.out)
    asyncio.run(_play(arguments, folder, Console(highlight=False)))
    return 0


def parse_scene(text: str, strength: float) -> Template:
    """A text with ⟦holes⟧ as a template. A hole with something in it is a draft."""
    parts = re.split(r"⟦(.*?)⟧", text, flags=re.DOTALL)
    return tuple(
        (Hole(part, strength) if part else Hole()) if index % 2 else Fixed(part)
        for index, part in enumerate(parts)
    )


def assemble(template: Template, infill: Infill) -> str:
    """The whole text: the fixed parts as they are, the holes as they were filled."""
    holes = iter(infill.holes)
    return "".join(part.text if isinstance(part, Fixed) else next(holes) for part in template)


async def _play(arguments: argparse.Namespace, folder: Path, console: Console) -> None:
    report: list[str] = []
    if arguments.model is None and default_model() == SHIPPED[0]:
        console.print("nano is tiny and often wrong: watch how it settles, not what it writes.")
        console.print("mini is better, as soon as its base is here: diffgemma-lsp pull")
    async with connected(arguments) as client:
        for scene in SCENES:
            console.print(f"\n[bold]{scene.title}[/]")
            template, infill = await _perform(client, console, scene)
            text = assemble(template, infill)
            _write(folder / scene.file, text)
            milliseconds = infill.timings.get("total", 0.0)
            report.append(f"{scene.file:15}{milliseconds:6.0f} ms   {verdict(text)}")
    console.print("\n[bold]The filled files[/]")
    console.print("\n".join(report), soft_wrap=True, markup=False)
    console.print(f"They are in {folder}", soft_wrap=True, markup=False)
    console.print("Next: diffgemma-lsp demo sudoku")


async def _perform(client: EngineClient, console: Console, scene: Scene) -> tuple[Template, Infill]:
    source = resources.files("diffgemma_lsp") / "demo_files" / f"{scene.file}.txt"
    template = parse_scene(source.read_text(encoding="utf-8"), scene.strength)
    view = FillView(template, scene.file)
    with Screen(console, view) as screen:
        infill = await follow(client, InfillRequest(template, seed=SEED), screen.frame)
        screen.result(infill)
    if not console.is_terminal:
        console.print(view.draw_result(infill))
    return template, infill


def verdict(text: str) -> str:
    """What the compiler says about a filled file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(text, "filled", "exec", dont_inherit=True)
    except SyntaxError as error:
        what = error.msg.partition(" (")[0]  # it may say the line itself, in parentheses
        return f"does not parse: {what} (line {error.lineno})"
    except (ValueError, RecursionError, MemoryError) as error:
        return f"does not parse: {error}"
    return "parses"


def _write(path: Path, text: str) -> None:
    try:
        path.write_bytes(text.encode())
    except OSError as error:
        raise UsageError(f"can't write {path}: {error.strerror or error}") from error


def _out_folder(name: str | None) -> Path:
    if name is None:
        return Path(tempfile.mkdtemp(prefix="diffgemma-demo-"))
    folder = Path(name).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"can't write to {name}: {error.strerror or error}") from error
    return folder
