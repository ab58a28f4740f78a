"""`diffgemma-lsp models`: what is known by name, what is here, what fits this machine."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from diffgemma_lsp.commands import UsageError
from diffgemma_lsp.commands.child import ask_program
from engine.known import KNOWN, Known, recommended
from engine.models import (
    BEST,
    SHIPPED,
    base_folder,
    default_model,
    models_folder,
    pulled,
    read_base,
    source_of,
)

if TYPE_CHECKING:
    from diffgemma_lsp.commands import Subparsers


_NANO_BYTES = 15_000_000


@dataclass(frozen=True)
class Machine:
    """What the engine finds here (engine.weights.machine). memory: bytes."""

    device: str
    name: str
    memory: int


@dataclass(frozen=True)
class Row:
    """A line of the list.

    size: bytes of its files. needs: what it runs on. here: where it lies; None if it has to be
    pulled. fits: whether this machine can run it. needs and fits are None of a model of which
    nothing is known.
    """

    name: str
    size: int
    needs: str | None
    here: str | None
    fits: bool | None
    good_at: str
    licence: str


def add_parser(subparsers: Subparsers) -> None:
    """Adds `models` to the command line."""
    parser = subparsers.add_parser(
        "models",
        help="which models there are, which are here and which fit",
        description="Lists the models that have a name here, and those that were pulled: whether "
        "they are here, whether this machine can run them, and what they are good at. What is said "
        "of those of the hub was published by their authors, not measured here.",
    )
    parser.add_argument("--json", action="store_true", help="print the list as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints the list."""
    machine = ask_machine()
    rows = [*_shipped(), *(_row(one, machine) for one in KNOWN), *_others()]
    if arguments.json:
        found = {"machine": asdict(machine), "models": [asdict(row) for row in rows]}
        print(json.dumps(found, indent=2))
        return 0
    console = Console(highlight=False, soft_wrap=True)
    for row in rows:
        state = "here" if row.here else {True: "fits", False: "too large", None: "?"}[row.fits]
        facts = f"{in_words(row.size):>8}  {row.needs or '':<38} {state:<10} {row.licence}"
        console.print(f"[bold]{escape(row.name):<18}[/] {escape(facts)}")
        console.print(f"{'':<18} {escape(row.good_at)}")
    console.print(
        f"\n{machine.name} has {in_words(machine.memory)}: {advice(machine)}.", markup=False
    )
    console.print("diffgemma-lsp pull NAME brings one, and --model NAME runs it.", markup=False)
    return 0


def ask_machine() -> Machine:
    """What models run on here; only PyTorch knows. Raises UsageError."""
    try:
        return Machine(**json.loads(ask_program("engine.weights.machine")))
    except (ValueError, TypeError) as error:
        raise UsageError("PyTorch can't say what this machine has: diffgemma-lsp doctor") from error


def advice(machine: Machine) -> str:
    """Which model to take."""
    used = default_model()
    best = recommended(machine.device, machine.memory)
    if best is not None:
        how = f"--model {best.name}" if pulled(best.name) else f"diffgemma-lsp pull {best.name}"
        return f"for Python take {best.name}, by its authors' figures ({how}), else {used}"
    if used != BEST:
        return f"take {BEST} (diffgemma-lsp pull {BEST}); {used} is used until then"
    return f"take {used}, which is used where nothing is said"


def in_words(size: int) -> str:
    """A number of bytes as a user reads it."""
    return f"{size / 1e9:.1f} GB" if size >= 10**9 else f"{size / 1e6:.0f} MB"


def _shipped() -> Iterator[Row]:
    base, folder = read_base(BEST), base_folder(BEST)
    here, size = str(folder) if folder else None, base.folder_bytes
    good_at = "twelve languages; single line 0.76, measured"
    yield Row(BEST, size, "in 1 GB", here, True, good_at, base.licence)
    good_at = "Python, a little: single line 0.12, measured"
    yield Row(SHIPPED[0], _NANO_BYTES, "in 1 GB", "in the package", True, good_at, "Apache-2.0")


def _row(one: Known, machine: Machine) -> Row:
    folder = pulled(one.name)
    here = str(folder) if folder else None
    needs = f"in {in_words(one.needs)}{'' if one.on_cpu else ' of a GPU'}"
    if one.least < one.needs:
        needs += f", in 4 bits {in_words(one.least)}"
    fits = one.fits(machine.device, machine.memory)
    return Row(one.name, one.weights, needs, here, fits, one.good_at, one.licence)


def _others() -> Iterator[Row]:
    """What was pulled by its name on the hub."""
    for path in sorted(models_folder().glob("*--*")):
        source: dict[str, Any] = source_of(path) or {}
        if "name" in source:
            size = sum(source["files"].values())
            yield Row(source["name"], size, None, str(path), None, "?", "see the hub")
