"""`diffgemma-lsp fill FILE --at LINE:COL`: fills one hole, or rewrites one range."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

from rich.console import Console

from diffgemma_lsp.actions.blank import Blank
from diffgemma_lsp.actions.fit import fitted
from diffgemma_lsp.commands import UsageError
from diffgemma_lsp.commands.source import (
    newline_of,
    offset_of,
    position,
    read_source,
)
from diffgemma_lsp.commands.streaming import add_engine_flags, connected, follow
from diffgemma_lsp.commands.view import FillView, Screen
from diffgemma_lsp.context.window import as_learned
from diffgemma_lsp.polish.polish import Around, Offer, Polished, offers
from diffgemma_lsp.session.engine import Answer
from diffgemma_lsp.syntax.languages import language_id_of
from diffgemma_lsp.text.documents import Document
from diffgemma_lsp.text.snapshot import DocumentSnapshot
from diffgemma_lsp.text.text import Text, with_line_ends
from engine.errors import complaint
from engine.types import Fixed, Hole, Infill, InfillRequest, SamplingParams

if TYPE_CHECKING:
    from diffgemma_lsp.commands import Subparsers

DEFAULT_STRENGTH = 0.6
"""Of a rewrite: enough to change more than a name, not enough to forget the draft."""


def add_parser(subparsers: Subparsers) -> None:
    """Adds `fill` to the command line."""
    parser = subparsers.add_parser(
        "fill",
        help="fill the middle of a file",
        description="Fills a hole in a file, or rewrites a range of it, and prints the middle "
        "alone: what an editor would be offered of it. Lines and columns count from 1, columns in "
        "characters.",
    )
    add = parser.add_argument
    add("file", metavar="FILE", help="the file; - reads standard input")
    add("--at", type=position, required=True, metavar="LINE:COL", help="where the hole is")
    add("--to", type=position, metavar="LINE:COL", help="rewrite the range from --at to here")
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
    """Fills, and prints the middle or the JSON object."""
    request = build_request(arguments)
    language = language_id_of(arguments.file)
    learned = replace(request, template=as_learned(request.template, language))
    infill = asyncio.run(_fill(arguments, learned))
    if arguments.raw:
        text, reason, confidence = infill.text, None, infill.confidence
    else:
        (text, reason), confidence = offered(request, infill, language)
    if arguments.json:
        shown = result_to_json(infill, text, reason, confidence)
        _write(json.dumps(shown, ensure_ascii=False) + "\n")
    elif reason is not None:
        print(complaint(f"{reason}; --raw prints what the model wrote"), file=sys.stderr)
    else:
        # Bit for bit in a pipe; on a terminal the prompt should not stick to it.
        ends_line = text.endswith("\n") or not sys.stdout.isatty()
        _write(text + ("" if ends_line else "\n"))
    return 0


def build_request(arguments: argparse.Namespace) -> InfillRequest:
    """The request that the flags describe. Raises UsageError."""
    if arguments.strength is not None and arguments.to is None:
        raise UsageError("--strength is for a rewrite, which needs --to")
    if arguments.to is not None and arguments.to < arguments.at:
        raise UsageError(f"--to {arguments.to} lies before --at {arguments.at}")
    text = read_source(arguments.file)
    start = offset_of(text, arguments.at)
    end = offset_of(text, arguments.to) if arguments.to else start
    if start == end:
        hole = Hole(max_tokens=arguments.max_tokens)
    else:
        strength = DEFAULT_STRENGTH if arguments.strength is None else arguments.strength
        hole = Hole(text[start:end], strength, arguments.max_tokens)
    return InfillRequest(
        (Fixed(text[:start]), hole, Fixed(text[end:])),
        SamplingParams(max_steps=arguments.steps),
        seed=arguments.seed,
    )


def offered(request: InfillRequest, infill: Infill, language: str) -> Offer:
    """What an editor would be offered of the answer to `build_request`'s request, and how sure of
    it the model is."""
    before, draft, after = (
        part.text if isinstance(part, Fixed) else part.draft or "" for part in request.template
    )
    if draft:
        return Offer(_rewritten(before, draft, after, infill.text, language), infill.confidence)
    newline = newline_of(before + after)
    around = Around(with_line_ends(before), with_line_ends(after), language, newline)
    found = offers(Answer.of(infill).for_the_hole, around)
    best = next(found)
    return next((one for one in chain((best,), found) if one.polished.reason is None), best)


def _rewritten(before: str, draft: str, after: str, text: str, language: str) -> Polished:
    """A rewrite, if it breaks no syntax; white space at the end stays as it was."""
    document = Document("", language, 0, Text.of(before + draft + after))
    start, end = (document.text.point(at) for at in (len(before), len(before + draft)))
    new = text.rstrip() + draft[len(draft.rstrip()) :]
    blank = Blank(start, end, draft=draft, shape=str)
    snapshot = DocumentSnapshot.of(document, start, end)
    (fitting,), _ = fitted((blank,), (with_line_ends(new),), snapshot)
    if fitting is None:
        return Polished("", "the rewrite would break the syntax: try another --seed")
    as_it_was = with_line_ends(fitting) == with_line_ends(new)  # whatever its lines end with
    return Polished(new if as_it_was else fitting, None)


def result_to_json(
    infill: Infill, text: str, reason: str | None, confidence: float
) -> dict[str, object]:
    """What --json prints. text, confidence: of what is shown; if that is nothing, the reason says
    why. holes: what the model thinks best."""
    return {
        "text": text,
        "reason": reason,
        "holes": list(infill.holes),
        "steps": infill.steps,
        "forward_passes": infill.forward_passes,
        "stop_reason": infill.stop_reason,
        "confidence": round(confidence, 4),
        "ms": round(infill.timings.get("total", 0.0), 1),
    }


async def _fill(arguments: argparse.Namespace, request: InfillRequest) -> Infill:
    async with connected(arguments) as client:
        if not arguments.watch:
            return await follow(client, request)
        # Not on stdout if that can be helped: there the middle stands alone.
        console = Console(stderr=sys.stderr.isatty() or not sys.stdout.isatty() or arguments.json)
        with Screen(console, FillView(request.template, arguments.file)) as screen:
            infill = await follow(client, request, screen.frame)
            screen.result(infill)
        return infill


def _write(text: str) -> None:
    """To stdout in the file's encoding and with its line ends, whatever the terminal's are."""
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
