"""What goes into the engine and what comes out. Plain frozen data, no torch.

A `Template` is text with holes. Fill-in-the-middle is `Fixed Hole Fixed`; a rewrite is a hole whose
draft is the selected text; a form is many holes between fixed fields. They are all the same thing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from engine.errors import BadRequest

StopReason = Literal["settled", "steps", "deadline", "max_tokens", "unchanged"]
"""Why a run ended: the canvas settled; the passes were used up; the deadline came; the hole reached
its token cap without ending by itself; or there was nothing to change (strength 0)."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """Text that comes back as it is, bit for bit."""

    text: str


@dataclass(frozen=True, slots=True)
class Hole:
    """A gap to be filled.

    draft: text to start from (a selection, an earlier suggestion); None starts from noise.
    strength: how much of the draft may change, from 0 (keep it) to 1 (start from noise).
    max_tokens: the most tokens that the filling may have; None leaves it to the model.
    fixed_length: the filling has exactly max_tokens tokens; no slack may end it before. With a word
        that was typed in part, the token that goes on with it is the first of them.
    """

    draft: str | None = None
    strength: float = 1.0
    max_tokens: int | None = None
    fixed_length: bool = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.strength <= 1.0:
            raise BadRequest(f"strength must lie between 0 and 1, not {self.strength}")
        if self.draft is None and self.strength != 1.0:
            raise BadRequest("a strength below 1 needs a draft to start from")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise BadRequest(f"max_tokens must be at least 1, not {self.max_tokens}")
        if self.fixed_length and (self.max_tokens is None or self.draft is not None):
            raise BadRequest("a hole of fixed length needs max_tokens, and no draft")


Segment = Fixed | Hole
Template = tuple[Segment, ...]


def fill_in_the_middle(prefix: str, suffix: str, max_tokens: int | None = None) -> Template:
    """The template of a cursor: everything left of it, a hole, everything right of it."""
    return (Fixed(prefix), Hole(max_tokens=max_tokens), Fixed(suffix))


def rewrite(prefix: str, selection: str, suffix: str, strength: float) -> Template:
    """The template of a selection that is to be rewritten by `strength` (0 to 1)."""
    return (Fixed(prefix), Hole(draft=selection, strength=strength), Fixed(suffix))


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to denoise. None means: as the model's own defaults say.

    max_steps: the most passes per canvas, at least 1.
    entropy_bound: nats of entropy that may be accepted in one pass, beyond the surest position.
    t_max, t_min: softmax temperature at the first and after the last pass, linear in between.
    stability: passes for which the best guess must stay the same before a canvas counts as settled.
    confidence: mean entropy (nats per free position) below which a stable canvas is settled.
    rerank: whether the encoder answers, too, and what stands around the hole decides.
    """

    max_steps: int | None = None
    entropy_bound: float | None = None
    t_max: float | None = None
    t_min: float | None = None
    stability: int | None = None
    confidence: float | None = None
    rerank: bool | None = None

    def __post_init__(self) -> None:
        if self.max_steps is not None and self.max_steps < 1:
            raise BadRequest(f"max_steps must be at least 1, not {self.max_steps}")
        if self.entropy_bound is not None and not self.entropy_bound > 0:
            raise BadRequest(f"entropy_bound must be above 0, not {self.entropy_bound}")
        for name in ("t_max", "t_min"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise BadRequest(f"{name} must be above 0, not {value}")
        if self.stability is not None and self.stability < 0:
            raise BadRequest(f"stability must be at least 0, not {self.stability}")
        if self.confidence is not None and self.confidence < 0:
            raise BadRequest(f"confidence must be at least 0, not {self.confidence}")


@dataclass(frozen=True, slots=True)
class Snippet:
    """A piece of another file that may help to fill the holes.

    path: what a person would call the file, such as its path in the project; text: whole lines.
    """

    path: str
    text: str


MOST_CHOICES = 16
"""So many texts can be weighed in one request."""


@dataclass(frozen=True, slots=True)
class InfillRequest:
    """One piece of work for the engine.

    instruction: what to do, in words; only for models that can "instruct".
    budget_s: seconds that are left, counted from the moment the engine gets the request; None
        means no deadline. When it runs out, the current best answer is the result.
    seed: the same request with the same seed gives the same draws, whatever else is running.
    context: pieces of other files, the most useful first. The model reads as many as it has room
        for, and none if it makes nothing of them (`EngineInfo.neighbours`). Requests that follow
        each other are the quicker the more of it stays the same, from the beginning.
    choices: texts of which one stands in the one hole; nothing is written then, they are weighed
        (`Infill.scores`), and the likeliest is the answer.
    title: a line that says what file the text is from, if it begins where the file does. Models
        that profit (`Profile.titled`) read it in front of the text as long as they see its
        beginning.
    """

    template: Template
    params: SamplingParams = field(default_factory=SamplingParams)
    budget_s: float | None = None
    seed: int = 0
    instruction: str | None = None
    context: tuple[Snippet, ...] = ()
    choices: tuple[str, ...] = ()
    title: str = ""

    def __post_init__(self) -> None:
        holes = [segment for segment in self.template if isinstance(segment, Hole)]
        if not holes:
            raise BadRequest("the template has no hole to fill")
        if len(self.choices) > MOST_CHOICES:
            raise BadRequest(
                f"at most {MOST_CHOICES} choices can be weighed, not {len(self.choices)}"
            )
        if self.choices and holes != [Hole()]:
            raise BadRequest("choices are for one hole, of which nothing else is said")
        if not 0 <= self.seed < 2**63:
            raise BadRequest(f"seed must lie between 0 and 2**63 - 1, not {self.seed}")


@dataclass(frozen=True, slots=True)
class Piece:
    """One token of a filling as text. certainty: the model's probability of it, from 0 to 1."""

    text: str
    certainty: float


@dataclass(frozen=True, slots=True)
class Frame:
    """The best guess after one pass: each hole as pieces, in reading order.

    step: passes finished so far, from 1 (0 for the draft, before the first pass).
    planned: passes that this run will take at most (0 for the draft).
    entropy: mean over the free positions, in nats.
    """

    step: int
    planned: int
    holes: tuple[tuple[Piece, ...], ...]
    entropy: float

    @property
    def progress(self) -> str:
        """How far the run is, for a person."""
        return f"pass {self.step} of {self.planned}" if self.step else "starting"

    @property
    def texts(self) -> tuple[str, ...]:
        """What each hole holds right now."""
        return tuple("".join(piece.text for piece in hole) for hole in self.holes)


@dataclass(frozen=True, slots=True)
class Other:
    """An answer that was not chosen. confidence: as in `Infill`."""

    text: str
    confidence: float | None


@dataclass(frozen=True, slots=True)
class Infill:
    """The result.

    text: what stands from the start of the first hole to the end of the last one.
    holes: what each hole holds.
    steps: denoising passes; forward_passes: all forward passes, those of the prefix included.
    confidence: how likely the hole holds exactly what belongs there, from 0 to 1, as measured: the
        share of an answer among those that it was chosen from (see engine.choice.rank), mapped by
        the calibration of the model's profile. None where nothing was measured: of drafts, several
        holes, holes of fixed length, what there was no time to choose, and of a model that has no
        calibration.
    timings: milliseconds by phase: "prefill", "denoise", "total" and so on.
    others: what else could stand in the one hole, the best first; none if nothing was chosen.
    scores: of each of the request's choices, in their order, log p in nats of it and its end, both
        sides of the hole in view, as answers are compared (engine.choice.rank). Only differences
        between them mean anything.
    """

    text: str
    holes: tuple[str, ...]
    steps: int
    forward_passes: int
    stop_reason: StopReason
    confidence: float | None
    timings: dict[str, float]
    others: tuple[Other, ...] = ()
    scores: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What is loaded.

    can: "fill", and "instruct" if the model follows instructions.
    neighbours: whether the model reads a request's context.
    languages: those that the model has learned, as LSP names them; None means any.
    min_confidence: what nobody asked for is shown from this confidence on.
    draws: whether another seed may give another answer.
    """

    model: str
    device: str
    dtype: str
    parameters: int
    canvas_length: int
    context_tokens: int
    can: tuple[str, ...]
    neighbours: bool = False
    languages: tuple[str, ...] | None = None
    min_confidence: float = 0.0
    draws: bool = True
