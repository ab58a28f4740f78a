"""Reads what a checkpoint needs beyond its weights (engine.profile).

A checkpoint may bring its own in `infill.json` (nano does); others get what fits their family, and
are sampled as their `generation_config.json` says.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from engine.backbones.base import BackboneConfig
from engine.errors import BadRequest, ModelError
from engine.models import SHIPPED, WEIGHTS
from engine.profile import Calibration, Profile, Sampling, Weights
from engine.types import SamplingParams
from engine.weights.hub import name_of, revision_of

_log = logging.getLogger(__name__)

EMBEDDED = WEIGHTS / SHIPPED[0]
"""The folder of nano, the model that ships with the package."""

DIFFUSION_GEMMA = Profile(
    # <turn|> ends what an instruction model says, so it is what can end a hole.
    name="diffusiongemma",
    slack="<turn|>",
    can=("fill", "instruct"),
)


def diffusion_gemma(folder: Path, config: BackboneConfig) -> Profile:
    """The profile of a DiffusionGemma without infill.json: as large as its canvas allows, and
    sampled as its generation_config.json says. Raises ModelError if that is broken."""
    canvas = min(DIFFUSION_GEMMA.canvas, config.canvas_length)
    return replace(
        DIFFUSION_GEMMA,
        name=name_of(folder),
        context=min(DIFFUSION_GEMMA.context, config.max_positions - canvas),
        canvas=canvas,
        hole=max(1, canvas // 2),
        suffix=min(DIFFUSION_GEMMA.suffix, canvas // 4),
        sampling=_generation(folder)[0],
    )


def load_profile(
    folder: Path,
    config: BackboneConfig,
    default: Callable[[Path, Any], Profile] = diffusion_gemma,
) -> Profile:
    """The profile of the checkpoint in `folder`: its infill.json, or else what its family's
    `default` makes of it. Raises ModelError if a file of it is broken."""
    _, eos_ids = _generation(folder)
    own = _own(folder) if (folder / "infill.json").is_file() else default(folder, config)
    return replace(own, revision=revision_of(folder), eos_ids=eos_ids or config.eos_ids)


def _own(folder: Path) -> Profile:
    """What infill.json says."""
    path = folder / "infill.json"
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        own = Sampling(**data.pop("sampling", {}))
        fitted = data.pop("calibration", None)
        calibration = None if fitted is None else Calibration(**fitted)
        data["can"] = tuple(data.get("can", ("fill",)))
        data["languages"] = _names(data.get("languages"))
        data["extra"] = _names(data.get("extra")) or ()
        data["marks"] = _pair(data.get("marks"))
        data["weights"] = Weights(**data.get("weights", {}))
        return Profile(**data, sampling=own, calibration=calibration)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} is broken: {error}") from error


_FIELDS = {
    "max_denoising_steps": "max_steps",
    "t_max": "t_max",
    "t_min": "t_min",
    "stability_threshold": "stability",
    "confidence_threshold": "confidence",
}
"""What transformers' DiffusionGemmaGenerationConfig calls the fields of Sampling."""


def _generation(folder: Path) -> tuple[Sampling, tuple[int, ...]]:
    """The sampling and the ends that generation_config.json names; what it leaves open (null, or
    not there) is as in Sampling, which has transformers' defaults."""
    path = folder / "generation_config.json"
    if not path.is_file():
        return Sampling(), ()
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        sampler: dict[str, Any] = data.get("sampler_config") or {}
        kind = sampler.get("_cls_name", "EntropyBoundSamplerConfig")
        given = {own: data.get(name) for name, own in _FIELDS.items()}
        if kind == "EntropyBoundSamplerConfig":
            given["entropy_bound"] = sampler.get("entropy_bound")
        else:
            _log.warning("%s asks for the sampler %s, which is not known here", path, kind)
        ends: Any = data.get("eos_token_id")
        listed: list[Any] = [] if ends is None else ends if isinstance(ends, list) else [ends]
        eos_ids = tuple(int(one) for one in listed)
        # SamplingParams looks at the values. Transformers lets the temperature end at 0.
        if given["t_min"] == 0:
            given["t_min"] = _COLDEST
        return Sampling().override(SamplingParams(**given)), eos_ids
    except (OSError, ValueError, TypeError, AttributeError, BadRequest) as error:
        raise ModelError(f"{path} is broken: {error}") from error


_COLDEST = 1e-3


def _pair(raw: Any) -> tuple[str, str] | None:
    names = _names(raw)
    if names is None:
        return None
    if len(names) != 2:
        raise ValueError("marks: expected two texts")
    return names[0], names[1]


def _names(raw: Any) -> tuple[str, ...] | None:
    if raw is None:
        return None
    if not isinstance(raw, list) or not all(isinstance(one, str) for one in cast("list[Any]", raw)):
        raise ValueError("expected a list of texts")
    return tuple(cast("list[str]", raw))
