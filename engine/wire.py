"""The engine's types as JSON, for the line between the service and its clients. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import takewhile
from typing import Any

from engine.errors import BadRequest, EngineError, error_from_code
from engine.types import (
    EngineInfo,
    Fixed,
    Frame,
    Hole,
    Infill,
    InfillRequest,
    Other,
    Piece,
    SamplingParams,
    Snippet,
    Template,
)

Json = dict[str, Any]
Holes = tuple[tuple[Piece, ...], ...]


def request_to_json(request: InfillRequest) -> Json:
    """The request as a JSON object; `request_from_json` is the inverse."""
    return {
        "template": [
            {"fixed": segment.text} if isinstance(segment, Fixed) else {"hole": asdict(segment)}
            for segment in request.template
        ],
        "params": asdict(request.params),
        "budget_s": request.budget_s,
        "seed": request.seed,
        "instruction": request.instruction,
        "context": [asdict(snippet) for snippet in request.context],
        "choices": list(request.choices),
        "title": request.title,
    }


def request_from_json(data: Json) -> InfillRequest:
    """Raises BadRequest if a field is missing, unknown or of the wrong kind."""
    try:
        template: Template = tuple(
            Fixed(_text(segment["fixed"])) if "fixed" in segment else Hole(**segment["hole"])
            for segment in data["template"]
        )
        return InfillRequest(
            template,
            SamplingParams(**data.get("params", {})),
            data.get("budget_s"),
            data.get("seed", 0),
            data.get("instruction"),
            tuple(Snippet(_text(s["path"]), _text(s["text"])) for s in data.get("context", ())),
            tuple(map(_text, data.get("choices", ()))),
            _text(data.get("title", "")),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise BadRequest(f"not a request that the engine understands: {error!r}") from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("text expected")
    return value


class FrameWriter:
    """Frames of one stream as JSON: of each hole what has changed since the frame before.

    A rewrite of 500 lines has thousands of pieces, of which a pass changes those of one canvas.
    """

    def __init__(self) -> None:
        self._last: Holes = ()

    def to_json(self, frame: Frame) -> Json:
        """{"frame": …}: a hole as [front, back, pieces]: so many pieces at its beginning and at its
        end stay, and between them stand these, as [text, certainty] pairs."""
        before = self._last if len(self._last) == len(frame.holes) else ((),) * len(frame.holes)
        self._last = frame.holes
        changes = [_change(old, new) for old, new in zip(before, frame.holes, strict=True)]
        return {
            "frame": {
                "step": frame.step,
                "planned": frame.planned,
                "holes": changes,
                "entropy": frame.entropy,
            }
        }


class EventReader:
    """The events of one stream, of its lines in their order."""

    def __init__(self) -> None:
        self._last: Holes = ()

    def read(self, data: Json) -> Frame | Infill:
        """One line. Raises the EngineError that the line reports, if it reports one."""
        if "error" in data:
            raise error_from_code(data["error"]["code"], data["error"]["message"])
        if "infill" in data:
            fields: Json = {**data["infill"]}
            fields["holes"] = tuple(fields["holes"])
            fields["others"] = tuple(Other(**other) for other in fields["others"])
            fields["scores"] = tuple(fields["scores"])
            return Infill(**fields)
        fields = data["frame"]
        changes = fields["holes"]
        before = self._last if len(self._last) == len(changes) else ((),) * len(changes)
        self._last = tuple(
            (*old[:front], *(Piece(*pair) for pair in pieces), *old[len(old) - back :])
            for old, (front, back, pieces) in zip(before, changes, strict=True)
        )
        return Frame(fields["step"], fields["planned"], self._last, fields["entropy"])


def _change(old: Sequence[Piece], new: Sequence[Piece]) -> tuple[int, int, list[list[Any]]]:
    """How many pieces the two have in common at the beginning, and at the end behind those; and
    what `new` has between them."""
    front = _common(zip(old, new, strict=False))
    back = _common(zip(reversed(old[front:]), reversed(new[front:]), strict=False))
    between = new[front : len(new) - back]
    return front, back, [[one.text, round(one.certainty, 4)] for one in between]


def _common(pairs: Iterable[tuple[Piece, Piece]]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def infill_to_json(infill: Infill) -> Json:
    """{"infill": …}: the last line of a stream that ended well."""
    return {"infill": asdict(infill)}


def error_to_json(error: EngineError) -> Json:
    """{"error": …}: the last line of a stream that did not."""
    return {"error": {"code": error.code, "message": str(error)}}


def info_to_json(info: EngineInfo) -> Json:
    """The loaded model's description as a JSON object."""
    return asdict(info)


def info_from_json(data: Json) -> EngineInfo:
    """The inverse of `info_to_json`."""
    languages = data.get("languages")
    fields: Json = {
        **data,
        "can": tuple(data["can"]),
        "languages": None if languages is None else tuple(languages),
        "min_confidence": data.get("min_confidence", 0.0),
        "draws": data.get("draws", True),
    }
    return EngineInfo(**fields)
