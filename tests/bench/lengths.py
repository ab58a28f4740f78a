"""How a length is found where nothing in the model may end a hole: slack is forbidden.

    python tests/bench/lengths.py --model nano --kind line --count 100

At each hole of held-out code: a filling of one fixed length, one of every candidate length of which
the model's causal reading of it and of the text behind chooses, and one of the true length. A sum
of log p over a text is the smaller the longer it is; divided by a power of its length it is less
so (a power of 0: the sum, 1: the mean); beside that, the text behind can count half, as where mini
chooses. Prints what each gets letter for letter and how like the reference it is, how much of the
way from the fixed to the true length each choice goes, and its lead over the fixed one with an
interval (paired, bootstrap over the holes).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import numpy as np
from rich.console import Console
from rich.table import Table

from engine.choice.rank import Likelihood
from engine.engine import InfillEngine
from engine.evaluation.holes import Cut, held_out_folders, population, read_sources
from engine.evaluation.metrics import edit_similarity, proportion
from engine.evaluation.setup import progress_bar, screen, write_json
from engine.profile import Weights
from engine.types import Fixed, Hole, InfillRequest, Template, fill_in_the_middle

LENGTHS = (1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 32)
CONTEXT = 3_000
POWERS, BEHIND = (0.0, 0.5, 1.0), (1.0, 0.5)
"""Of the length that log p is divided by; and what the text behind the hole counts."""

CHOICES = {f"power {p:g}, behind {b:g}": (p, b) for p in POWERS for b in BEHIND}
FIXED, TRUE = "fixed", "true length"
WAYS = (FIXED, *CHOICES, TRUE)


def filled(engine: InfillEngine, cut: Cut, length: int) -> str:
    """A filling of so many tokens."""
    hole = Hole(max_tokens=length, fixed_length=True)
    template: Template = (Fixed(cut.prefix[-CONTEXT:]), hole, Fixed(cut.suffix[:CONTEXT]))
    return engine.fill(InfillRequest(template)).text


def chosen(engine: InfillEngine, cut: Cut, texts: Sequence[str]) -> dict[str, str]:
    """The best of them, by each way to choose."""
    template = fill_in_the_middle(cut.prefix[-CONTEXT:], cut.suffix[:CONTEXT])
    different = tuple(dict.fromkeys(texts))
    heard: list[Likelihood] = []

    def total(one: Likelihood, weights: Weights) -> float:
        heard.append(one)
        return one.after

    with mock.patch.object(Likelihood, "total", total):
        engine.fill(InfillRequest(template, choices=different))
    lengths = [max(1, len(engine.tokenizer.encode(text))) for text in different]
    best: dict[str, str] = {}
    for way, (power, behind) in CHOICES.items():
        scores = [
            (one.written or one.ended) / length**power + behind * one.after
            for one, length in zip(heard, lengths, strict=True)
        ]
        best[way] = different[int(np.argmax(scores))]
    return best


def true_length(engine: InfillEngine, cut: Cut) -> int:
    """Tokens of what stood there, with what was typed of the first one."""
    tokenizer, before = engine.tokenizer, cut.prefix[-CONTEXT:]
    heal = tokenizer.heal_blank if engine.profile.blanks else tokenizer.heal
    _, typed = heal(before)
    return max(1, len(tokenizer.encode(typed.decode() + cut.reference)))


def lead(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """The mean difference, and its interval of 95%."""
    differences = np.subtract(ours, theirs)
    drawn = np.random.default_rng(0).choice(differences, (4_000, len(differences))).mean(axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(differences.mean()), float(low), float(high)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--model", default="nano", help="its name or folder (default: nano)")
    add("--kind", default="line", help="of holes: line, rest, span (default: line)")
    add("--count", type=int, default=100, help="holes (default: 100)")
    add("--fixed", type=int, default=8, help="the one fixed length, in tokens (default: 8)")
    add("--source", type=Path, action="append", metavar="DIR", help="Python files")
    add("--out", type=Path, metavar="FILE", help="for everything, as JSON")
    options = parser.parse_args(argv)
    engine = InfillEngine.load(options.model)
    cuts = population(read_sources(options.source or held_out_folders()), options.kind, 0)
    found: list[dict[str, str | int]] = []
    with progress_bar(screen()) as bar:
        task = bar.add_task("holes", total=options.count, note="")
        for cut in cuts[: options.count]:
            texts = {length: filled(engine, cut, length) for length in LENGTHS}
            length = true_length(engine, cut)
            found.append(
                {
                    "reference": cut.reference,
                    "length": length,
                    FIXED: texts.get(options.fixed) or filled(engine, cut, options.fixed),
                    TRUE: texts.get(length) or filled(engine, cut, length),
                    **chosen(engine, cut, tuple(texts.values())),
                }
            )
            bar.advance(task)
    report(found, f"{options.model}, {options.kind}, {len(found)} holes, fixed {options.fixed}")
    if options.out:
        write_json(options.out, found)
    return 0


def report(found: Sequence[dict[str, str | int]], title: str) -> None:
    """The table, and how far each choice goes."""
    exact = {way: [float(one[way] == one["reference"]) for one in found] for way in WAYS}
    alike = {
        way: [edit_similarity(str(one[way]), str(one["reference"])) for one in found]
        for way in WAYS
    }
    table = Table("length", "letter for letter", "edit similarity", title=title)
    for way in WAYS:
        share = proportion([bool(one) for one in exact[way]])
        table.add_row(way, str(share), f"{np.mean(alike[way]):.3f}")
    console = Console()
    console.print(table)
    for name, figures in (("letter for letter", exact), ("edit similarity", alike)):
        fixed, true = (float(np.mean(figures[way])) for way in (FIXED, TRUE))
        for way in CHOICES:
            choice = float(np.mean(figures[way]))
            part = (choice - fixed) / (true - fixed) if true > fixed else float("nan")
            more, low, high = lead(figures[way], figures[FIXED])
            went = f"{part:.0%} of the way, {more:+.3f} ({low:+.3f} to {high:+.3f})"
            console.print(f"{name}, {way}: {went}")


if __name__ == "__main__":
    sys.exit(main())
