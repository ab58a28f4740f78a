"""What a training run is fed with: batches, and the kinds of data that make them.

A run of a whole model knows nothing but `Batch`; one of an adapter has batches of its own
(engine.training.packed). A kind of data is a frozen dataclass that has the methods of
`Data`; its fields are the keys of the `[data]` table of a run's config. It is made known by a line
in `KINDS`, and imported only when a config names it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from engine.backbones.config import ModelConfig
    from engine.backbones.diffusion_gemma import DiffusionGemma
    from engine.training.recipe import Recipe

KINDS = {
    "code": "engine.training.dataset:Code",
    "files": "engine.training.files:Files",
    "infill": "engine.training.infill:Infill",
    "sudoku": "engine.training.sudoku:Sudoku",
}
"""The kinds by their names, as `module:class`."""


FROM_LEFT = 0.75
"""Of the canvases in the middle of a fill, those that are settled from the left."""

LATER_SLACK = 0.08
"""What a slack token behind the first of its hole counts, where content counts 1. They are easy,
and a model that is taught little else fills every hole with them."""


@dataclass(frozen=True)
class Batch:
    """B windows of N prefix tokens, each with K canvases of C clean tokens.

    ``prefix`` int64 [B, N]; a document behind another one begins with the model's ``<bos>``.
    ``start`` int64 [B, K], 1 to N, ascending: a canvas sees ``prefix[:start]``, and continues it.
    ``canvas`` int64 [B, K, C]. ``free`` bool [B, K, C]: the slots of holes; all others are
    clamped. ``weight`` float32 [B, K, C]: what a slot counts in the loss: 1 for content and the
    first slack token of a hole, little for other slack, 0 for clamped slots.
    """

    prefix: npt.NDArray[np.int64]
    canvas: npt.NDArray[np.int64]
    start: npt.NDArray[np.int64]
    free: npt.NDArray[np.bool_]
    weight: npt.NDArray[np.float32]


Kind = TypeVar("Kind", covariant=True)
"""What a batch is: `Batch`, or another kind's own."""


class Batches(Protocol[Kind]):
    """Batches by their number, so that a run that goes on sees what it would have seen."""

    def batch(self, index: int) -> Kind:
        """The batch of a step, 0 and up; it depends on nothing but the data, the seed and this."""
        ...


@dataclass(frozen=True)
class Opened(Generic[Kind]):
    """Data ready to train on.

    ``config`` is the config.json of a new model that is to be trained on it; ``companions`` a
    folder with what stands beside a checkpoint's weights: tokenizer.json, infill.json and so on.
    ``validation`` has the same shapes in every run of this kind, so that figures compare.
    ``new_model`` makes the fresh weights of a shape from a seed, if not engine.training.nano does.
    """

    training: Batches[Kind]
    validation: Batches[Kind]
    config: dict[str, Any]
    companions: Path
    new_model: Callable[[ModelConfig, int], DiffusionGemma] | None = None


class Data(Protocol):
    """A kind of data (see the module)."""

    def prepare(self, recipe: Recipe) -> None:
        """What is slow and done once for a run, before any of its processes trains."""
        ...

    def open(self, recipe: Recipe) -> Opened[Any]:
        """The data of a run; called in each of its processes."""
        ...


def kind_of_data(name: str) -> type[Data]:
    """The class of a kind. Raises KeyError if there is none of this name."""
    module, _, attribute = KINDS[name].partition(":")
    return getattr(import_module(module), attribute)
