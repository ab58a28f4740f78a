"""What `diffgemma-lsp fill` shows of what came of its runs."""

from __future__ import annotations

import difflib
import re
from typing import Any, NamedTuple

from diffgemma_lsp.commands.fill_hole import Filling, Job, OneHole
from diffgemma_lsp.commands.source import position_of
from engine.types import Infill

_LINE = re.compile(r"[^\n]*\n|[^\n]+")


class Found(NamedTuple):
    """What came of the runs. infill: of the first one. reason: why there are no offers."""

    infill: Infill
    fillings: tuple[Filling, ...]
    reason: str | None


def result_to_json(
    text: str, job: Job, found: Found, raw: bool = False, choice: bool = False
) -> dict[str, Any]:
    """What --json prints; raw: with what the model wrote for its text; choice: with `candidates`.

    text, confidence: of what is best to offer; text is null if that is nothing, and the reason says
    why. Of several places there are `edits` instead, whose text is null where nothing fits.
    holes: what the model thinks best.
    """
    infill = found.infill
    best = found.fillings[0] if found.fillings else None
    shown: dict[str, Any] = {}
    if isinstance(job, OneHole):
        shown["text"] = infill.text if raw else best.texts[0] if best else None
        if choice:
            shown["candidates"] = [
                {"text": one.texts[0], "confidence": _rounded(one.confidence)}
                for one in found.fillings
            ]
    else:
        texts = best.texts if best else (None,) * len(job.places)
        shown["edits"] = [
            {"at": str(position_of(text, start)), "to": str(position_of(text, end)), "text": new}
            for (start, end), new in zip(job.places, texts, strict=True)
        ]
    return shown | {
        "reason": None if raw else found.reason,
        "holes": list(infill.holes),
        "steps": infill.steps,
        "forward_passes": infill.forward_passes,
        "stop_reason": infill.stop_reason,
        "confidence": _rounded((infill if raw or best is None else best).confidence),
        "ms": round(infill.timings.get("total", 0.0), 1),
    }


def _rounded(confidence: float | None) -> float | None:
    return None if confidence is None else round(confidence, 4)


def filled(text: str, job: Job, filling: Filling) -> str:
    """The whole file with what is offered in it."""
    for (start, end), new in reversed(list(zip(job.places, filling.texts, strict=True))):
        if new is not None:
            text = text[:start] + new + text[end:]
    return text


def diff(old: str, new: str, name: str) -> str:
    """What differs, as `diff -u` shows it."""
    before, after = _LINE.findall(old), _LINE.findall(new)
    shown = list(difflib.unified_diff(before, after, name, name))
    ends = (
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in shown
    )
    return "".join(ends)
