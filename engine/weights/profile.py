"""Reads what a checkpoint needs beyond its weights (engine.profile).

A checkpoint may bring its own in `infill.json` (nano does); others get what fits their family.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from engine.backbones.base import BackboneConfig
from engine.errors import ModelError
from engine.paths import SHIPPED, WEIGHTS
from engine.profile import Calibration, Profile, Sampling, Weights

EMBEDDED = WEIGHTS / SHIPPED[0]
"""The folder of nano, the model that ships with the package."""

DIFFUSION_GEMMA = Profile(
    # <turn|> ends what an instruction model says, so it is what can end a hole.
    name="diffusiongemma",
    slack="<turn|>",
    can=("fill", "instruct"),
)


def load_profile(folder: Path, config: BackboneConfig) -> Profile:
    """The profile of the checkpoint in `folder`. Raises ModelError if its infill.json is broken."""
    path = folder / "infill.json"
    if not path.is_file():
        canvas = min(DIFFUSION_GEMMA.canvas, config.canvas_length)
        return replace(
            DIFFUSION_GEMMA,
            name=folder.name,
            context=min(DIFFUSION_GEMMA.context, config.max_positions - canvas),
            canvas=canvas,
            hole=max(1, canvas // 2),
            suffix=min(DIFFUSION_GEMMA.suffix, canvas // 4),
        )
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        sampling = Sampling(**data.pop("sampling", {}))
        fitted = data.pop("calibration", None)
        calibration = None if fitted is None else Calibration(**fitted)
        data["can"] = tuple(data.get("can", ("fill",)))
        data["languages"] = _names(data.get("languages"))
        data["extra"] = _names(data.get("extra")) or ()
        data["weights"] = Weights(**data.get("weights", {}))
        return Profile(**data, sampling=sampling, calibration=calibration)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} is broken: {error}") from error


def _names(raw: Any) -> tuple[str, ...] | None:
    if raw is None:
        return None
    if not isinstance(raw, list) or not all(isinstance(one, str) for one in cast("list[Any]", raw)):
        raise ValueError("languages: expected a list of texts")
    return tuple(cast("list[str]", raw))
