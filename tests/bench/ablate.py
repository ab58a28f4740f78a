"""Which choice of the objective trains the better model: one change at a time, all else the same.

python tests/bench/ablate.py engine/training/nano.toml --data CORPUS --out DIR --steps 400

Every variant begins with the same weights (the config's, or --start-from), sees the same batches in
the same order and makes the same number of steps. Then its losses on held-back files are compared,
and what its real sampler fills into one-line holes of the same validation text. An interrupted
comparison goes on where it was: each variant is a run of its own in DIR.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from sweep import validation_sources
from torch import Tensor

import engine.canvas_run
from engine.diffusion.denoiser import CanvasDenoiser, Known, Read
from engine.engine import InfillEngine
from engine.errors import EngineError
from engine.evaluation.answers import Denoised
from engine.evaluation.holes import KINDS, Cut, population
from engine.evaluation.journal import Record
from engine.evaluation.metrics import Estimate, paired_difference
from engine.evaluation.run import judge, summarize
from engine.training.journal import LOSSES, read_records
from engine.training.recipe import Recipe, read_recipe
from engine.training.train import run
from engine.types import SamplingParams

SCORES = ("exact", "token_accuracy", "edit_similarity", "empty", "passes")


@dataclass(frozen=True)
class Variant:
    """What differs from the base, by table and key of the config; passes: the sampler's most."""

    name: str
    tables: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    passes: int | None = None

    @property
    def clamps(self) -> str:
        return self.tables.get("objective", {}).get("clamps", "token")


def _objective(name: str, passes: int | None = None, **values: Any) -> Variant:
    return Variant(name, {"objective": values}, passes)


VARIANTS = (
    Variant("base"),
    _objective("clamps as believed", clamps="own"),
    _objective("clamps not at all", clamps="zero"),
    _objective("loss on noise only", loss_on="corrupted"),
    _objective("slack counts 0", later_slack=0.0),
    _objective("slack counts 0.3", later_slack=0.3),
    _objective("slack counts 1", later_slack=1.0),
    _objective("2 own passes", own_passes=2),
    _objective("4 own passes", own_passes=4),
    Variant("no holes of the syntax", {"data": {"shares": {}}}),
    Variant("base at 8 passes", passes=8),
    _objective("4 own passes at 8 passes", own_passes=4, passes=8),
)


class Conditioned(CanvasDenoiser):
    """A model behind its prefix whose clamps condition as they did in a variant's training."""

    clamps = "token"

    def ask(self, ids: Tensor, soft: Tensor | None, slots: Tensor, known: Known) -> Read:
        asked = super().ask(ids, soft, torch.arange(len(ids), device=ids.device), known)

        def read() -> tuple[Tensor, Tensor | None]:
            logits, expected = asked()
            self._clamped = torch.ones_like(ids, dtype=torch.bool).index_fill(0, slots, False)
            self._others = logits[self._clamped]
            return logits[slots], expected

        return read

    def condition(self, ids: Tensor, probs: Tensor, slots: Tensor) -> Tensor:
        soft = super().condition(ids, probs, slots)
        if self.clamps == "zero":
            soft[self._clamped] = 0
        elif self.clamps == "own":
            soft[self._clamped] = self.model.soft_embed(self._others.softmax(-1))
        return soft


def recipe_of(variant: Variant, options: argparse.Namespace) -> Recipe:
    """The recipe of a variant. Raises TrainingError."""
    # A base and another number of passes of it are one run.
    trained = variant.name.removesuffix(" at 8 passes")
    out = options.out / trained.replace(" ", "-")
    given: dict[str, dict[str, Any]] = {
        "run": {
            "out": out,
            "steps": options.steps,
            "minutes": 1e6,
            "processes": options.processes,
            "compile": options.compile,
        },
        "data": {"folder": options.data},
    }
    if options.start_from:
        given["model"] = {"start_from": options.start_from}
    for table, values in variant.tables.items():
        given[table] = {**given.get(table, {}), **values}
    return read_recipe(options.config, given)


def filled(variant: Variant, model: Path, options: argparse.Namespace) -> dict[str, list[Record]]:
    """What the sampler makes of the holes of each kind, the same ones for every variant."""
    loaded = InfillEngine.load(str(model))
    sources = validation_sources(options.data, loaded.tokenizer)
    Conditioned.clamps = variant.clamps
    plain, engine.canvas_run.CanvasDenoiser = engine.canvas_run.CanvasDenoiser, Conditioned
    try:
        answer = Denoised(loaded, SamplingParams(max_steps=variant.passes), options.seed)
        found: dict[str, list[Record]] = {}
        for kind in options.kinds:
            cuts: list[Cut] = population(sources, kind, options.seed)[: options.count]
            found[kind] = [
                judge(answer(cut.prefix, cut.suffix), cut, loaded.tokenizer.encode) for cut in cuts
            ]
        return found
    finally:
        engine.canvas_run.CanvasDenoiser = plain


def result_of(variant: Variant, options: argparse.Namespace) -> dict[str, Any] | None:
    """Trains and measures a variant, or reads what was measured; None if it was interrupted."""
    recipe = recipe_of(variant, options)
    measured = options.out / f"{variant.name.replace(' ', '-')}.json"
    asked = {"steps": options.steps, "count": options.count, "kinds": list(options.kinds)}
    if measured.is_file():
        known: dict[str, Any] = json.loads(measured.read_text(encoding="utf-8"))
        if known["asked"] == asked:
            return known
    recipe.data.prepare(recipe)
    if run(recipe):
        return None
    last = [r for r in read_records(recipe.run.out / "log.jsonl") if "valid_causal" in r][-1]
    result = {
        "asked": asked,
        "losses": {key: last[f"valid_{key}"] for key in LOSSES},
        "fills": filled(variant, recipe.run.out / "model", options),
    }
    measured.write_text(json.dumps(result) + "\n", encoding="utf-8")
    return result


def tables(results: dict[str, dict[str, Any]], kinds: Sequence[str]) -> list[Table]:
    """Losses and fills; token accuracy also as the difference to the base, 95%."""
    losses = Table(title="nats on held-back files")
    for column in ("", *LOSSES.values()):
        losses.add_column(column, justify="right")
    for name, result in results.items():
        losses.add_row(name, *(f"{value:.3f}" for value in result["losses"].values()))
    shown = [losses]
    for kind in kinds:
        table = Table(title=f"holes: {kind}")
        for column in ("", *SCORES, "accuracy − base, 95%"):
            table.add_column(column.replace("_", " "), justify="right")
        for name, result in results.items():
            records = result["fills"][kind]
            summary = summarize(records)
            base, own = (
                [r["token_accuracy"] for r in each["fills"][kind]]
                for each in (results["base"], result)
            )
            difference = paired_difference(own, base)
            cells = [str(Estimate(**summary[score])) for score in SCORES]
            table.add_row(name, *cells, f"{difference.low:+.3f} … {difference.high:+.3f}")
        shown.append(table)
    return shown


def build_parser() -> argparse.ArgumentParser:
    """All flags."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("config", type=Path, metavar="CONFIG.toml")
    add("--data", type=Path, required=True, metavar="DIR", help="a corpus folder")
    add("--out", type=Path, required=True, metavar="DIR", help="where the runs work")
    add("--steps", type=int, default=400, metavar="N", help="of each variant (default: 400)")
    add("--start-from", type=Path, metavar="DIR", help="a checkpoint that all begin with")
    add("--processes", type=int, default=1, metavar="N")
    add("--compile", action="store_true", help="worth it from some hundred steps on")
    add("--count", type=int, default=60, metavar="N", help="holes of each kind (default: 60)")
    kinds: Callable[[str], tuple[str, ...]] = lambda text: tuple(text.split(","))  # noqa: E731
    add("--kinds", type=kinds, default=("line", "rest"), help=f"of {','.join(KINDS)}")
    add("--only", metavar="NAMES", help="of these variants, beside the base; with commas")
    add("--seed", type=int, default=0, metavar="N", help="of the holes")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    options = build_parser().parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    only = set(options.only.split(",")) | {"base"} if options.only else {v.name for v in VARIANTS}
    unknown = only - {v.name for v in VARIANTS}
    if unknown:
        print(f"ablate: there is no variant {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    console, results = Console(width=140), dict[str, dict[str, Any]]()
    try:
        for variant in (v for v in VARIANTS if v.name in only):
            console.print(f"[bold]{variant.name}[/]")
            result = result_of(variant, options)
            if result is None:
                return 130
            results[variant.name] = result
            torch.set_num_threads(1)
    except EngineError as error:
        print(f"ablate: {error}", file=sys.stderr)
        return 2
    for table in tables(results, options.kinds):
        console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
