"""Does the model know when it is right? Calibration, a mapping for the profile, and the gate.

diffgemma-lsp eval calibration --kinds line,rest --count 500 --out results/calibration.json

Right means that the hole holds exactly what was there, white space at its end aside. The files are
parted in two by their names: on one half the mapping is fitted (`Calibration` in a model's
profile), on the other it is judged, before and after. --write puts it into the infill.json of the
model, from where the engine applies it to what results and frames report, and so to the server's
`min_confidence`.

Written beside the JSON: FILE-reliability.svg, FILE-gate.svg. An interrupted run goes on where it
was: its log lies beside the result (.jsonl).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from engine.charts import Chart, Line, Point
from engine.errors import BadRequest
from engine.evaluation.answers import Denoised
from engine.evaluation.fit import BINS, bins, calibration_error, fit, gate
from engine.evaluation.holes import Cut, drawn
from engine.evaluation.journal import Record
from engine.evaluation.metrics import Estimate, interval, proportion
from engine.evaluation.run import evaluate
from engine.evaluation.setup import (
    add_holes,
    command,
    describe_machine,
    describe_model,
    held_out,
    load_engine,
    model_of,
    open_journal,
    sampling_of,
    share_of,
    write_json,
    write_result,
)
from engine.profile import Calibration
from engine.weights.locate import locate

RAW = "raw"
THRESHOLDS = tuple(share / 20 for share in range(20))
SHOWN_THRESHOLDS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7)


def is_for_fitting(file: str) -> bool:
    """Which half a file is in. Its name decides, so that it is the same half in every run."""
    return hashlib.sha256(file.encode()).digest()[0] % 2 == 0


AS_IT_IS = Calibration(scale=1.0, shift=0.0)
"""The calibration that changes nothing."""


def report(found: Mapping[str, Sequence[tuple[Cut, Record]]]) -> dict[str, Any]:
    """The result. found: by kind, each hole with what became of it.

    Raises ValueError if a half has no right or no wrong answers.
    """
    pairs = [pair for kind in found for pair in found[kind]]
    fitting = [record for cut, record in pairs if is_for_fitting(cut.source.name)]
    judged = [record for cut, record in pairs if not is_for_fitting(cut.source.name)]
    calibration = fit(*_columns(fitting))
    stated, right = _columns(judged)
    if not stated:
        raise ValueError("all holes are of files for fitting: ask for more holes")
    mapped = [calibration(one) for one in stated]
    by_kind: dict[str, Any] = {}
    for kind, own in found.items():
        records = [record for cut, record in own if not is_for_fitting(cut.source.name)]
        if records:
            by_kind[kind] = _judge(*_columns(records), calibration)
    return {
        "calibration": asdict(calibration),
        "fitted_on": len(fitting),
        "all": _judge(stated, right, calibration),
        "kinds": by_kind,
        "gate": gate(mapped, right, THRESHOLDS),
        "bins": {
            "before": [asdict(one) for one in bins(stated, right)],
            "after": [asdict(one) for one in bins(mapped, right)],
        },
    }


def _judge(stated: list[float], right: list[bool], calibration: Calibration) -> dict[str, Any]:
    mapped = [calibration(one) for one in stated]
    return {
        "right": asdict(proportion(right)),
        "error_before": asdict(calibration_error(stated, right)),
        "error_after": asdict(calibration_error(mapped, right)),
    }


def _columns(records: Sequence[Record]) -> tuple[list[float], list[bool]]:
    known = [record for record in records if record["confidence"] is not None]
    return [record["confidence"] for record in known], [record["exact"] for record in known]


def pictures(result: dict[str, Any]) -> dict[str, Chart]:
    """The charts by the end of their file's name."""
    lines = [
        Line(name, [_point(one["stated"], one["right"]) for one in result["bins"][part]])
        for name, part in (("as the model says", "before"), ("mapped", "after"))
    ]
    perfect = Line("perfect", [Point(0, 0, 0, 0), Point(1, 1, 1, 1)], dashed=True)
    rows = [row for row in result["gate"] if row["precision"]["n"]]
    gates = [
        Line(name, [_point(row["min_confidence"], row[name]) for row in rows])
        for name in ("precision", "recall")
    ]
    return {
        "reliability": Chart(
            "Stated and kept confidence", "confidence", "share that is right", [*lines, perfect]
        ),
        "gate": Chart("What min_confidence shows", "min_confidence", "share", gates),
    }


def _point(x: float, estimate: dict[str, float]) -> Point:
    return Point(x, estimate["value"], estimate["low"], estimate["high"])


def tables(result: dict[str, Any]) -> list[Table]:
    """The result for people."""
    errors = Table(title=f"Expected calibration error, {BINS} bins, files not fitted on")
    for column in ("", "holes", "right", "before", "after", "95%"):
        errors.add_column(column)
    for name, one in {"all": result["all"], **result["kinds"]}.items():
        right, before, after = (
            Estimate(**one[key]) for key in ("right", "error_before", "error_after")
        )
        cells = (right.n, right, before, after, interval(after.low, after.high))
        errors.add_row(name, *map(str, cells))
    gates = Table(title="min_confidence, after the mapping")
    for column in ("at least", "shown", "precision", "recall"):
        gates.add_column(column)
    for row in result["gate"]:
        if row["min_confidence"] in SHOWN_THRESHOLDS:
            cells = (str(Estimate(**row[key])) for key in ("shown", "precision", "recall"))
            gates.add_row(f"{row['min_confidence']:g}", *cells)
    return [errors, gates]


def write_profile(folder: Path, calibration: dict[str, float]) -> Path:
    """Puts a mapping into the profile of the model in `folder`. Raises BadRequest without one."""
    path = folder / "infill.json"
    if not path.is_file():
        raise BadRequest(f"{path} does not exist: write a profile for this model first")
    profile = json.loads(path.read_text(encoding="utf-8"))
    profile["calibration"] = {name: round(value, 4) for name, value in calibration.items()}
    write_json(path, profile)
    return path


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Evaluates, draws, writes and returns the result."""
    sources, described = held_out(options)
    engine = load_engine(options)
    # What is fitted and judged is what the model says by itself.
    engine.profile = replace(engine.profile, calibration=AS_IT_IS)
    settings = {
        "model": describe_model(engine, options),
        "seed": options.seed,
        **described,
    }
    answerers = {RAW: Denoised(engine, sampling_of(options), options.seed)}
    found: dict[str, list[tuple[Cut, Record]]] = {}
    with open_journal(options, settings) as journal:
        for kind in options.kinds:
            cuts = share_of(drawn(sources, kind, options.seed, options.count), options)
            encode = engine.tokenizer.encode
            records = evaluate(cuts, answerers, {RAW: RAW}, encode, journal, console)[RAW]
            found[kind] = list(zip(cuts, records, strict=True))
    result: dict[str, Any] = {
        "settings": {**settings, "count": options.count, "kinds": options.kinds},
        **report(found),
        "machine": describe_machine(),
    }
    for one in tables(result):
        console.print(one)
    write_result(options, result, console, pictures(result))
    if options.write:
        where = write_profile(locate(model_of(options)), result["calibration"])
        console.print(f"The mapping is in {where}", highlight=False)
    return result


def own_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this evaluation alone."""
    add = parser.add_argument
    add_holes(parser, 300, ("line", "rest"))
    add("--write", action="store_true", help="put the mapping into the model's infill.json")


main = command("calibration", __doc__, run, own_flags)


if __name__ == "__main__":
    sys.exit(main())
