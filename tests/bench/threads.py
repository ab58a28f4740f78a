"""How long a denoising pass takes with 1, 2, … threads of torch, beside whatever else runs.

python tests/bench/threads.py --threads 1,2 --count 10

"processor" is the time that all cores spent on a whole fill of 16 passes, prefix included: with one
thread it is what the fill takes on an idle machine. Every thread count takes its turn at each hole,
so that all meet the same load. Prints a table; the last line is JSON, times in milliseconds.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from engine.engine import InfillEngine
from engine.evaluation.holes import held_out_folders, population, read_sources
from engine.evaluation.metrics import percentile
from engine.evaluation.setup import describe_machine
from engine.types import InfillRequest, SamplingParams, fill_in_the_middle

PASSES = 16


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--threads", default=f"1,{os.cpu_count()}", metavar="N,N", help="(default: 1,all cores)")
    add("--count", type=int, default=10, metavar="N", help="holes (default: 10)")
    add("--model", metavar="PATH", help="a folder or a name of the hub (default: nano)")
    add("--source", type=Path, action="append", metavar="DIR", help="Python files")
    options = parser.parse_args(argv)
    counts = [int(word) for word in options.threads.split(",")]
    sources = read_sources(options.source or held_out_folders())
    # It does not stop before all passes are over, whatever the model makes of the hole.
    params = SamplingParams(max_steps=PASSES, confidence=0.0)
    engine = InfillEngine.load(options.model)
    denoise: dict[int, list[float]] = {count: [] for count in counts}
    prefill: dict[int, list[float]] = {count: [] for count in counts}
    processor: dict[int, list[float]] = {count: [] for count in counts}
    for number, cut in enumerate(population(sources, "line", 0)[: options.count + 1]):
        for count in counts:
            torch.set_num_threads(count)
            # No prefix cache: each thread count does the same work.
            cold = InfillEngine(engine.model, engine.tokenizer, engine.profile)
            template = fill_in_the_middle(cut.prefix, cut.suffix, engine.profile.hole)
            busy = time.process_time()
            infill = cold.fill(InfillRequest(template, params))
            busy = time.process_time() - busy
            if number:  # the first one warms up
                processor[count].append(busy * 1000)
                denoise[count].append(infill.timings["denoise"] / infill.steps)
                prefill[count].append(infill.timings["prefill"])
    result = {"machine": describe_machine(), "load_after": os.getloadavg()[0]}
    rows = {
        count: {
            "pass_p50": round(percentile(denoise[count], 0.5), 2),
            "pass_p95": round(percentile(denoise[count], 0.95), 2),
            "fill_processor_p50": round(percentile(processor[count], 0.5), 1),
            "prefill_p50": round(percentile(prefill[count], 0.5), 1),
            "prefill_p95": round(percentile(prefill[count], 0.95), 1),
        }
        for count in counts
    }
    machine = result["machine"]
    table = Table(title=f"{machine['cpu']}, {machine['cores']} cores, load {machine['load'][0]}")
    for column in ("threads", "pass p50", "p95", "processor, all", "prefill p50", "p95"):
        table.add_column(column)
    for count, row in rows.items():
        table.add_row(str(count), *(f"{value:g}" for value in row.values()))
    Console().print(table)
    print(json.dumps({**result, "ms": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
