"""Makes the README's pictures from what really happens: a fill of nano's, and Neovim's screen.

    python tests/editors/pictures.py      writes editors/pictures/{fill.svg,neovim.svg}

The fill is an animated SVG, one picture a denoising pass; without animation its last one shows.
"""

from __future__ import annotations

import asyncio
import io
import sys
import tempfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from rich.console import Console, RenderableType
from rich.terminal_theme import MONOKAI

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "editors" / "pictures"
COLUMNS = 88
FRAME_S, LAST_S = 0.3, 3.0

# Rich's own format without the web fonts: a picture fetches nothing.
FRAME_FORMAT = """\
<g class="{unique_id}-frame">
<style>.{unique_id}-matrix {{ font-family: monospace; font-size: {char_height}px }}
.{unique_id}-title {{ font-family: sans-serif; font-size: 18px; font-weight: bold }}
{styles}</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
<desc>{width} {height}</desc>
</g>
"""


def svg(frames: Sequence[RenderableType], title: str) -> str:
    """The frames as one picture, shown one after the other."""
    total = FRAME_S * (len(frames) - 1) + LAST_S
    parts: list[str] = []
    rules: list[str] = []
    size = (0.0, 0.0)
    for index, frame in enumerate(frames):
        console = Console(
            width=COLUMNS,
            record=True,
            file=io.StringIO(),
            force_terminal=True,
            color_system="truecolor",
        )
        console.print(frame)
        name = f"f{index}"
        part = console.export_svg(
            title=title, theme=MONOKAI, code_format=FRAME_FORMAT, unique_id=name
        )
        width, height = part.rpartition("<desc>")[2].partition("</desc>")[0].split()
        size = (max(size[0], float(width)), max(size[1], float(height)))
        parts.append(part)
        if len(frames) > 1:
            rules.append(_visible(name, index * FRAME_S / total, len(frames), index, total))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]:g} {size[1]:g}">\n'
        f"<style>{''.join(rules)}</style>\n{''.join(parts)}</svg>\n"
    )


def _visible(name: str, begin: float, count: int, index: int, total: float) -> str:
    """The rule that shows a frame from `begin` (a share of the whole) until the next one's."""
    end = 1.0 if index == count - 1 else begin + FRAME_S / total
    rest = "visible" if index == count - 1 else "hidden"
    return (
        f".{name}-frame{{visibility:{rest};animation:{name} {total:g}s step-end infinite}}"
        f"@keyframes {name}{{0%{{visibility:{'visible' if index == 0 else 'hidden'}}}"
        f"{begin:.3%}{{visibility:visible}}{end:.3%}{{visibility:hidden}}}}\n"
    )


async def fill_frames() -> list[RenderableType]:
    """The passes of the demo's second to last scene, denoised now."""
    from diffgemma_lsp.commands.demo import SCENES, SEED, parse_scene
    from diffgemma_lsp.commands.view import FillView
    from diffgemma_lsp.engine_client import EngineClient, EngineOptions
    from engine.types import Infill, InfillRequest

    scene = SCENES[-1]
    source = resources.files("diffgemma_lsp") / "demo_files" / f"{scene.file}.txt"
    template = parse_scene(source.read_text(encoding="utf-8"), scene.strength)
    view = FillView(template, scene.file)
    frames = [view.draw(None)]
    client = EngineClient(EngineOptions())
    async for event in client.stream(InfillRequest(template, seed=SEED)):
        final = isinstance(event, Infill)
        frames.append(view.draw_result(event) if final else view.draw(event))
    await client.aclose()
    return frames


def neovim_screen() -> RenderableType:
    """Neovim's screen while ghost text is shown."""
    import install_neovim
    from neovim import editing

    text = (ROOT / "tests/editors/sample.py").read_text(encoding="utf-8")
    with (
        tempfile.TemporaryDirectory() as folder,
        editing(install_neovim.install(), Path(folder), text) as session,
    ):
        session.wait_until_attached()
        session.terminal.type("/HERE\rC")
        session.wait_for(session.ghost)
        session.wait_for(lambda: session.ghost().strip())
        return session.terminal.picture()


def main() -> int:
    """Writes the pictures."""
    PICTURES.mkdir(exist_ok=True)
    (PICTURES / "fill.svg").write_text(svg(asyncio.run(fill_frames()), "diffgemma-lsp demo"))
    (PICTURES / "neovim.svg").write_text(svg([neovim_screen()], "nvim"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
