"""What a checkpoint needs beyond its weights: thresholds, sizes, the slack token, abilities.

A checkpoint may bring its own in `infill.json` (nano does); others get what fits their family, and
are sampled as their `generation_config.json` says.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, fields, replace
from math import exp, isfinite, log
from pathlib import Path
from typing import Any, cast

from engine.backbones.base import BackboneConfig
from engine.errors import BadRequest, ModelError
from engine.paths import SHIPPED, WEIGHTS
from engine.types import SamplingParams
from engine.weights.hub import name_of, revision_of

_log = logging.getLogger(__name__)

EMBEDDED = WEIGHTS / SHIPPED[0]
"""The folder of nano, the model that ships with the package."""

CERTAIN = 1e-6
"""A certainty this close to 0 or 1 counts as no closer."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """SamplingParams with nothing left open; see there for the meaning and units.

    accepted_as_tokens: for models trained so. What a pass accepted conditions the next one as the
        token that it is, not as the belief that it was drawn from; it stays at no cost for as long
        as the model agrees, and a canvas on which it agrees to everything is settled.
    causal_share: how much the same weights' causal reading has to say about a slot, against what
        the canvas has; 0 asks only the canvas.
    from_left: each hole is decided from its left on (engine.diffusion.samplers.accept_from_left).
    rerank: the encoder answers, too, and the text around decides (see engine.choice.rank).
    """

    max_steps: int = 48
    entropy_bound: float = 0.1
    t_max: float = 0.8
    t_min: float = 0.4
    stability: int = 1
    confidence: float = 0.005
    accepted_as_tokens: bool = False
    from_left: bool = False
    causal_share: float = 0.0
    rerank: bool = False

    def override(self, params: SamplingParams) -> Sampling:
        """These values, except where `params` says otherwise."""
        given = {f.name: getattr(params, f.name) for f in fields(params)}
        return replace(self, **{name: value for name, value in given.items() if value is not None})


@dataclass(frozen=True, slots=True)
class Calibration:
    """From how sure a model is to how often it is right: a sigmoid of the log odds (Platt, 1999).

    Fitted by engine.evaluation.calibration on code that the model has not seen, where right means
    that the hole holds exactly what was there. scale: above 0, so that the order stays.
    """

    scale: float
    shift: float

    def __post_init__(self) -> None:
        if not (isfinite(self.scale) and isfinite(self.shift) and self.scale > 0):
            raise ValueError(f"scale must be above 0 and shift finite, not {self}")

    def __call__(self, certainty: float) -> float:
        """The share of holes that are right among those of this certainty; both from 0 to 1."""
        inside = min(max(certainty, CERTAIN), 1 - CERTAIN)
        return 1 / (1 + exp(-self.scale * log(inside / (1 - inside)) - self.shift))


@dataclass(frozen=True, slots=True)
class Weights:
    """What counts when one of several answers is chosen, each the factor of a log-probability.

    written: of the answer and its end, as the decoder has it, with both sides in view. before: of
    the answer and its end, as the encoder has it from the prefix alone. after: of the text behind
    the hole, as the encoder has it behind the answer.
    """

    written: float = 0.0
    before: float = 1.0
    after: float = 1.0


@dataclass(frozen=True, slots=True)
class Profile:
    """How to use one checkpoint. Sizes are in tokens.

    name: what users see. can: what it does, "fill" and perhaps "instruct".
    slack: the token that fills the rest of a hole behind its text; None if it knows none.
    end: the token that fills a canvas behind the end of the text; None leaves the canvas shorter.
    context: how much of the prefix it reads. canvas: the usual canvas, holes and suffix together.
    hole: slots that a hole gets when nothing is said. longest: the cap of such a hole.
    suffix: the least clamped suffix that a canvas ends in, if there is so much.
    prefill: tokens that are encoded at a time; a multiple of it is where a cache is cut.
    neighbours: whether pieces of other files in front of the prefix make its answers better.
    languages: those that it has learned, as LSP names them; None means that it is at home in any.
        What nobody asked for is suggested in no other.
    separator: the special token between documents in training; with None, or a token that the
        tokenizer does not know, a comment with the path stands above each piece.
    mask: the mask token of a model whose noise is one (an absorbing process); its holes are decided
        from the left, and what is decided is read causally with the text behind the hole in view.
    extra: special tokens that the tokenizer does not know, with the ids behind its last one.
    start: the token that a text begins with, if it is not the one that config.json names.
    blanks: whether white space in front of a hole is written anew with it, for vocabularies that
        join line ends with what follows them.
    weights: what the log-probabilities of an answer count when one is chosen (engine.choice.rank).
    calibration: what makes the engine's confidence (see engine.types.Infill) the one that it
        reports, for answers of the kind that `sampling` makes: chosen among several, or not. None
        leaves it as it is.
    eos_ids: all tokens that end what the model says, by generation_config.json or config.json.
    revision: the commit that a model from the hub was resolved to.
    """

    name: str
    slack: str | None = None
    end: str | None = None
    context: int = 16_384
    canvas: int = 256
    hole: int = 128
    longest: int = 512
    suffix: int = 48
    prefill: int = 512
    neighbours: bool = True
    languages: tuple[str, ...] | None = None
    separator: str | None = None
    can: tuple[str, ...] = ("fill",)
    mask: str | None = None
    extra: tuple[str, ...] = ()
    start: str | None = None
    blanks: bool = False
    weights: Weights = Weights()
    sampling: Sampling = Sampling()
    calibration: Calibration | None = None
    eos_ids: tuple[int, ...] = ()
    revision: str | None = None


DIFFUSION_GEMMA = Profile(
    # <turn|> ends what an instruction model says, so it is what can end a hole.
    name="diffusiongemma",
    slack="<turn|>",
    can=("fill", "instruct"),
)


def load_profile(folder: Path, config: BackboneConfig) -> Profile:
    """The profile of the checkpoint in `folder`. Raises ModelError if a file of it is broken."""
    sampling, eos_ids = _generation(folder)
    known = replace(_profile(folder, config, sampling), revision=revision_of(folder))
    return replace(known, eos_ids=eos_ids or config.eos_ids)


def _profile(folder: Path, config: BackboneConfig, sampling: Sampling) -> Profile:
    """What infill.json says; without it, what fits the family, with `sampling`."""
    path = folder / "infill.json"
    if not path.is_file():
        canvas = min(DIFFUSION_GEMMA.canvas, config.canvas_length)
        return replace(
            DIFFUSION_GEMMA,
            name=name_of(folder),
            context=min(DIFFUSION_GEMMA.context, config.max_positions - canvas),
            canvas=canvas,
            hole=max(1, canvas // 2),
            suffix=min(DIFFUSION_GEMMA.suffix, canvas // 4),
            sampling=sampling,
        )
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        own = Sampling(**data.pop("sampling", {}))
        fitted = data.pop("calibration", None)
        calibration = None if fitted is None else Calibration(**fitted)
        data["can"] = tuple(data.get("can", ("fill",)))
        data["languages"] = _names(data.get("languages"))
        data["extra"] = _names(data.get("extra")) or ()
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


def _names(raw: Any) -> tuple[str, ...] | None:
    if raw is None:
        return None
    if not isinstance(raw, list) or not all(isinstance(one, str) for one in cast("list[Any]", raw)):
        raise ValueError("languages: expected a list of texts")
    return tuple(cast("list[str]", raw))
