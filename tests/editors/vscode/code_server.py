"""A real VS Code to test with: code-server, and Chromium to show it."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from install_vscode import VSCode
from playwright.sync_api import Browser, Locator, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[3]
EXTENSION = ROOT / "editors" / "vscode"
PICTURES = ROOT / "editors" / "pictures"
REAL = (sys.executable, "-m", "diffgemma_lsp")
# The real server with an engine whose answers are written in the document.
FAKE = (sys.executable, str(ROOT / "tests" / "lsp" / "fake_server.py"))

PATIENCE_S = 60.0
"""For a machine that is busy with something else."""

PROPERTIES: dict[str, Any] = json.loads((EXTENSION / "package.json").read_text())["contributes"][
    "configuration"
]["properties"]
# Where the server runs elsewhere than the window, as here, these are in a file of their own.
OF_MACHINE = {name for name, known in PROPERTIES.items() if known["scope"] == "machine"}

SIZE = {"width": 1100, "height": 620}

QUIET = {
    "workbench.startupEditor": "none",
    "workbench.secondarySideBar.defaultVisibility": "hidden",
    "workbench.colorTheme": "Default Dark Modern",
    "workbench.reduceMotion": "on",
    "workbench.tips.enabled": False,
    "workbench.layoutControl.enabled": False,
    "window.commandCenter": False,
    "chat.disableAIFeatures": True,
    "security.workspace.trust.enabled": False,
    "telemetry.telemetryLevel": "off",
    "update.mode": "none",
    "extensions.autoCheckUpdates": False,
    "extensions.ignoreRecommendations": True,
    "git.enabled": False,
    "editor.minimap.enabled": False,
    "editor.cursorBlinking": "solid",
    "editor.accessibilitySupport": "off",
    "editor.autoClosingBrackets": "never",
    "editor.autoIndent": "keep",
    "editor.quickSuggestions": {"other": "off", "comments": "off", "strings": "off"},
    "editor.wordBasedSuggestions": "off",
    "files.autoSave": "off",
    # Patience for a machine that is busy with something else.
    "diffgemma.automaticBudgetMs": 20_000,
    "diffgemma.invokedBudgetMs": 60_000,
    "diffgemma.actionBudgetMs": 60_000,
}

TINTED = """() => [...document.querySelectorAll('.editor-instance .view-overlays .cdr')]
    .filter(one => getComputedStyle(one).backgroundColor.startsWith('rgba(217, 119, 6')).length"""

GHOST = """() => {
    const lines = new Map();
    for (const part of document.querySelectorAll(
            '.view-line .ghost-text-decoration, .view-line .ghost-text, .suggest-preview-text')) {
        const below = part.classList.contains('suggest-preview-text');
        for (const one of below ? part.querySelectorAll('.view-line') : [part]) {
            const line = one.closest('.view-line');
            lines.set(line, (lines.get(line) ?? '') + one.textContent);
        }
    }
    return [...lines.values()].join('\\n');
}"""


# Spans in which decorations stand, from the top to the bottom.
BEHIND = """() => [...document.querySelectorAll('.editor-instance .view-line')]
    .sort((a, b) => parseInt(a.style.top) - parseInt(b.style.top))
    .flatMap(line => [...line.querySelectorAll('span')])
    .map(span => getComputedStyle(span, '::after').content)
    .filter(text => text.startsWith('"')).map(text => text.slice(1, -1))"""
STRUCK = """() => [...document.querySelectorAll('.editor-instance .view-line span')]
    .filter(span => getComputedStyle(span).textDecorationLine === 'line-through')
    .map(span => span.textContent)"""


@dataclass(frozen=True)
class Editor:
    """A code-server with the extension, and a browser; windows are opened in it."""

    address: str
    home: Path
    browser: Browser

    def settings_file(self, name: str) -> Path:
        """The "User" settings, or those of the "Machine"; all windows share them."""
        return self.home / "data" / name / "settings.json"

    def log(self) -> str:
        """What the extension has logged in the newest window."""
        logs = (self.home / "data" / "logs").rglob("Diffgemma.log")
        newest = max(logs, key=lambda log: log.stat().st_mtime, default=None)
        return "" if newest is None else newest.read_text()

    def program(self, name: str, command: tuple[str, ...]) -> Path:
        """A program that does what the command does, as a path is what the extension takes."""
        path = self.home / name
        path.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
        path.chmod(0o755)
        return path

    @contextmanager
    def window(
        self,
        folder: Path,
        text: str | None = None,
        server: tuple[str, ...] = FAKE,
        settings: dict[str, Any] | None = None,
    ) -> Iterator[Window]:
        """A window with the folder, and with the text as `sample.py` in it.

        settings: the user's, over those that make the editor quiet; None leaves one out.
        """
        own = {"diffgemma.server.path": str(self.program("server", server)), **(settings or {})}
        chosen = {name: value for name, value in (QUIET | own).items() if value is not None}
        settings_files = {name: self.settings_file(name) for name in ("User", "Machine")}
        for name, file in settings_files.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            part = {
                key: it for key, it in chosen.items() if (key in OF_MACHINE) == (name == "Machine")
            }
            file.write_text(json.dumps(part))
        if text is not None:
            (folder / "sample.py").write_text(text)
        page = self.browser.new_page(viewport=SIZE)
        page.set_default_timeout(PATIENCE_S * 1000)
        try:
            page.goto(f"{self.address}/?folder={folder}")
            window = Window(page, folder, settings_files)
            window.status.wait_for()
            if text is not None:
                window.open("sample.py")
            yield window
        finally:
            page.close()


@dataclass(frozen=True)
class Window:
    """One window of the editor with one folder."""

    page: Page
    folder: Path
    settings_files: dict[str, Path]

    # ---- what is there ----

    @property
    def status(self) -> Locator:
        """The extension's item in the status bar."""
        return self.page.locator(".statusbar-item", has_text="Diffgemma")

    @property
    def state(self) -> str:
        """What the item says to those who can't see it."""
        label = self.status.locator("[aria-label]").first.get_attribute("aria-label") or ""
        return " ".join(label.split())

    def text(self) -> str:
        """The text of `sample.py`, which is saved if it is to be seen."""
        unsaved = self.page.locator(".tab.active.dirty")
        if unsaved.count():
            self.page.keyboard.press("Control+s")
            unsaved.wait_for(state="detached")
        return (self.folder / "sample.py").read_text(encoding="utf-8")

    def ghost(self) -> str:
        """The ghost text that is shown; empty if there is none."""
        return str(self.page.evaluate(GHOST)).replace("\xa0", " ")

    def notifications(self) -> str:
        """The messages that are shown, one a line."""
        shown = self.page.locator(".notification-list-item-message")
        return "\n".join(shown.all_text_contents())

    def lines(self) -> list[str]:
        """The lines of the editor that are in sight."""
        script = """() => [...document.querySelectorAll('.editor-instance .view-line')]
            .map(line => [parseInt(line.style.top), line.textContent])
            .sort((a, b) => a[0] - b[0]).map(([_, text]) => text)"""
        return [line.replace("\xa0", " ").rstrip() for line in self.page.evaluate(script)]

    def tinted(self) -> int:
        """How many parts of a preview have the ground of what the model is not sure of."""
        return int(self.page.evaluate(TINTED))

    def behind(self) -> list[str]:
        """What is drawn behind texts and lines, and is no text."""
        return [text.replace("\xa0", " ") for text in self.page.evaluate(BEHIND)]

    def struck(self) -> list[str]:
        """What is struck out."""
        return list(self.page.evaluate(STRUCK))

    @property
    def bar(self) -> str:
        """The status bar's text."""
        return self.page.locator(".statusbar").inner_text()

    @property
    def cursor(self) -> str:
        """Where the cursor is, as the status bar says it."""
        return self.page.locator("[id='status.editor.selection']").inner_text()

    # ---- what is done ----

    def open(self, name: str) -> None:
        """Opens a file of the folder."""
        item = self.page.locator(".explorer-folders-view .monaco-list-row", has_text=name)
        item.first.dblclick()
        self.page.locator(".tab.active", has_text=name).wait_for()
        self.page.locator(".editor-instance .view-line").first.wait_for()
        self.page.locator(".editor-instance .view-lines").first.click()

    def go(self, line: int, column: int) -> None:
        """Puts the cursor there, counted from 1."""
        self.page.keyboard.press("Control+g")
        self.page.locator(".quick-input-widget input").wait_for()
        self.page.keyboard.type(
            f":{line}:{column}" if not self._prefilled() else f"{line}:{column}"
        )
        self.page.keyboard.press("Enter")
        self.page.locator(".quick-input-widget").wait_for(state="hidden")

    def _prefilled(self) -> bool:
        return self.page.locator(".quick-input-widget input").first.input_value().startswith(":")

    def list_messages(self) -> None:
        """Shows the messages that went by, and all that come."""
        self.page.locator("[id='status.notifications']").click()
        self.page.locator(".notifications-center.visible").wait_for()

    def press(self, *keys: str) -> None:
        """Presses keys, one after the other."""
        for key in keys:
            self.page.keyboard.press(key)

    def type(self, text: str) -> None:
        """Types, as fast as a person."""
        self.page.keyboard.type(text, delay=60)

    def command(self, title: str) -> None:
        """Runs one of the extension's commands by its title in the palette."""
        self.page.keyboard.press("F1")
        box = self.page.locator(".quick-input-widget input")
        box.first.wait_for()
        self.page.keyboard.type(f"Diffgemma: {title}")
        row = self.page.locator(".quick-input-list .monaco-list-row", has_text=title)
        row.first.wait_for()
        self.page.keyboard.press("Enter")

    def lens(self, title: str) -> Locator:
        """What can be clicked above a line of a preview."""
        return self.page.locator(
            ".codelens-decoration a, .codelens-decoration span", has_text=title
        )

    def set(self, **settings: Any) -> None:
        """Changes settings of the machine, as another editor of the file would."""
        file = self.settings_files["Machine"]
        found = json.loads(file.read_text())
        found |= {f"diffgemma.{name}": value for name, value in settings.items()}
        # Another file in its place: half of one must not be read.
        written = file.with_suffix(".new")
        written.write_text(json.dumps(found))
        written.replace(file)

    # ---- what is waited for ----

    def wait_for(self, condition: Callable[[], object], seconds: float = PATIENCE_S) -> None:
        """Returns when the condition is met; else fails, with what is to be seen."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                self.page.screenshot(path=self.folder / "failed.png")
                seen = "\n".join([*self.lines(), self.state, self.notifications()])
                raise AssertionError(f"what was waited for did not come:\n{seen}")
            self.page.wait_for_timeout(50)

    def wait_until_ready(self) -> None:
        """Returns when the server is there and has its engine."""
        self.wait_for(lambda: re.search(r"ready|not loaded", self.state))

    def wait_for_ghost(self, text: str | None = None) -> str:
        """The ghost text, when it is there; it has to be `text` if that is given."""
        self.wait_for(lambda: self.ghost() == text if text is not None else self.ghost().strip())
        return self.ghost()

    def wait_for_text(self, text: str) -> None:
        """Returns when the file has become this."""
        self.wait_for(lambda: self.text() == text)

    def wait_for_message(self, *words: str) -> str:
        """The messages that are shown, when they have all the words in them."""
        self.wait_for(lambda: all(word in self.notifications() for word in words))
        return self.notifications()

    def picture(self, name: str) -> None:
        """A picture of the window for the README, where PICTURES is set."""
        if os.environ.get("PICTURES"):
            self.page.screenshot(path=PICTURES / f"vscode-{name}.png")

    def picture_while_it_settles(self, name: str) -> None:
        """A picture of a preview, where PICTURES is set: the one with the most that is unsure."""
        most = -1
        while os.environ.get("PICTURES") and not self.lens("Again").count():
            shown, tinted = self.page.screenshot(), self.tinted()
            if tinted > most:
                (PICTURES / f"vscode-{name}.png").write_bytes(shown)
                most = tinted


@contextmanager
def running(vscode: VSCode, home: Path, vsix: Path, env: dict[str, str]) -> Iterator[Editor]:
    """code-server with the extension from its package, and a browser. home: an empty folder."""
    environment = {**env, "HOME": str(home), "XDG_CONFIG_HOME": str(home / "config")}
    folders = ["--user-data-dir", str(home / "data"), "--extensions-dir", str(home / "extensions")]
    install = [*vscode.command, *folders, "--install-extension", str(vsix)]
    done = subprocess.run(install, env=environment, capture_output=True, text=True, check=False)
    assert "was successfully installed" in done.stdout, done.stdout + done.stderr
    serve = ["--auth", "none", "--bind-addr", "127.0.0.1:0", "--disable-telemetry"]
    serve += ["--disable-update-check", "--disable-getting-started-override"]
    log = home / "code-server.log"
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [*vscode.command, *folders, *serve],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        address = _address(log)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=str(vscode.chromium),
                env={**os.environ, **vscode.env},
                args=["--no-sandbox", "--disable-gpu"],
            )
            try:
                yield Editor(address, home, browser)
            finally:
                browser.close()
    finally:
        # Its extension hosts are children that outlive it for a while.
        os.killpg(process.pid, 15)
        process.wait(timeout=30)


def _address(log: Path) -> str:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        found = re.search(r"listening on (http://\S+)", log.read_text(errors="replace"))
        if found:
            address = found[1].rstrip("/")
            with urllib.request.urlopen(f"{address}/healthz", timeout=PATIENCE_S):
                return address
        time.sleep(0.1)
    raise AssertionError(f"code-server did not start:\n{log.read_text(errors='replace')}")
