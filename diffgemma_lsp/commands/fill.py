"""`diffgemma-lsp fill FILE:LINE:COL`: fills holes, rewrites a range, adds what is missing."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.console import Console

from diffgemma_lsp.actions.run import SEEDS
from diffgemma_lsp.commands import UsageError
from diffgemma_lsp.commands.fill_action import ACTIONS, action_on, holes_at
from diffgemma_lsp.commands.fill_hole import Filling, Job, OneHole
from diffgemma_lsp.commands.fill_output import Found, diff, filled, result_to_json
from diffgemma_lsp.commands.source import (
    Position,
    end_of_line,
    offset_of,
    position,
    read_source,
    split_place,
    write_source,
)
from diffgemma_lsp.commands.streaming import add_engine_flags, connected, follow
from diffgemma_lsp.commands.view import FillView, Screen
from diffgemma_lsp.engine_client import EngineClient
from diffgemma_lsp.polish.polish import harmless
from diffgemma_lsp.syntax.languages import language_id_of, title
from engine.errors import complaint
from engine.types import Infill, InfillRequest, SamplingParams

if TYPE_CHECKING:
    from diffgemma_lsp.commands import Subparsers

DEFAULT_STRENGTH = 0.6
"""Of a rewrite: enough to change more than a name, not enough to forget the draft."""

MOST_CANDIDATES = 20

NOTHING = 1
"""The exit code where there is nothing to give."""


def add_parser(subparsers: Subparsers) -> None:
    """Adds `fill` to the command line."""
    parser = subparsers.add_parser(
        "fill",
        help="fill holes of a file, rewrite a part of it, add what is missing",
        description="Fills a hole in a file, or rewrites a range of it, and prints the middle "
        "alone: what an editor would be offered of it. What fills several places is printed as a "
        "diff. Lines and columns count from 1, columns in characters. Exits with 1 if there is "
        "nothing to give.",
    )
    add = parser.add_argument
    place = "the file, and where the hole is: at a column, or at the end of a line; - reads input"
    add("file", metavar="FILE[:LINE[:COL]]", help=place)
    add("--at", type=position, action="append", metavar="LINE:COL", help="a hole; may be repeated")
    add("--to", type=position, metavar="LINE:COL", help="rewrite the range from the place to here")
    what = "do what an editor's action does: there, in the range to --to, or in the whole file"
    add("--action", choices=ACTIONS, help=what)
    add("--write", action="store_true", help="put it into the file instead of printing it")
    most = _whole_number(1, MOST_CANDIDATES)
    add("--candidates", type=most, default=1, metavar="N", help="so many different middles")
    add("--strength", type=_share, metavar="S", help="how much a rewrite may change, from 0 to 1")
    add("--seed", type=_whole_number(0, 2**63 - 1), default=0, metavar="N", help="(default: 0)")
    add("--steps", type=_whole_number(1), metavar="N", help="the most denoising passes")
    add("--max-tokens", type=_whole_number(1), metavar="N", help="the most tokens of the middle")
    add("--raw", action="store_true", help="print what the model wrote, as it wrote it")
    add("--json", action="store_true", help="print the result as one JSON object")
    add("--watch", action="store_true", help="draw the denoising live")
    add_engine_flags(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Fills, and prints or writes what came of it."""
    text, job = prepare(arguments)
    found = asyncio.run(_fill(arguments, job))
    several = not isinstance(job, OneHole)
    if arguments.write and found.fillings:
        write_source(arguments.file, text, filled(text, job, found.fillings[0]))
    if arguments.json:
        shown = result_to_json(text, job, found, arguments.raw, arguments.candidates > 1)
        _write(json.dumps(shown, ensure_ascii=False) + "\n")
    elif arguments.raw:
        _show(found.infill.text)
        return 0
    elif found.reason is not None:
        hint = "" if several else "; --raw prints what the model wrote"
        print(complaint(f"{found.reason}{hint}"), file=sys.stderr)
    elif not arguments.write:
        _print(text, job, found.fillings, arguments)
    return 0 if found.fillings or arguments.raw else NOTHING


def prepare(arguments: argparse.Namespace) -> tuple[str, Job]:
    """The file's text, and what the flags describe. Raises UsageError."""
    arguments.file, line, column = split_place(arguments.file)
    text = read_source(arguments.file)
    places: list[Position] = list(arguments.at or ())
    if line is not None:
        places.insert(0, end_of_line(text, line) if column is None else Position(line, column))
    _check(arguments, places)
    language = language_id_of(arguments.file)
    offsets = [offset_of(text, place) for place in places]
    end = offset_of(text, arguments.to) if arguments.to else None
    if arguments.action is not None:
        start = offsets[0] if offsets else 0
        whole = 0 if offsets else len(text)
        span = (start, whole or start if end is None else end)
        return text, action_on(text, span, arguments.action, arguments.file, language)
    if len(offsets) > 1:
        return text, holes_at(text, sorted({*offsets}), arguments.file, language)
    strength = DEFAULT_STRENGTH if arguments.strength is None else arguments.strength
    last = offsets[0] if end is None else end
    return text, OneHole(text, offsets[0], last, language, strength, arguments.max_tokens)


def _check(arguments: argparse.Namespace, places: list[Position]) -> None:
    """Raises UsageError where flags don't go together."""
    several = len(places) > 1
    if not places and arguments.action is None:
        raise UsageError(f"where? name a place: {arguments.file}:LINE:COL, or --at LINE:COL")
    if several and (arguments.to is not None or arguments.action is not None):
        raise UsageError("--to and --action take one place, not several")
    if arguments.to is not None and not places:
        raise UsageError("--to ends what begins at a place: name that, too")
    if arguments.to is not None and arguments.to < places[0]:
        raise UsageError(f"--to {arguments.to} lies before --at {places[0]}")
    if arguments.strength is not None and (arguments.to is None or arguments.action is not None):
        raise UsageError("--strength is for a rewrite, which needs --to")
    if several or arguments.action is not None:
        for flag, given in (
            ("--raw", arguments.raw),
            ("--candidates", arguments.candidates > 1),
            ("--max-tokens", arguments.max_tokens is not None),
        ):
            if given:
                raise UsageError(f"{flag} is for one hole")
    if arguments.write and (arguments.raw or arguments.candidates > 1):
        raise UsageError("--write takes what is best: no --raw, no --candidates")
    if arguments.write and arguments.file == "-":
        raise UsageError("standard input can't be written: leave --write away")


async def _fill(arguments: argparse.Namespace, job: Job) -> Found:
    """As many offers as are wanted. While there are fewer, other seeds are tried, as long as they
    give something else."""
    params = SamplingParams(max_steps=arguments.steps)
    named = title(arguments.file, language_id_of(arguments.file))
    found: dict[tuple[str | None, ...], Filling] = {}
    first, reason, told = None, None, set[tuple[str, ...]]()
    async with connected(arguments) as client:
        for number in range(1 if arguments.raw else arguments.candidates + SEEDS - 1):
            seed = (arguments.seed + number) % 2**63
            request = InfillRequest(job.template, params, seed=seed, title=named)
            infill = await _one_run(arguments, client, request)
            first = first or infill
            if infill.holes in told:
                break  # many a model draws nothing
            told.add(infill.holes)
            for filling in job.fillings(infill):
                if filling.reason is None:
                    found.setdefault(filling.texts, filling)
                reason = reason or filling.reason
                if len(found) == arguments.candidates:
                    return Found(first, tuple(found.values()), None)
    assert first is not None, "there is one run at least"
    return Found(first, tuple(found.values()), None if found else reason)


async def _one_run(
    arguments: argparse.Namespace, client: EngineClient, request: InfillRequest
) -> Infill:
    if not arguments.watch:
        return await follow(client, request)
    # Not on stdout if that can be helped: there the middle stands alone.
    console = Console(stderr=sys.stderr.isatty() or not sys.stdout.isatty() or arguments.json)
    prose = arguments.action == "docstring"
    with Screen(console, FillView(request.template, arguments.file, prose)) as screen:
        infill = await follow(client, request, screen.frame)
        screen.result(infill)
    return infill


def _print(
    text: str, job: Job, fillings: tuple[Filling, ...], arguments: argparse.Namespace
) -> None:
    if not isinstance(job, OneHole):
        _show(diff(text, filled(text, job, fillings[0]), arguments.file))
    elif arguments.candidates == 1:
        _show(fillings[0].texts[0] or "")
    else:
        for number, filling in enumerate(fillings, 1):
            sure = "" if filling.confidence is None else f": {filling.confidence:.0%} sure"
            _write(f"# {number}{sure}\n{filling.texts[0]}\n")


def _show(text: str) -> None:
    # Bit for bit in a pipe; on a terminal the prompt should not stick to it.
    ends_line = text.endswith("\n") or not sys.stdout.isatty()
    _write(text + ("" if ends_line else "\n"))


def _write(text: str) -> None:
    """To stdout in the file's encoding and with its line ends, whatever the terminal's are."""
    if sys.stdout.isatty():
        text = harmless(text)
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode("utf-8"))
    sys.stdout.buffer.flush()


def _whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1
        if number < least or (most is not None and number > most):
            limits = f"of at least {least}" if most is None else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"expected a whole number {limits}, not {text!r}")
        return number

    return parse


def _share(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0.0 <= number <= 1.0:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, not {text!r}")
    return number
