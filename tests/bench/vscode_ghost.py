"""How soon ghost text is on screen in a real VS Code, and where there is any.

    python tests/bench/vscode_ghost.py --count 200

At random places of held-out files the rest of the line is gone, and the last character before it
is typed. The clock is the page's: from the key to the frame in which ghost text is drawn. VS Code
and the server have their defaults. Where nothing came, the server is asked once more without a
deadline, to tell what was late from what had nothing to show. `make test-vscode` installs VS Code.

Prints a table; the last line is JSON, times in milliseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/editors/vscode"), str(ROOT / "tests/e2e")]

import install_vscode  # noqa: E402
from code_server import REAL, SIZE, Window, running  # noqa: E402
from editor import Editor  # noqa: E402
from lsp_client import AUTOMATIC, did_change, did_close, did_open, insertion  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from engine.evaluation.holes import Cut, held_out_folders, population, read_sources  # noqa: E402
from engine.evaluation.metrics import percentile, proportion  # noqa: E402
from engine.evaluation.setup import describe_machine, progress_bar, screen  # noqa: E402
from engine.paths import RUNTIME_DIR_VARIABLE  # noqa: E402

LIMIT_MS = 750
"""After this, VS Code gives up and opens its own list of words."""

WATCH_MS = 3000
"""For so long ghost text is waited for."""

ROW = 22
"""Pixels of a file in the explorer."""

WARM_UP = 5  # places before the clock counts
PATIENT = {"automatic_budget_ms": 60_000, "look_ahead": False}

# What the tests set for a busy machine, left to its default.
DEFAULTS = dict.fromkeys(
    (
        "diffgemma.automaticBudgetMs",
        "diffgemma.invokedBudgetMs",
        "diffgemma.actionBudgetMs",
        "editor.quickSuggestions",
        "editor.wordBasedSuggestions",
        "editor.autoClosingBrackets",
    )
)
# One file at a time: what is left behind is saved, and closed.
ONE_EDITOR = {
    "workbench.editor.limit.enabled": True,
    "workbench.editor.limit.value": 1,
    "files.autoSave": "onFocusChange",
}

WATCH = """() => {
    const ghost = '.view-line .ghost-text-decoration, .view-line .ghost-text';
    const look = () => {
        if (window.pressed && !window.shown && document.querySelector(ghost)) {
            window.shown = -1;
            // The next frame has been drawn when the one behind it begins.
            requestAnimationFrame(() => requestAnimationFrame(() => {
                window.shown = performance.now();
            }));
        }
    };
    document.addEventListener('keydown', () => {
        window.pressed = performance.now();
        window.shown = 0;
    }, true);
    new MutationObserver(look).observe(document.body,
        {subtree: true, childList: true, attributes: true, attributeFilter: ['class']});
}"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where is typed: `text` without the character, which goes to a line and column from 0."""

    text: str
    line: int
    column: int
    char: str

    @classmethod
    def of(cls, cut: Cut) -> Place:
        """The place in front of a hole, whose text is gone."""
        before, char = cut.prefix[:-1], cut.prefix[-1]
        last = before.rpartition("\n")[2]
        # VS Code counts in UTF-16.
        column = len(last.encode("utf-16-le")) // 2
        return cls(before + cut.suffix, before.count("\n"), column, char)


@contextmanager
def environment() -> Iterator[dict[str, str]]:
    """An engine apart from the user's own, which ends with the measurement."""
    with tempfile.TemporaryDirectory(prefix="dgbench-") as folder:
        env = {**os.environ, RUNTIME_DIR_VARIABLE: folder, "PYTHONPATH": str(ROOT)}
        try:
            yield env
        finally:
            stop = [sys.executable, "-m", "diffgemma_lsp", "engine", "stop", "--all"]
            subprocess.run(stop, env=env, stdout=subprocess.DEVNULL, check=True)


def measure(env: dict[str, str], places: Sequence[Place]) -> list[float | None]:
    """Milliseconds from the key to the ghost text at each place; None where nothing came."""
    vscode = install_vscode.find()
    if vscode is None:
        raise SystemExit("VS Code is not here: `make test-vscode` installs it")
    subprocess.run(["make", "--silent", "vsix"], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    vsix = ROOT / "editors/vscode/dist/diffgemma-lsp.vsix"
    with tempfile.TemporaryDirectory(prefix="dgbench-") as home:
        folder = Path(home) / "work"
        folder.mkdir()
        for number, place in enumerate(places):
            (folder / f"place{number}.py").write_text(place.text, encoding="utf-8")
        with (
            running(vscode, Path(home), vsix, env) as editor,
            editor.window(folder, None, REAL, {**DEFAULTS, **ONE_EDITOR}) as window,
            progress_bar(screen()) as bar,
        ):
            window.open("place0.py")  # the model is loaded for the first document it serves
            window.wait_for(lambda: "ready" in window.state)
            window.page.evaluate(WATCH)
            task = bar.add_task("places", total=len(places), note="")
            times: list[float | None] = []
            for number, place in enumerate(places):
                times.append(at(window, number, len(places), place))
                bar.advance(task)
            return times


def at(window: Window, number: int, places: int, place: Place) -> float | None:
    """Types at a place, which is one of many."""
    name = f"place{number}.py"
    # All files are in sight only where the window is very high, and that would be slow to draw.
    window.page.set_viewport_size({**SIZE, "height": 400 + ROW * places})
    window.open(name)
    window.page.set_viewport_size(SIZE)
    window.go(place.line + 1, place.column + 1)
    where = f"Ln {place.line + 1}, Col"
    window.page.locator(".statusbar-item", has_text=where).wait_for()
    window.page.wait_for_timeout(500)  # nothing of the opening is still under way
    window.page.keyboard.type(place.char)
    window.page.wait_for_timeout(WATCH_MS)
    pressed, shown = window.page.evaluate("[window.pressed, window.shown]")
    return shown - pressed if shown and shown > 0 else None


async def has_something(env: dict[str, str], places: Sequence[Place]) -> list[bool]:
    """Whether the server has anything to show at each place, if it has all the time it wants."""
    client = Editor()
    await client.start(*REAL, env=env)
    await client.initialize(**PATIENT)
    found: list[bool] = []
    for number, place in enumerate(places):
        uri = f"file:///work/place{number}.py"
        client.send(did_open(uri, place.text))
        client.send(did_change(uri, 2, insertion(place.line, place.column, place.char)))
        column = place.column + len(place.char.encode("utf-16-le")) // 2
        found.append(bool(await client.suggestions(place.line, column, AUTOMATIC, uri)))
        client.send(did_close(uri))
    await client.finish()
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--count", type=int, default=200, metavar="N", help="places (default: 200)")
    add("--seed", type=int, default=0, metavar="N", help="of the places (default: 0)")
    add("--source", type=Path, action="append", metavar="DIR", help="Python files")
    options = parser.parse_args(argv)
    sources = read_sources(options.source or held_out_folders())
    cuts = population(sources, "rest", options.seed)[: options.count + WARM_UP]
    places = [Place.of(cut) for cut in cuts]
    load_before = os.getloadavg()[0]
    with environment() as env:
        times = measure(env, places)[WARM_UP:]
        silent = [place for place, ms in zip(places[WARM_UP:], times, strict=True) if ms is None]
        missed = sum(asyncio.run(has_something(env, silent)))
    shown = [ms for ms in times if ms is not None]
    in_time = proportion([ms <= LIMIT_MS for ms in shown] + [False] * missed)
    something = proportion([True] * (len(shown) + missed) + [False] * (len(silent) - missed))
    result = {
        "machine": describe_machine(),
        "load_before": load_before,
        "places": len(times),
        "something_to_show": something.value,
        "shown": len(shown),
        "missed": missed,
        "in_time": in_time.value,
        "in_time_95": [in_time.low, in_time.high],
        "ms": [round(ms) for ms in shown],
    }
    table = Table(title=f"{len(times)} places, load {load_before:.1f}", show_header=False)
    table.add_row("has something to show", str(something))
    interval = f"95% {in_time.low:.3f} to {in_time.high:.3f}"
    table.add_row(f"of these on screen within {LIMIT_MS} ms", f"{in_time} ({interval})")
    table.add_row("shown at all", f"{len(shown)}, and {missed} too late for that")
    if shown:
        for name, share in (("median", 0.5), ("95th percentile", 0.95)):
            table.add_row(f"{name} of those shown", f"{percentile(shown, share):.0f} ms")
    Console().print(table)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
