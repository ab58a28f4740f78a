"""How long a fill takes, warm and from nothing, and how soon the language server answers.

python tests/bench/fill_latency.py --count 40

    in process       fills in this process, each at a place of its own
    processor        what the processor worked for them: about what they take on an idle machine
    one pass         a denoising pass in them
    service          the same through the engine service, as an editor has it
    service, again   the same place a second time: the prefix is known, as while typing
    automatic        with the deadline of a suggestion that nobody asked for
    first fill       `diffgemma-lsp fill` with no engine running, from its start to its end
    initialize       from the start of the language server to its answer

Fills are of at most 32 tokens. The files may be in the system's cache, but no process is warm in
the last two. Prints a table; the last line is JSON, times in milliseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from diffgemma_lsp.commands.streaming import follow
from diffgemma_lsp.engine_client import EngineClient
from diffgemma_lsp.engine_process import EngineOptions
from engine.engine import InfillEngine
from engine.errors import DeadlineExceeded
from engine.evaluation.holes import Cut, held_out_folders, population, read_sources
from engine.evaluation.metrics import percentile
from engine.evaluation.setup import describe_machine
from engine.paths import RUNTIME_DIR_VARIABLE
from engine.types import InfillRequest, fill_in_the_middle

MAX_TOKENS = 32
AUTOMATIC_S = 0.55
WARM_UP = 3  # fills before the clock counts


def request(cut: Cut, seed: int = 0, budget_s: float | None = None) -> InfillRequest:
    """A fill of at most MAX_TOKENS at a hole."""
    template = fill_in_the_middle(cut.prefix, cut.suffix, MAX_TOKENS)
    return InfillRequest(template, budget_s=budget_s, seed=seed)


def in_process(model: str | None, cuts: Sequence[Cut]) -> dict[str, list[float]]:
    """Milliseconds of each fill, of the processor's work for it, and of a denoising pass in it."""
    engine = InfillEngine.load(model)
    times: dict[str, list[float]] = {"in process": [], "processor": [], "one pass": []}
    for number, cut in enumerate(cuts):
        began, worked = time.perf_counter(), time.process_time()
        infill = engine.fill(request(cut))
        if number >= WARM_UP:
            times["in process"].append((time.perf_counter() - began) * 1000)
            times["processor"].append((time.process_time() - worked) * 1000)
            times["one pass"].append(infill.timings["denoise"] / infill.steps)
    return times


async def service(model: str | None, cuts: Sequence[Cut]) -> tuple[dict[str, list[float]], int]:
    """Milliseconds by kind of fill, and how many automatic ones came too late for an answer."""
    late = 0
    times: dict[str, list[float]] = {"service": [], "service, again": [], "automatic": []}
    with tempfile.TemporaryDirectory(prefix="bench") as folder:
        client = EngineClient(EngineOptions(model=model, runtime_dir=Path(folder) / "run"))
        try:
            for number, cut in enumerate(cuts):
                for name, one in (
                    ("service", request(cut)),
                    ("service, again", request(cut, seed=1)),
                ):
                    began = time.perf_counter()
                    await follow(client, one)
                    if number >= WARM_UP:
                        times[name].append((time.perf_counter() - began) * 1000)
            # Backwards, so that the prefix is not that of the fill before.
            for cut in reversed(cuts):
                began = time.perf_counter()
                try:
                    await follow(client, request(cut, budget_s=AUTOMATIC_S))
                except DeadlineExceeded:
                    late += 1
                times["automatic"].append((time.perf_counter() - began) * 1000)
        finally:
            await client.stop()
            await client.aclose()
    return times, late


@contextmanager
def fresh_environment():
    """An environment in which no engine runs, and none is left behind."""
    with tempfile.TemporaryDirectory(prefix="bench") as folder:
        environment = {**os.environ, RUNTIME_DIR_VARIABLE: f"{folder}/run"}
        try:
            yield environment
        finally:
            command = [sys.executable, "-m", "diffgemma_lsp", "engine", "stop"]
            subprocess.run(command, env=environment, capture_output=True, check=False)


def first_fill(cut: Cut) -> float:
    """Milliseconds from the start of `diffgemma-lsp fill` to its end, with the embedded model."""
    line = cut.prefix.count("\n") + 1
    column = len(cut.prefix) - (cut.prefix.rfind("\n") + 1) + 1
    command = [sys.executable, "-m", "diffgemma_lsp", "fill", "-", "--at", f"{line}:{column}"]
    command += ["--max-tokens", str(MAX_TOKENS)]
    with fresh_environment() as environment:
        began = time.perf_counter()
        text = (cut.prefix + cut.suffix).encode()
        subprocess.run(command, env=environment, input=text, capture_output=True, check=True)
        return (time.perf_counter() - began) * 1000


def initialize() -> float:
    """Milliseconds from the start of the language server to its answer to `initialize`."""
    params = {"processId": os.getpid(), "rootUri": None, "capabilities": {}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
    body = json.dumps(message).encode()
    with fresh_environment() as environment:
        began = time.perf_counter()
        server = subprocess.Popen(
            [sys.executable, "-m", "diffgemma_lsp", "--stdio"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            assert server.stdin is not None
            assert server.stdout is not None
            server.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
            server.stdin.flush()
            if not server.stdout.readline().startswith(b"Content-Length:"):
                raise RuntimeError("the language server did not answer")
            return (time.perf_counter() - began) * 1000
        finally:
            server.kill()
            server.wait()


def summary(times: Sequence[float]) -> dict[str, float]:
    """Percentiles in milliseconds."""
    return {
        "n": len(times),
        "p50": round(percentile(times, 0.5), 1),
        "p95": round(percentile(times, 0.95), 1),
        "max": round(max(times, default=float("nan")), 1),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--count", type=int, default=40, metavar="N", help="fills of each kind (default: 40)")
    add("--starts", type=int, default=5, metavar="N", help="starts of each kind (default: 5)")
    add("--seed", type=int, default=0, metavar="N", help="of the places (default: 0)")
    add("--model", metavar="PATH", help="for the warm fills (default: nano)")
    add("--source", type=Path, action="append", metavar="DIR", help="Python files")
    options = parser.parse_args(argv)
    sources = read_sources(options.source or held_out_folders())
    cuts = population(sources, "line", options.seed)[: options.count + WARM_UP]
    load_before = os.getloadavg()[0]
    starts: dict[str, list[float]] = {
        "first fill": [first_fill(cut) for cut in cuts[: options.starts]],
        "initialize": [initialize() for _ in range(options.starts)],
    }
    warm, late = asyncio.run(service(options.model, cuts))
    everything = {**in_process(options.model, cuts), **warm, **starts}
    result: dict[str, Any] = {
        "machine": describe_machine(),  # with the threads that the engine has chosen
        "load_before": load_before,
        "ms": {name: summary(times) for name, times in everything.items()},
        "automatic_too_late": late,
    }
    machine = result["machine"]
    table = Table(
        title=f"{machine['cpu']}, {machine['cores']} cores, torch {machine['torch']} with "
        f"{machine['threads']} threads, load {load_before:.1f}"
    )
    for column in ("milliseconds", "n", "p50", "p95", "max"):
        table.add_column(column)
    for name, row in result["ms"].items():
        table.add_row(name, *(f"{value:g}" for value in row.values()))
    Console().print(table)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
