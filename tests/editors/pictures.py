"""Makes the README's pictures from what really happens: a fill of the model that serves
here (mini, where its base has been pulled), and Neovim's screen.

    python tests/editors/pictures.py [NAME ...]      writes editors/pictures/NAME*.svg, or all

The fill is an animated SVG, one picture a denoising pass; without animation its last one shows.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from xml.sax.saxutils import escape

import install
from neovim import Session, editing
from rich.console import Console, RenderableType
from rich.segment import Segment
from rich.style import Style

from diffgemma_lsp.commands import demo, sudoku
from diffgemma_lsp.commands.view import FillView
from diffgemma_lsp.engine_client import EngineClient
from diffgemma_lsp.engine_process import EngineOptions
from engine.models import MODELS_VARIABLE, models_folder
from engine.paths import RUNTIME_DIR_VARIABLE
from engine.sudoku import MODEL, parse_grid
from engine.sudoku import template as sudoku_template
from engine.types import Fixed, Frame, Infill, InfillRequest, Template

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "editors" / "pictures"
COLUMNS, ROWS = 88, 24
MOST_FRAMES, FRAME_S, LAST_S = 24, 0.3, 3.0
SIZE, WIDTH, HEIGHT, MARGIN = 20, 12.2, 24.4, 16
GROUND, INK = "#0c0c0c", "#d9d9d9"


def svg(frames: Sequence[RenderableType], title: str, columns: int = COLUMNS) -> str:
    """The frames as one picture, shown one after the other. What never changes is drawn once."""
    console = Console(width=columns, file=io.StringIO(), color_system="truecolor")
    drawn = [[_line(line) for line in console.render_lines(frame)] for frame in frames]
    rows = max(map(len, drawn))
    for lines in drawn:
        lines += [""] * (rows - len(lines))
    still = [row for row in range(rows) if len({lines[row] for lines in drawn}) == 1]
    moving = [row for row in range(rows) if row not in still]
    width = columns * WIDTH + 2 * MARGIN
    height = rows * HEIGHT + 2 * MARGIN
    groups = [_group(drawn[0], still, "")]
    if moving:
        groups += [_group(lines, moving, f"f{index}") for index, lines in enumerate(drawn)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}">'
        f"<title>{escape(title)}</title><style>text{{font-family:monospace;font-size:{SIZE}px;"
        f"white-space:pre;fill:{INK}}}{_animation(len(frames)) if moving else ''}</style>\n"
        f'<rect width="{width:g}" height="{height:g}" rx="10" fill="{GROUND}"/>\n'
        f"{''.join(groups)}</svg>\n"
    )


def _group(lines: Sequence[str], rows: Sequence[int], name: str) -> str:
    shown = "".join(
        f'<g transform="translate({MARGIN} {MARGIN + row * HEIGHT:g})">{lines[row]}</g>\n'
        for row in rows
        if lines[row]
    )
    return f'<g class="{name}">{shown}</g>\n' if name else shown


def _line(segments: Sequence[Segment]) -> str:
    """One line's runs of text, each where its cells begin."""
    parts: list[str] = []
    column = 0
    for segment in Segment.simplify(segments):
        style = segment.style or Style()
        ink, ground = (
            colour and colour.get_truecolor().hex for colour in (style.color, style.bgcolor)
        )
        if style.reverse:
            ink, ground = ground or GROUND, ink or INK
        x, length = column * WIDTH, segment.cell_length * WIDTH
        if ground:
            box = f'x="{x:g}" width="{length:g}" height="{HEIGHT}"'
            parts.append(f'<rect {box} fill="{ground}"/>')
        if segment.text.strip():
            look = f' style="fill:{ink}"' if ink else ""
            look += ' font-weight="bold"' if style.bold else ""
            place = f'x="{x:g}" y="{SIZE - 2}" textLength="{length:g}"'
            parts.append(f'<text {place}{look} xml:space="preserve">{escape(segment.text)}</text>')
        column += segment.cell_length
    return "".join(parts)


def _animation(count: int) -> str:
    """Shows one frame at a time; without animation, the last one."""
    total = FRAME_S * (count - 1) + LAST_S
    rules: list[str] = []
    for index in range(count):
        last = index == count - 1
        begin = index * FRAME_S / total
        end = 1.0 if last else begin + FRAME_S / total
        rules.append(
            f".f{index}{{visibility:{'visible' if last else 'hidden'};"
            f"animation:k{index} {total:g}s step-end infinite}}"
            f"@keyframes k{index}{{0%{{visibility:{'hidden' if index else 'visible'}}}"
            f"{begin:.3%}{{visibility:visible}}{end:.3%}{{visibility:hidden}}}}\n"
        )
    return "".join(rules)


def scene(index: int) -> tuple[demo.Scene, Template]:
    """A scene of the demo, and its template."""
    chosen = demo.SCENES[index]
    marked = resources.files("diffgemma_lsp") / "demo_files" / f"{chosen.file}.txt"
    return chosen, demo.parse_scene(marked.read_text(encoding="utf-8"), chosen.strength)


async def fill_frames() -> list[RenderableType]:
    """The passes of the demo's last scene, denoised now."""
    chosen, template = scene(-1)
    view = FillView(template, chosen.file)
    frames = [view.draw(None)]
    client = EngineClient(EngineOptions())
    async for event in client.stream(InfillRequest(template, seed=demo.SEED)):
        final = isinstance(event, Infill)
        frames.append(view.draw_result(event) if final else view.draw(event))
    await client.aclose()
    return thinned(frames)


def thinned(frames: list[RenderableType]) -> list[RenderableType]:
    """Not too many of them, with the first and the last."""
    if len(frames) <= MOST_FRAMES:
        return frames
    step = (len(frames) - 1) / (MOST_FRAMES - 1)
    return [frames[round(index * step)] for index in range(MOST_FRAMES)]


async def sudoku_frames() -> list[RenderableType]:
    """The passes of `demo sudoku`, denoised now."""
    puzzle = parse_grid(sudoku.PUZZLE)
    client = EngineClient(EngineOptions(model=str(MODEL)))
    request = InfillRequest(sudoku_template(puzzle), seed=sudoku.SEED)
    frames = [event async for event in client.stream(request) if isinstance(event, Frame)]
    await client.aclose()
    return sudoku.pictures(puzzle, frames)


@contextmanager
def neovim(text: str, env: dict[str, str]) -> Iterator[Session]:
    """Neovim with the text and the real server, and a statusline that shows it."""
    nvim = install.install("neovim")
    with (
        tempfile.TemporaryDirectory() as folder,
        editing(
            nvim, Path(folder), text, env=env, config="vim.o.hlsearch = false", rows=ROWS
        ) as session,
    ):
        yield session


def screen(session: Session, seen: Callable[[str], bool]) -> RenderableType:
    """The screen as soon as it shows what it should."""
    session.terminal.wait_for(seen)
    time.sleep(0.3)  # what is drawn is drawn in parts
    print(session.terminal.text())
    return session.terminal.picture()


def neovim_screens(env: dict[str, str]) -> Iterator[tuple[str, list[RenderableType]]]:
    """Names and frames: a model that is being loaded, ghost text, holes as they settle."""
    _, (*parts, end) = scene(-1)
    assert isinstance(end, Fixed)
    fixed = [part.text for part in parts if isinstance(part, Fixed)]
    text = "...".join(fixed) + "dx, dy" + end.text
    with neovim(text, env) as session:
        session.type("7Gzt")
        yield "neovim-status", [screen(session, lambda shown: "loading" in shown)]
        session.wait_for(lambda: session.lua("require('diffgemma').statusline()") == "diffgemma")
        session.wait_until_attached()
        session.type(":%Diffgemma holes\r")
        frames: list[RenderableType] = []
        seen = ""
        while "accept" not in session.preview():
            if (shown := session.terminal.text()) != seen:
                seen = shown
                frames.append(session.terminal.picture())
            time.sleep(0.02)
        frames.append(screen(session, lambda _: True))
        yield "neovim-preview", thinned(frames)

    begun = fixed[0].rpartition("        self.y = ")[0]
    with neovim(f"{begun}\n{text[text.index('    def __repr__') :]}", env) as session:
        session.wait_until_attached()
        session.type("/self.x\roself.w")
        session.wait_for(lambda: session.ghost().strip())
        yield "neovim-ghost", [screen(session, lambda _: True)]


def write_fill() -> None:
    """The demo's last scene."""
    (PICTURES / "fill.svg").write_text(svg(asyncio.run(fill_frames()), "diffgemma-lsp demo"))


def write_sudoku() -> None:
    """A grid that settles."""
    picture = svg(asyncio.run(sudoku_frames()), "diffgemma-lsp demo sudoku", columns=46)
    (PICTURES / "sudoku.svg").write_text(picture)


def write_neovim() -> None:
    """Neovim's screens, with an engine of its own, which has to load the model first."""
    with tempfile.TemporaryDirectory() as folder:
        # Neovim has a home of its own, where no model is.
        models = {MODELS_VARIABLE: str(models_folder())}
        env = {**os.environ, RUNTIME_DIR_VARIABLE: folder, **models}
        for name, frames in neovim_screens(env):
            (PICTURES / f"{name}.svg").write_text(svg(frames, "nvim"))
        stop = [sys.executable, "-m", "diffgemma_lsp", "engine", "stop", "--all"]
        subprocess.run(stop, env=env, cwd=ROOT, check=True)


WRITERS = {"fill": write_fill, "sudoku": write_sudoku, "neovim": write_neovim}


def main() -> int:
    """Writes the pictures that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(WRITERS))
    names = parser.parse_args().names or list(WRITERS)
    if unknown := [name for name in names if name not in WRITERS]:
        parser.error(f"there is no picture {unknown[0]}; there are {', '.join(WRITERS)}")
    PICTURES.mkdir(exist_ok=True)
    for name in names:
        WRITERS[name]()
    return 0


if __name__ == "__main__":
    sys.exit(main())
