"""Is a model's answer better when it may read the right piece of another file?

diffgemma-lsp eval neighbours --source PACKAGE --count 60 --out results/neighbours.json

The holes are lines of code that need a name which the file's own text in front of the hole does
not have, and which a file of the same package that this one imports defines. Each is answered
three times: alone; with the lines around those definitions as a document of its own; and with the
same under a comment with their path. Somebody who knows the answer chose the pieces, so this is
the most that any choice of neighbours can do for the model. An interrupted run goes on where it
was: its log lies beside the result (.jsonl).
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rich.console import Console
from rich.table import Table

from engine.engine import InfillEngine
from engine.evaluation.answers import Answer, Denoised
from engine.evaluation.definitions import Atlas
from engine.evaluation.holes import Cut, Source, population
from engine.evaluation.journal import Journal, Record
from engine.evaluation.metrics import (
    Estimate,
    edit_similarity,
    exact,
    interval,
    mean,
    paired_difference,
    proportion,
    token_accuracy,
)
from engine.evaluation.setup import (
    add_source,
    command,
    describe_machine,
    describe_model,
    held_out,
    load_engine,
    number,
    open_journal,
    progress_bar,
    sampling_of,
    share_of,
    write_result,
)
from engine.profile import Profile
from engine.types import Snippet

ALONE, SEPARATED, TITLED = "alone", "separated", "titled"
ARMS = (ALONE, SEPARATED, TITLED)
SCORES = ("has_name", "token_accuracy", "edit_similarity", "exact")

PIECES = 4
"""The most definitions that are shown for one hole."""

ABOVE, BELOW = 4, 60
"""Lines of a piece before its definition, and from it on."""

SEEN_SUFFIX = 400
"""Characters behind the hole in which the name may not stand either; a canvas shows them."""

_WORD = re.compile(r"[^\W\d]\w{3,}")


@dataclass(frozen=True, slots=True)
class Need:
    """A hole, the names that it needs of other files, and where those are defined."""

    cut: Cut
    names: tuple[str, ...]
    context: tuple[Snippet, ...]


def needs(sources: Sequence[Source], seed: int) -> Iterator[Need]:
    """The holes of `sources` that need a name of an imported file, in an order of the seed."""
    atlas = Atlas(sources)
    for cut in population(sources, "line", seed):
        if atlas.is_import(cut.source, cut.prefix.count("\n")):
            continue  # it says itself which file it needs
        seen = set(_WORD.findall(cut.prefix + "\n" + cut.suffix[:SEEN_SUFFIX]))
        missing = [w for w in dict.fromkeys(_WORD.findall(cut.reference)) if w not in seen]
        places = {word: place for word in missing if (place := atlas.defined(word, cut.source))}
        if places:
            pieces = dict.fromkeys(_piece(*place) for place in places.values())
            yield Need(cut, tuple(places), tuple(pieces)[:PIECES])


def _piece(source: Source, line: int) -> Snippet:
    """The lines around a definition."""
    lines = source.text.splitlines(keepends=True)
    return Snippet(source.name, "".join(lines[max(0, line - ABOVE) : line + BELOW]))


def arm_profile(profile: Profile, arm: str) -> Profile:
    """The profile with which an arm is answered."""
    separator = (profile.separator or "<bos>") if arm == SEPARATED else None
    return replace(profile, neighbours=arm != ALONE, separator=separator)


def judge(answer: Answer, need: Need, engine: InfillEngine) -> Record:
    """All that is to know of one answer. has_name: it has one of the names that were needed."""
    reference, text = need.cut.reference.rstrip(), answer.text.rstrip()
    encode = engine.tokenizer.encode
    return {
        **asdict(answer),
        "has_name": not set(need.names).isdisjoint(_WORD.findall(text)),
        "token_accuracy": token_accuracy(encode(text), encode(reference)),
        "edit_similarity": edit_similarity(text, reference),
        "exact": exact(text, reference),
    }


def report(answers: Sequence[Record]) -> dict[str, Any]:
    """The result: means by arm, and what the context adds on the same holes.

    ahead: the 95% interval of the difference lies above 0.
    """
    arms = {arm: [one[arm] for one in answers] for arm in ARMS}
    return {
        "holes": len(answers),
        "arms": {
            arm: {
                "has_name": asdict(proportion([r["has_name"] for r in records])),
                "token_accuracy": asdict(mean([r["token_accuracy"] for r in records])),
                "edit_similarity": asdict(mean([r["edit_similarity"] for r in records])),
                "exact": asdict(proportion([r["exact"] for r in records])),
            }
            for arm, records in arms.items()
        },
        "differences": {
            f"{arm} - {ALONE}": {s: _difference(arms[arm], arms[ALONE], s) for s in SCORES}
            for arm in ARMS[1:]
        },
    }


def table(title: str, result: dict[str, Any]) -> Table:
    """A result for people."""
    shown = Table(title=f"{result['holes']} holes, {title}")
    for column in ("", *SCORES):
        shown.add_column(column.replace("_", " "))
    for arm, scores in result["arms"].items():
        shown.add_row(arm, *(str(Estimate(**scores[s])) for s in SCORES))
    for name, scores in result["differences"].items():
        cells = [scores[s] for s in SCORES]
        shown.add_row(name, *(interval(c["low"], c["high"], "+.3f") for c in cells))
    return shown


def evaluate(
    engine: InfillEngine,
    chosen: Sequence[Need],
    journal: Journal,
    options: argparse.Namespace,
    console: Console,
) -> list[Record]:
    """Has every hole answered in each arm that the journal does not know yet."""
    own = engine.profile
    answerer = Denoised(engine, sampling_of(options), options.seed)
    with progress_bar(console) as progress:
        task = progress.add_task("holes", total=len(chosen), note="")
        for need in chosen:
            cut = need.cut
            if cut.key not in journal.records:
                tokens = len(engine.tokenizer.encode(cut.prefix))
                record: Record = {"reference": cut.reference, "prefix_tokens": tokens}
                for arm in ARMS:
                    engine.profile = arm_profile(own, arm)
                    answer = answerer(cut.prefix, cut.suffix, context=need.context)
                    record[arm] = judge(answer, need, engine)
                engine.profile = own
                journal.add(cut.key, record)
            done = [journal.records[n.cut.key] for n in chosen if n.cut.key in journal.records]
            hits = [sum(one[arm]["has_name"] for one in done) for arm in ARMS]
            progress.update(task, advance=1, note="names " + "/".join(map(str, hits)))
    return [journal.records[need.cut.key] for need in chosen]


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Evaluates; writes and returns the result."""
    sources, described = held_out(options)
    every = list(needs(sources, options.seed))
    engine = load_engine(options)
    settings = {
        "model": describe_model(engine, options),
        "seed": options.seed,
        **described,
    }
    with open_journal(options, settings) as journal:
        mine = share_of(every[: options.count], options)
        answers = evaluate(engine, mine, journal, options, console)
    half = engine.profile.context // 2
    parts = {
        "all": answers,
        # The context costs these nothing: they have room for it.
        "short": [one for one in answers if one["prefix_tokens"] < half],
        "long": [one for one in answers if one["prefix_tokens"] >= half],
    }
    results = {name: report(part) for name, part in parts.items()}
    for name, result in results.items():
        console.print(table(f"prefixes: {name}", result))
    result = {
        "settings": {**settings, "count": options.count, "of": len(every)},
        "prefixes": results,
        "machine": describe_machine(),
    }
    write_result(options, result, console)
    return result


def _difference(records: Sequence[Record], others: Sequence[Record], score: str) -> Record:
    a, b = ([float(record[score]) for record in side] for side in (records, others))
    difference = paired_difference(a, b)
    return {**asdict(difference), "ahead": difference.low > 0}


def own_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this evaluation alone."""
    add = parser.add_argument
    add("--count", type=number, default=200, metavar="N", help="holes (default: 200)")
    add_source(parser, "the folder of a held-out package")


main = command("neighbours", __doc__, run, own_flags)


if __name__ == "__main__":
    sys.exit(main())
