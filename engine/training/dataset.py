"""Training batches as numpy arrays, drawn by (seed, step) so that a resumed run sees the same.

python -m engine.training.dataset --data DIR --tokenizer engine/weights/nano --step 0
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from engine.errors import TrainingError
from engine.training.data import Batch, Opened
from engine.training.holes import SHARES, CanvasSample, HoleMaker, check_shares
from engine.training.nano import NANO
from engine.training.recipe import Recipe
from engine.training.vocab import BoolArray, IntArray, Vocabulary, read_vocabulary
from engine.training.windows import Segment, Window, build_window
from engine.weights.profile import EMBEDDED

DOCUMENT_START_SHARE = 0.35


@dataclass(frozen=True, slots=True)
class Code:
    """The kind "code": `folder` is a corpus that engine.training.corpus has encoded.

    shares: how often each kind of hole is tried, where that differs from holes.SHARES. What the
    run is measured on has the shares of holes.SHARES always.
    """

    folder: Path
    shares: dict[str, float] = field(default_factory=dict[str, float])

    def __post_init__(self) -> None:
        check_shares(self.shares)

    def prepare(self, recipe: Recipe) -> None:
        """Nothing: the corpus is there. Raises TrainingError if it is not."""
        for name in ("train.bin", "train.idx.npy", "valid.bin", "valid.idx.npy"):
            if not (self.folder / name).is_file():
                raise TrainingError(
                    f"{self.folder / name} is missing; make it with python -m "
                    "engine.training.corpus, or name another folder"
                )

    def open(self, recipe: Recipe) -> Opened[Batch]:
        """Batches of the shape that the recipe asks for."""
        companions = recipe.model.tokenizer or recipe.model.start_from or EMBEDDED
        tokenizer = Tokenizer.from_file(str(companions / "tokenizer.json"))
        step = recipe.step
        vocabulary = read_vocabulary(tokenizer)
        training = CodeBatches(
            self.folder,
            vocabulary,
            recipe.run.seed,
            windows=step.windows,
            prefix=step.context,
            canvases=step.canvases,
            canvas=step.canvas,
            shares=self.shares,
        )
        validation = CodeBatches(self.folder, vocabulary, 0, split="valid", windows=4)
        return Opened(training, validation, NANO, companions)


class CodeBatches:
    """Draws batches from ``NAME.bin`` and ``NAME.idx.npy`` in a corpus folder.

    A batch depends on nothing but the data, the tokenizer, the sizes and (seed, step).

    Raises:
        FileNotFoundError: the folder holds no such split.
        ValueError: the split is empty.
    """

    def __init__(
        self,
        data: Path,
        vocabulary: Vocabulary,
        seed: int,
        *,
        split: str = "train",
        windows: int = 8,
        prefix: int = 1024,
        canvases: int = 16,
        canvas: int = 64,
        shares: Mapping[str, float] | None = None,
    ) -> None:
        self._starts: IntArray = np.load(data / f"{split}.idx.npy")
        if self._starts[-1] == 0:
            raise ValueError(f"{data / split}.bin holds no tokens")
        size = (data / f"{split}.bin").stat().st_size // int(self._starts[-1])
        self._tokens = np.memmap(data / f"{split}.bin", np.uint16 if size == 2 else np.uint32, "r")
        self.vocabulary = vocabulary
        self._maker = HoleMaker(self.vocabulary, canvas, {**SHARES, **(shares or {})})
        self._seed = seed
        self._windows, self._prefix = windows, prefix
        self._canvases, self._canvas = canvases, canvas

    @property
    def tokens(self) -> int:
        """The number of tokens in the split."""
        return int(self._starts[-1])

    def batch(self, index: int) -> Batch:
        """The batch of a step, 0 and up."""
        drawn = [self.draw(index, row) for row in range(self._windows)]
        samples = [canvases for _, canvases in drawn]
        return Batch(
            prefix=np.stack([window.ids[: self._prefix] for window, _ in drawn]),
            canvas=np.stack([[c.ids for c in row] for row in samples]),
            start=np.array([[c.start for c in row] for row in samples], np.int64),
            free=np.stack([[c.free for c in row] for row in samples]),
            weight=np.stack([[c.weight for c in row] for row in samples]),
        )

    def draw(self, step: int, row: int) -> tuple[Window, list[CanvasSample]]:
        """One window of a step with its canvases, ascending by their start."""
        rng = np.random.default_rng([self._seed, step, row])
        window = self._window(rng)
        # One start in each of K equal strata, pushed a little towards long contexts.
        strata = (np.arange(self._canvases) + rng.random(self._canvases)) / self._canvases
        targets = np.maximum(1, np.ceil(self._prefix * strata**0.8)).astype(np.int64)
        made = [self._maker.make(window, rng, int(t)) for t in targets]
        return window, sorted(made, key=lambda sample: sample.start)

    def _window(self, rng: np.random.Generator) -> Window:
        segments: list[Segment] = []
        missing = self._prefix
        while missing > 0:
            segments.append(self._segment(rng, missing))
            missing -= len(segments[-1].ids) + 1
        return build_window(self.vocabulary, segments, self._prefix)

    def _segment(self, rng: np.random.Generator, missing: int) -> Segment:
        """A document from its start or a line start on, with some tokens to look ahead."""
        place = int(rng.integers(self.tokens))
        document = int(np.searchsorted(self._starts, place, "right")) - 1
        low, high = int(self._starts[document]), int(self._starts[document + 1])
        offset = 0
        ids = self._tokens[low:high].astype(np.int64)
        if rng.random() >= DOCUMENT_START_SHARE:
            newlines = np.flatnonzero(self.vocabulary.newline[ids[: place - low]])
            offset = int(newlines[-1]) + 1 if len(newlines) else 0
        quotes = int(self.vocabulary.triples[ids[:offset]].sum())
        return Segment(ids[offset : offset + missing + 6 * self._canvas], quotes % 2)


def describe(batch: Batch, vocabulary: Vocabulary, *, context: int = 60) -> str:
    """A batch as text for people: each canvas behind the end of its prefix.

    Holes stand in ``«»``, their slack as ``·`` (one a token), ``<eos>`` as ``¶``.
    """
    lines: list[str] = []
    for row, starts in enumerate(batch.start):
        for column, start in enumerate(starts.tolist()):
            before = vocabulary.text(batch.prefix[row, :start])[-context:]
            shown = _show(batch.canvas[row, column], batch.free[row, column], vocabulary)
            lines.append(f"--- window {row} canvas {column} start {start}\n{before}{shown}")
    return "\n".join(lines)


def _show(ids: IntArray, free: BoolArray, vocabulary: Vocabulary) -> str:
    edges = np.flatnonzero(np.diff(free.astype(np.int8), prepend=0, append=0))
    bounds = sorted({0, *edges.tolist(), len(ids)})
    text = ""
    for low, high in pairwise(bounds):
        part = ids[low:high]
        shown = vocabulary.text(part)
        shown += "·" * int((part == vocabulary.slack).sum())
        shown += "¶" * int((part == vocabulary.eos).sum())
        text += f"«{shown}»" if free[low] else shown
    return text


def main(argv: list[str] | None = None) -> None:
    """Print the canvases of one step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, default=Path("engine/weights/nano"))
    parser.add_argument("--step", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    tokenizer = Tokenizer.from_file(str(options.tokenizer / "tokenizer.json"))
    batches = CodeBatches(options.data, read_vocabulary(tokenizer), options.seed, windows=2)
    print(describe(batches.batch(options.step), batches.vocabulary))


if __name__ == "__main__":
    main()
