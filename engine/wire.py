"""The engine's types as JSON, for the line between the service and its clients. No torch."""

from __future__ import annotations

from dataclasses import asdict
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
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise BadRequest(f"not a request that the engine understands: {error!r}") from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("text expected")
    return value


def frame_to_json(frame: Frame) -> Json:
    """{"frame": …}: pieces as [text, certainty] pairs, since there are many of them."""
    return {
        "frame": {
            "step": frame.step,
            "planned": frame.planned,
            "holes": [[[p.text, round(p.certainty, 4)] for p in hole] for hole in frame.holes],
            "entropy": frame.entropy,
        }
    }


def infill_to_json(infill: Infill) -> Json:
    """{"infill": …}: the last line of a stream that ended well."""
    return {"infill": asdict(infill)}


def error_to_json(error: EngineError) -> Json:
    """{"error": …}: the last line of a stream that did not."""
    return {"error": {"code": error.code, "message": str(error)}}


def event_from_json(data: Json) -> Frame | Infill:
    """One line of a stream. Raises the EngineError that the line reports, if it reports one."""
    if "error" in data:
        raise error_from_code(data["error"]["code"], data["error"]["message"])
    if "infill" in data:
        fields: Json = {**data["infill"]}
        fields["holes"] = tuple(fields["holes"])
        fields["others"] = tuple(Other(**other) for other in fields["others"])
        return Infill(**fields)
    fields = data["frame"]
    holes = tuple(tuple(Piece(text, certainty) for text, certainty in h) for h in fields["holes"])
    return Frame(fields["step"], fields["planned"], holes, fields["entropy"])


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
