"""`diffgemma-lsp doctor`: is everything there, does it work, how fast, and what to do if not."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import stat
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from diffgemma_lsp.commands import UsageError
from diffgemma_lsp.commands.engine import megabytes
from diffgemma_lsp.commands.models import advice, ask_machine, in_words
from diffgemma_lsp.commands.streaming import add_engine_flags, connected, follow, is_model
from diffgemma_lsp.engine_client import EngineClient
from engine.errors import EngineError
from engine.known import NAMES
from engine.models import (
    SHIPPED,
    base_folder,
    default_model,
    local_model,
    models_folder,
    models_with_a_base,
    pulled,
    read_base,
)
from engine.paths import RUNTIME_DIR_VARIABLE, engine_paths, package_version
from engine.types import InfillRequest, fill_in_the_middle

if TYPE_CHECKING:
    from diffgemma_lsp.commands import Subparsers

PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "pygls", "lsprotocol")
NANO_FILES = ("config.json", "tokenizer.json", "model.safetensors")
LEAST_WEIGHTS = 1 << 20
"""A weights file below this many bytes is a stand-in for the real one."""

SAMPLE = fill_in_the_middle("def add(a, b):\n    return ", "\n\n\nprint(add(1, 2))\n", 16)
SLOW_FILL_MS = 2000.0


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    advice: what to do; None when all is well.
    serious: whether what the advice is for counts as a problem; slow is not broken.
    """

    subject: str
    value: str
    advice: str | None = None
    serious: bool = True

    @property
    def is_problem(self) -> bool:
        return self.advice is not None and self.serious


def add_parser(subparsers: Subparsers) -> None:
    """Adds `doctor` to the command line."""
    parser = subparsers.add_parser(
        "doctor",
        help="check the installation, with a timed fill",
        description="Checks what is needed, fills a hole, and says what to do about what is "
        "wrong. Exits with 1 if something is.",
    )
    add_engine_flags(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints the report; 1 if something has to be done."""
    console = Console(highlight=False, soft_wrap=True)
    findings: list[Finding] = []
    model = (*_model(arguments.model), *_bases(), *_choice())
    checks = (*_software(), *_memory(), *model, *_socket(arguments))
    for finding in checks:
        findings.append(finding)
        _print(console, finding)
    for finding in asyncio.run(_engine(arguments)):
        findings.append(finding)
        _print(console, finding)
    problems = sum(finding.is_problem for finding in findings)
    console.print(f"\n{problems} problem{'s'[: problems != 1]}" if problems else "\nAll is well.")
    return 1 if problems else 0


def _print(console: Console, finding: Finding) -> None:
    mark = "[red]✗[/]" if finding.is_problem else "[green]✓[/]"
    console.print(f"{mark} [bold]{finding.subject:<14}[/] {escape(finding.value)}")
    if finding.advice:
        console.print(f"  {'':<14} [yellow]→ {escape(finding.advice)}[/]")


def _software() -> Iterator[Finding]:
    """Versions of the interpreter and of the packages that the work rests on."""
    yield Finding("diffgemma-lsp", package_version())
    yield Finding("python", f"{platform.python_version()} on {platform.platform(terse=True)}")
    for name in PACKAGES:
        try:
            yield Finding(name, metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding(
                name, "missing", f"install it again: {sys.executable} -m pip install -e ."
            )


def _memory() -> Iterator[Finding]:
    """Of the machine; the engine says later what it uses itself."""
    free = _free_memory()
    if free is None:
        return
    scarce = free < 2**30
    advice = "close something: nano needs about 1 GiB while it loads" if scarce else None
    yield Finding("free memory", megabytes(free) or "", advice)


def _free_memory() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return None  # not Linux: there is no portable way to ask
    return None


def _model(chosen: str | None) -> Iterator[Finding]:
    """The files of the model, looked at without loading them."""
    if chosen is not None:
        found = is_model(chosen) and not os.path.isfile(os.path.expanduser(chosen))
        tip = None if found else "pass a folder with config.json and safetensors"
        if chosen in NAMES and pulled(chosen) is None:
            tip = f"it is not here: run diffgemma-lsp pull {chosen}"
        yield Finding("model", chosen, tip)
        return
    if (best := default_model()) != SHIPPED[0]:
        yield Finding("model", f"{best}, on its base in {base_folder(best)}")
        return
    # Found without importing the engine's heavy parts.
    spec = util.find_spec("engine")
    origin = spec.origin if spec else None
    folder = Path(origin or ".").parent / "weights" / "nano"
    missing = [name for name in NANO_FILES if not (folder / name).is_file()]
    if missing:
        advice = "install the package again, or check out the repository with its weights"
        yield Finding("model", f"nano lacks {', '.join(missing)}", advice)
        return
    size = (folder / "model.safetensors").stat().st_size
    stub = size < LEAST_WEIGHTS
    advice = "the weights are a stand-in: check out the repository again" if stub else None
    yield Finding("model", f"nano, {megabytes(size)} in {folder}", advice)


def _bases() -> Iterator[Finding]:
    """What models are built on that do not ship with it."""
    for name in models_with_a_base():
        base, folder = read_base(name), base_folder(name)
        subject = f"{name}'s base"
        if folder:
            size = sum(path.stat().st_size for path in folder.iterdir())
            yield Finding(subject, f"{base.title}, {megabytes(size)} in {folder}")
            continue
        value = f"not in {models_folder() / base.folder}"
        size = f"{base.file_bytes / 1e6:.0f} MB"
        advice = f"run diffgemma-lsp pull {name} (once, {size}); until then nano serves"
        yield Finding(subject, value, advice, serious=False)


def _choice() -> Iterator[Finding]:
    """Which model this machine could run that is better than what it has."""
    try:
        machine = ask_machine()
    except UsageError as error:
        yield Finding("models", "unknown", str(error), serious=False)
        return
    value = f"{machine.name} with {in_words(machine.memory)}: {advice(machine)}"
    yield Finding("models", value)


def _socket(arguments: argparse.Namespace) -> Iterator[Finding]:
    """The directory that keeps others away from the engine."""
    try:
        model = local_model(arguments.model, Path.cwd())
        folder = engine_paths(model, arguments.device).socket.parent
    except EngineError as error:
        yield Finding("socket", "none", str(error))
        return
    try:
        found = folder.stat()
    except FileNotFoundError:
        yield Finding("socket", f"{folder} (made when the engine first starts)")
        return
    except OSError as error:
        yield Finding("socket", f"{folder}: {error.strerror}", f"set {RUNTIME_DIR_VARIABLE}")
        return
    mode = stat.S_IMODE(found.st_mode)
    advice = None
    if found.st_uid != os.geteuid():
        advice = f"it belongs to someone else: set {RUNTIME_DIR_VARIABLE} to a directory of yours"
    elif mode & 0o077:
        advice = f"others can enter it: chmod 700 {folder}"
    yield Finding("socket", f"{folder}, mode {mode:04o}", advice)


async def _engine(arguments: argparse.Namespace) -> list[Finding]:
    """Starts the engine if none is running, and fills a hole twice."""
    try:
        async with connected(arguments) as client:
            before = await client.status()
            state = "not running" if before is None else f"{before['state']}, pid {before['pid']}"
            findings = [Finding("engine", state)]
            try:
                first_ms, _ = await _timed_fill(client)
                warm_ms, text = await _timed_fill(client)
            except EngineError as error:
                return [*findings, Finding("fill", "failed", str(error))]
            status = await client.status() or {}
            return [
                *findings,
                _device(status),
                Finding("engine memory", megabytes(status.get("memory_bytes")) or "unknown"),
                Finding("first fill", f"{first_ms:.0f} ms"),
                _speed(warm_ms, text),
            ]
    except UsageError as error:
        return [Finding("engine", "not asked", str(error))]


async def _timed_fill(client: EngineClient) -> tuple[float, str]:
    started = time.perf_counter()
    infill = await follow(client, InfillRequest(SAMPLE))
    return (time.perf_counter() - started) * 1000, infill.text


def _device(status: dict[str, Any]) -> Finding:
    info: dict[str, Any] = status.get("info") or {}
    if not info:
        return Finding("device", "unknown")
    return Finding("device", f"{info['device']}, {info['dtype']}, model {info['model']}")


def _speed(ms: float, text: str) -> Finding:
    value = f"{ms:.0f} ms for {text!r}"
    if ms <= SLOW_FILL_MS:
        return Finding("warm fill", value)
    advice = "slow: is the machine busy? A smaller model is faster"
    return Finding("warm fill", value, advice, serious=False)
