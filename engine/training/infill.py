"""The kind of data "infill": text files in several languages, as windows of tokens with holes.

What a step is made of depends on nothing but the texts, the seed and the step's number.
"""

from __future__ import annotations

import gzip
import json
import lzma
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from rich.console import Console
from rich.progress import track

from engine.errors import TrainingError
from engine.left_run import SLOTS
from engine.text.tokenizer import TextTokenizer
from engine.training import filters
from engine.training.checkpoint import saving
from engine.training.data import Opened
from engine.training.infill_cuts import SHARES, Cut, Document
from engine.training.packed import Hole, Window, Windows
from engine.training.recipe import Recipe

OTHER = "other"
"""In `languages`: all that is not named there."""

LONGEST_COUNTED = 60_000
"""Characters of a document that count for how often it is drawn."""

FROM_START = 0.35
"""The share of windows that begin where a document does; others begin at a line."""

_LEAST_TOKENS = 60
_CHARS_PER_TOKEN = 6
_SPARE_CHARS = 1500


@dataclass(frozen=True, slots=True)
class Text:
    """A document of a corpus."""

    language: str
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Infill:
    """The kind "infill". folder: everything called texts*.jsonl below it, plain, .gz or .xz, with a
    "text", a "name" and perhaps a "language" a line; what is called heldout*.jsonl is what the run
    is measured on, or held_back of the texts, chosen by their names. list: instead, a text file
    that names files, a path a line; what is read of them is kept in the run's folder.

    languages: how much of the windows is in each language; "other" is all that is not named.
    Without, languages come as often as there is text. shares: how often each kind of hole is tried,
    where that differs from infill_cuts.SHARES. long_share: of the windows, those that are twice as
    long as [step] context. benchmark: a file of HumanEval-infilling, texts with parts of which are
    left out.
    """

    folder: Path | None = None
    list: Path | None = None
    languages: dict[str, float] = field(default_factory=dict[str, float])
    shares: dict[str, float] = field(default_factory=dict[str, float])
    long_share: float = 0.12
    held_back: float = 0.01
    benchmark: Path | None = None

    def __post_init__(self) -> None:
        if (self.folder is None) == (self.list is None):
            raise ValueError("name a folder with texts.jsonl, or a list of files")
        if not 0 <= self.long_share <= 1 or not 0 < self.held_back < 1:
            raise ValueError("long_share and held_back must be between 0 and 1")
        if any(share < 0 for share in [*self.shares.values(), *self.languages.values()]):
            raise ValueError("shares must be 0 or more")
        if unknown := sorted(set(self.shares) - set(SHARES)):
            raise ValueError(f"shares: {unknown[0]} is no kind of hole; there are {list(SHARES)}")

    def prepare(self, recipe: Recipe) -> None:
        """Reads a list of files once. Raises TrainingError if there are not two of them."""
        data = _kept(recipe)
        if self.list is None or (data / "texts.jsonl").is_file():
            return
        texts, left_out = filters.read_files(self.list)
        ordered = sorted(texts.items(), key=lambda item: filters.stable_fraction(item[0]))
        enough, count = self.held_back * sum(len(text) for _, text in ordered), 0
        while count < len(ordered) - 1 and enough > 0:
            enough -= len(ordered[count][1])
            count += 1
        if not 0 < count < len(ordered):
            raise TrainingError(
                f"{self.list} has {len(ordered)} usable files; at least two are needed, of which "
                "one is held back"
            )
        with saving(data):
            data.mkdir(parents=True, exist_ok=True)
            # The texts are written last: they stand for all of it.
            _write(data / "heldout.jsonl", ordered[:count])
            _write(data / "texts.jsonl", ordered[count:])
        left = "".join(f", {number} left out ({why})" for why, number in left_out.most_common())
        told = f"{len(ordered) - count} files to train on, {count} held back{left}"
        Console(stderr=True).print(told, markup=False, highlight=False, soft_wrap=True)

    def open(self, recipe: Recipe) -> Opened[Windows]:
        """Windows as the recipe asks for: [step] canvases holes each, of at most `canvas` tokens.

        Raises TrainingError if there is nothing to train on.
        """
        from engine.training.adapter import serving

        assert recipe.model.start_from is not None
        known = serving(recipe.model.start_from)
        folder = self.folder or _kept(recipe)
        texts = self._without_benchmark(list(read_texts(folder, "texts")))
        held = list(read_texts(folder, "heldout"))
        if not held:
            held = [t for t in texts if filters.stable_fraction(t.name) < self.held_back]
            texts = [t for t in texts if filters.stable_fraction(t.name) >= self.held_back]
        if not texts or not held:
            raise TrainingError(
                f"{folder} has no texts.jsonl with enough to train on and to hold back"
            )

        def windows(of: list[Text], seed: int, count: int) -> InfillBatches:
            sampler = Sampler(
                known.tokenizer,
                known.start,
                {**SHARES, **self.shares},
                holes=recipe.step.canvases,
                longest=recipe.step.canvas,
                suffix=known.profile.suffix,
                blanks=known.profile.blanks,
            )
            context = recipe.step.context
            corpus = Corpus(of, self.languages)
            return InfillBatches(corpus, sampler, seed, count, context, self.long_share)

        training = windows(texts, recipe.run.seed, recipe.step.windows)
        return Opened(training, windows(held, 0, 1), {}, recipe.model.start_from)

    def _without_benchmark(self, texts: list[Text]) -> list[Text]:
        if self.benchmark is None:
            return texts
        known = filters.benchmark_ngrams([self.benchmark])
        return [
            text
            for text in track(texts, "leaving the benchmark out", transient=True)
            if not filters.has_benchmark_text(text.text, known)
        ]


class Corpus:
    """Documents by language, drawn as often as they are long."""

    def __init__(self, texts: list[Text], languages: dict[str, float]) -> None:
        self._groups: dict[str, tuple[list[Text], list[int]]] = {}
        for text in texts:
            name = text.language if text.language in languages else OTHER
            group, ends = self._groups.setdefault(name, ([], []))
            group.append(text)
            ends.append((ends[-1] if ends else 0) + min(len(text.text), LONGEST_COUNTED))
        sizes = {name: ends[-1] for name, (_, ends) in self._groups.items()}
        shares = {name: languages.get(name, 0.0) if languages else sizes[name] for name in sizes}
        if sum(shares.values()) <= 0:
            raise TrainingError(f"there is no text in {', '.join(languages)}")
        self._names = list(shares)
        self._shares = np.array([shares[name] for name in self._names], np.float64)
        self._shares /= self._shares.sum()

    def draw(self, rng: np.random.Generator) -> Text:
        """One document."""
        name = self._names[int(rng.choice(len(self._names), p=self._shares))]
        texts, ends = self._groups[name]
        return texts[bisect_right(ends, int(rng.integers(ends[-1])))]


class Sampler:
    """Makes windows of documents. start: the token that a text begins with in serving, if any.

    holes: of a window. longest: tokens of a hole. suffix: the most tokens behind it.
    """

    def __init__(
        self,
        tokenizer: TextTokenizer,
        start: int | None,
        shares: dict[str, float],
        *,
        holes: int,
        longest: int,
        suffix: int,
        blanks: bool,
    ) -> None:
        self._blanks = blanks
        self._tokenizer, self._start = tokenizer, [] if start is None else [start]
        self._kinds = list(shares)
        self._shares = np.array(list(shares.values()), np.float64) / sum(shares.values())
        self._holes, self._longest, self._suffix = holes, longest, suffix

    def window(self, text: str, size: int, rng: np.random.Generator) -> Window | None:
        """A window of at most `size` tokens with holes; None if the text is too short for it."""
        begin = 0
        if rng.random() >= FROM_START:
            begin = text.rfind("\n", 0, int(rng.integers(len(text)))) + 1
        most = size * _CHARS_PER_TOKEN + _SPARE_CHARS
        document = Document(text[begin : begin + most], self._tokenizer, self._blanks)
        n = min(size, len(document.ids))
        if n < _LEAST_TOKENS:
            return None
        holes: list[Hole] = []
        for _ in range(4 * self._holes):
            if len(holes) == self._holes:
                break
            # One start in each of so many strata, pushed a little towards long contexts.
            place = ((len(holes) + rng.random()) / self._holes) ** 0.8
            near = max(2, min(n - 1, int(place * n)))
            kind = self._kinds[int(rng.choice(len(self._kinds), p=self._shares))]
            cut = document.cut(kind, near, rng)
            if cut is not None and 2 <= cut.token < n:
                hole = self._hole(document, cut, rng)
                holes += [] if hole is None else [hole]
        if len(holes) < max(1, self._holes // 2):
            return None
        return Window([*self._start, *document.ids[:n]], holes)

    def _hole(self, document: Document, cut: Cut, rng: np.random.Generator) -> Hole | None:
        middle = self._tokenizer.encode(document.text[cut.start : cut.end])
        if len(middle) > self._longest:
            return None
        after = document.text[cut.end :]
        x = rng.random()
        if x < 0.05:  # the end of a file, or nearly
            after = "" if x < 0.025 else "\n"
        elif x < 0.12 and cut.kind in ("rest", "span"):
            after = after[: after.find("\n", 1) + 1 or None]
        behind = after[: self._suffix * _CHARS_PER_TOKEN]
        ids = self._tokenizer.encode(behind)
        if len(behind) < len(after):
            del ids[-1:]  # the cut may have gone through a word
        most = self._suffix if rng.random() < 0.7 else int(rng.integers(4, self._suffix))
        least = len(middle) + 1
        if rng.random() < 0.5:
            sizes = [size for size in SLOTS if size >= least]
            slots = sizes[int(rng.integers(len(sizes)))] if sizes else least
        else:
            slots = least + int(rng.integers(32))
        return Hole(len(self._start) + cut.token, middle, ids[:most], slots, cut.kind)


class InfillBatches:
    """The windows of a step, by its number."""

    def __init__(
        self,
        corpus: Corpus,
        sampler: Sampler,
        seed: int,
        windows: int,
        context: int,
        long_share: float,
    ) -> None:
        self._corpus, self._sampler, self._seed = corpus, sampler, seed
        self._windows, self._context, self._long_share = windows, context, long_share

    def batch(self, index: int) -> Windows:
        """The windows of a step, 0 and up; all of them are short, or all long."""
        longer = np.random.default_rng([self._seed, index]).random() < self._long_share
        size = self._context * (2 if longer else 1)
        return [self._draw(index, row, size) for row in range(self._windows)]

    def _draw(self, index: int, row: int, size: int) -> Window:
        rng = np.random.default_rng([self._seed, index, row])
        for _ in range(1000):
            window = self._sampler.window(self._corpus.draw(rng).text, size, rng)
            if window is not None:
                return window
        raise TrainingError("the texts are too short for holes: a window needs 60 tokens and more")


def read_texts(folder: Path, name: str) -> Iterator[Text]:
    """The documents of all `name`*.jsonl below a folder, plain or packed.

    Raises TrainingError if one can't be read.
    """
    for path in sorted(folder.rglob(f"{name}*.jsonl*")):
        try:
            with _opened(path) as file:
                for line in file:
                    row: dict[str, Any] = json.loads(line)
                    yield Text(row.get("language") or "python", row["name"], row["text"])
        except (OSError, ValueError, KeyError, EOFError, lzma.LZMAError) as error:
            raise TrainingError(f"{path} can't be read: {error}") from error


def _opened(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8")
    if path.suffix == ".xz":
        return lzma.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8")


def _write(path: Path, texts: list[tuple[str, str]]) -> None:
    rows = [{"name": name, "language": Path(name).suffix, "text": text} for name, text in texts]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _kept(recipe: Recipe) -> Path:
    return recipe.run.out / "data"
