"""The kind of data "files": somebody's own source, tokenized with the model's own tokenizer."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table
from tokenizers import Tokenizer

from engine.backbones.config import load_config
from engine.errors import TrainingError
from engine.text.tokenizer import TextTokenizer
from engine.training import filters
from engine.training.checkpoint import saving
from engine.training.corpus import TokenFile
from engine.training.data import Batch, Opened
from engine.training.dataset import CodeBatches
from engine.training.holes import check_shares
from engine.training.recipe import Recipe
from engine.training.vocab import Vocabulary, read_vocabulary
from engine.weights.profile import EMBEDDED, load_profile


@dataclass(frozen=True, slots=True)
class Files:
    """`list` is a text file that names the files, a path a line.

    They are read once, when a run begins; what it trains on is kept in its folder, so that it goes
    on with the same. held_back: the share of tokens, in whole files, that it is measured on.
    shares: how often each kind of hole is tried, where that differs from holes.SHARES.
    """

    list: Path
    held_back: float = 0.1
    shares: dict[str, float] = field(default_factory=dict[str, float])

    def __post_init__(self) -> None:
        if not 0 < self.held_back < 1:
            raise ValueError(f"held_back must be between 0 and 1, not {self.held_back}")
        check_shares(self.shares)

    def prepare(self, recipe: Recipe) -> None:
        """Reads and tokenizes. Raises TrainingError if there are not two files to train on."""
        data = _folder(recipe)
        if (data / "train.idx.npy").is_file():
            return
        texts, left_out = filters.read_files(self.list)
        tokenizer = TextTokenizer.load(_model(recipe))
        documents = [
            (name, tokenizer.encode(text))
            for name, text in track(texts.items(), "tokenizing", transient=True)
        ]
        train, valid = split(documents, self.held_back)
        if not train or not valid:
            raise TrainingError(
                f"{self.list} has {len(documents)} usable files; at least two are needed, "
                "of which one is held back"
            )
        wide = len(tokenizer) > 2**16
        with saving(data):
            data.mkdir(parents=True, exist_ok=True)
            # The index of train is written last: it stands for all of it.
            for name, part in (("valid", valid), ("train", train)):
                file = TokenFile(data, name, wide)
                for _, ids in part:
                    file.add(ids)
                file.close()
        Console(stderr=True).print(_told(train, valid, left_out))

    def open(self, recipe: Recipe) -> Opened[Batch]:
        """Batches of the files, and of those held back, in the shape that the recipe asks for."""
        model = _model(recipe)
        vocabulary = _vocabulary(model)
        step, data = recipe.step, _folder(recipe)

        def batches(name: str, seed: int) -> CodeBatches:
            return CodeBatches(
                data,
                vocabulary,
                seed,
                split=name,
                windows=step.windows,
                prefix=step.context,
                canvases=step.canvases,
                canvas=step.canvas,
                shares=self.shares,
            )

        return Opened(batches("train", recipe.run.seed), batches("valid", 0), {}, model)


Document = tuple[str, list[int]]


def split(documents: list[Document], held_back: float) -> tuple[list[Document], list[Document]]:
    """Which files to train on and which to hold back, decided by their names alone."""
    ordered = sorted(documents, key=lambda document: filters.stable_fraction(document[0]))
    enough = held_back * sum(len(ids) for _, ids in ordered)
    count = 0
    while count < len(ordered) - 1 and enough > 0:
        enough -= len(ordered[count][1])
        count += 1
    return ordered[count:], ordered[:count]


def _model(recipe: Recipe) -> Path:
    return recipe.model.start_from or EMBEDDED


def _folder(recipe: Recipe) -> Path:
    return recipe.run.out / "data"


def _vocabulary(model: Path) -> Vocabulary:
    """The vocabulary of a checkpoint. Raises TrainingError if it has nothing that ends a hole."""
    config = load_config(model)
    profile = load_profile(model, config)
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    end = profile.end or (tokenizer.id_to_token(config.eos_ids[0]) if config.eos_ids else None)
    bos = None if config.bos_id is None else tokenizer.id_to_token(config.bos_id)
    known = tokenizer.get_vocab()
    if profile.slack not in known or end not in known or bos not in known:
        raise TrainingError(
            f"{model} names no tokens that begin a text, end it and fill the rest of a hole; "
            'say "slack" and "end" in its infill.json'
        )
    return read_vocabulary(tokenizer, bos=bos, eos=end, slack=profile.slack)


def _told(train: list[Document], valid: list[Document], left_out: Counter[str]) -> Table:
    table = Table(title="what it trains on")
    table.add_column("")
    table.add_column("files", justify="right")
    table.add_column("tokens", justify="right")
    for name, part in (("training", train), ("held back", valid)):
        table.add_row(name, str(len(part)), f"{sum(len(ids) for _, ids in part):,}")
    for reason, count in left_out.most_common():
        table.add_row(f"left out: {reason}", str(count), "")
    return table
