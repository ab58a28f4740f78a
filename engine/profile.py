"""What the engine is told of a checkpoint: thresholds, sizes, special tokens, abilities.

Vocabulary only; `engine.weights.profile` reads it from a folder.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from math import exp, isfinite, log

from engine.types import SamplingParams

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
    top_p: of what a slot may hold, only the likeliest tokens are drawn from that have this share of
        the probability together.
    final: for models of absorbing noise, which see a token that was decided as text. It stays; a
        pass decides the surest slot, all others of less than `entropy_bound` nats, and as many as
        it must for the passes that are left (engine.diffusion.samplers.Surest).
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
    top_p: float = 1.0
    final: bool = False

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

    @property
    def judged(self) -> bool:
        """Whether the encoder has a say."""
        return bool(self.before or self.after)


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
    titled: whether it reads the name of the file in front of a text (`InfillRequest.title`).
    languages: those that it has learned, as LSP names them; None means that it is at home in any.
        What nobody asked for is suggested in no other.
    separator: the special token between documents in training; with None, or a token that the
        tokenizer does not know, a comment with the path stands above each piece.
    mask: the mask token of a model whose noise is one (an absorbing process). Without `window` its
        holes are decided from the left, and what is decided is read causally with the text behind
        the hole in view.
    window: whether everything sees everything: nothing of a prefix is kept, and each pass reads
        `context` tokens of it with the canvas. Its holes are canvases (engine.window_run).
    shifted: whether what slot i holds is read from row i - 1, as in the language model that such a
        one was made of.
    close: the special token that stands once behind the end of the text.
    lines: whether a hole at the end of a line is filled with its line end, for vocabularies that
        join it with what stands before it and models that were trained on whole lines.
    extra: special tokens that the tokenizer does not know, with the ids behind its last one.
    start: the token that a text begins with, if it is not the one that config.json names.
    blanks: whether white space in front of a hole is written anew with it, for vocabularies that
        join line ends with what follows them.
    marks: the special tokens in front of the text behind a hole and behind it, for a model that was
        trained to fill in the middle so (engine.attention.lead); its `start` is the prefix'.
    weights: what the log-probabilities of an answer count when one is chosen (engine.choice.rank).
    end_cost: nats by which the end of a hole is less likely where a body belongs, which mostly has
        several lines; what is likeliest is often that nothing follows the first one.
    calibration: what makes the engine's confidence (see engine.types.Infill) the one that it
        reports, for answers of the kind that the model mostly gives: chosen among several, or not.
        With None it reports none.
    min_confidence: what nobody asked for is shown from this confidence on, where the settings
        say nothing else.
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
    titled: bool = False
    languages: tuple[str, ...] | None = None
    separator: str | None = None
    can: tuple[str, ...] = ("fill",)
    mask: str | None = None
    window: bool = False
    shifted: bool = False
    close: str | None = None
    lines: bool = False
    extra: tuple[str, ...] = ()
    start: str | None = None
    blanks: bool = False
    marks: tuple[str, str] | None = None
    weights: Weights = Weights()
    end_cost: float = 0.0
    sampling: Sampling = Sampling()
    calibration: Calibration | None = None
    min_confidence: float = 0.0
    eos_ids: tuple[int, ...] = ()
    revision: str | None = None

    @property
    def chooses(self) -> bool:
        """Whether its answers are chosen among several, where that can be."""
        return (self.mask is not None and not self.window) or self.sampling.rerank
