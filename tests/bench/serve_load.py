"""How `diffgemma-lsp serve` bears many clients at once, half of whose requests are given up.

python tests/bench/serve_load.py --minutes 10 --clients 50 --per-minute 1000

Each client has a document of its own, whose names nobody else has, and asks in turn through each
of the APIs, at times of its own; half of the requests are hung up on after a part of the budget.
The server and its engine are started for it, and are the same processes as a user's. Says:

    answered, refused, lost   of those that were waited for; refused is an error in words
    overshoot                 from the budget's end to the answer or refusal, as the client sees it
    pass                      of the engine with nothing else to do
    memory                    resident, of server and engine, by fifths of the time; its growth is
                              that from the second to the last
    foreign                   answers with a name of another client's document

Prints a table; the last line is JSON. Ends with 1 if a request was lost, an answer had a foreign
name or none an own one, memory grew by more than 5%, or p99 of the overshoot is more than two
passes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from engine.evaluation.metrics import percentile
from engine.evaluation.setup import describe_machine
from engine.paths import RUNTIME_DIR_VARIABLE

MIB = 2**20
LOST_S = 30.0  # an answer that is not there so long after its deadline is lost
WORDS = re.findall(
    r"\w+",
    """
    tiger horse sheep goat mouse rabbit camel zebra otter eagle apple banana cherry lemon melon
    olive peach pear plum grape piano guitar violin drum flute trumpet copper silver iron nickel
    zinc carbon river ocean lake forest desert island mountain valley winter summer autumn spring
    bread butter cheese coffee sugar pepper salt honey garden window kitchen ladder hammer needle
    candle basket bottle
    """,
)
"""Common enough that a small model can spell them, and rare in code."""

DOCUMENT = """
def total_{0}(values_{0}, rate_{0}):
    result_{0} = 0
    for value_{0} in values_{0}:
        result_{0} = result_{0} + value_{0} * rate_{0}
    return result_{0}


class Store:
    def __init__(self, limit_{0}, items_{0}):
        self.limit_{0} = limit_{0}
        self.items_{0} = list(items_{0})

    def first_{0}(self):
        if len(self.items_{0}) > self.limit_{0}:
            return None
        return self.items_{0}[0]
"""

Body = dict[str, Any]


def infill(prefix: str, suffix: str) -> Body:
    """As llama.vim asks."""
    return {"input_prefix": prefix, "prompt": "", "input_suffix": suffix}


def completion(prefix: str, suffix: str) -> Body:
    """As minuet asks, or Mistral's client."""
    return {"model": "any", "prompt": prefix, "suffix": suffix}


def generate(prefix: str, suffix: str) -> Body:
    """As Ollama's client asks."""
    return {**completion(prefix, suffix), "stream": False}


APIS: tuple[tuple[str, Callable[[str, str], Body], Callable[[Body], str]], ...] = (
    ("/infill", infill, lambda reply: reply["content"]),
    ("/v1/completions", completion, lambda reply: reply["choices"][0]["text"]),
    (
        "/v1/fim/completions",
        completion,
        lambda reply: reply["choices"][0]["message"]["content"],
    ),
    ("/api/generate", generate, lambda reply: reply["response"]),
)


@dataclass
class Found:
    """What came of all requests.

    late: seconds from the budget's end to each answer or refusal. memory: MiB, once a second.
    """

    statuses: Counter[str] = field(default_factory=Counter[str])
    late: list[float] = field(default_factory=list[float])
    seconds: list[float] = field(default_factory=list[float])
    empty: int = 0
    own: int = 0
    foreign: list[str] = field(default_factory=list[str])
    memory: dict[str, list[float]] = field(default_factory=dict[str, list[float]])


class Client:
    """One of them. every_s: how much time lies between its requests, on average."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        number: int,
        marks: Sequence[str],
        budget_s: float,
        every_s: float,
        found: Found,
    ) -> None:
        self._http, self._marks, self._found = http, marks, found
        self._budget_s, self._every_s = budget_s, every_s
        self._mark, self._rng = marks[number], random.Random(number)
        self._text = DOCUMENT.format(self._mark)
        self._asked = number

    async def work(self, until: float) -> None:
        """Asks until that time; several of its requests may be under way."""
        asking: set[asyncio.Task[None]] = set()
        while True:
            wait_s = self._rng.expovariate(1 / self._every_s)
            if time.monotonic() + wait_s > until:
                break
            await asyncio.sleep(wait_s)
            task = asyncio.create_task(self._ask())
            asking.add(task)
            task.add_done_callback(asking.discard)
        await asyncio.gather(*asking)

    async def _ask(self) -> None:
        self._asked += 1
        path, body, text_of = APIS[self._asked % len(APIS)]
        words = [found.end() for found in re.finditer(r"[ (.]", self._text)]
        at = self._rng.choice(words)
        end = self._text.index("\n", at)
        sent = body(self._text[:at], self._text[end:])
        began = time.monotonic()
        request = self._http.post(path, json=sent, timeout=self._budget_s + LOST_S)
        try:
            if self._asked // len(APIS) % 2:
                given_up_s = self._rng.uniform(0.02, 0.9) * self._budget_s
                reply = await asyncio.wait_for(request, given_up_s)
            else:
                reply = await request
        except TimeoutError:
            self._found.statuses["given up"] += 1
            return
        except httpx.HTTPError as error:
            self._found.statuses[f"lost: {type(error).__name__}"] += 1
            return
        took_s = time.monotonic() - began
        self._found.late.append(max(0.0, took_s - self._budget_s))
        if reply.status_code != 200:
            said = reply.json()["error"]
            words_said = said if isinstance(said, str) else said["message"]
            self._found.statuses[f"{reply.status_code} {words_said}"] += 1
            return
        self._found.statuses["answered"] += 1
        self._found.seconds.append(took_s)
        self._look_at(text_of(reply.json()))

    def _look_at(self, text: str) -> None:
        self._found.empty += not text
        words = {*re.split(r"[^a-z]+", text)}
        self._found.own += self._mark in words
        self._found.foreign += sorted(words & {*self._marks} - {self._mark})


async def watch(found: Found, processes: dict[str, int]) -> None:
    """Notes the memory of these processes once a second, in MiB."""
    while True:
        for name, pid in processes.items():
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            found.memory.setdefault(name, []).append(pages * os.sysconf("SC_PAGE_SIZE") / MIB)
        await asyncio.sleep(1.0)


async def counter(http: httpx.AsyncClient, name: str) -> float:
    """One of the server's, 0 if there is none yet."""
    lines = (await http.get("/metrics")).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if re.match(name + r"[ {]", line))


async def pass_s(http: httpx.AsyncClient, marks: Sequence[str]) -> float:
    """Seconds of a pass of the engine with nothing else to do: the median of some requests."""
    each: list[float] = []
    for mark in marks[:8]:
        text = DOCUMENT.format(mark)
        at = text.index("result", 120)
        before = await counter(http, "diffgemma_passes_sum")
        body = {**infill(text[:at], text[text.index("\n", at) :]), "t_max_predict_ms": 60_000}
        timings = (await http.post("/infill", json=body, timeout=LOST_S * 4)).json()["timings"]
        passes = await counter(http, "diffgemma_passes_sum") - before
        each.append((timings["prompt_ms"] + timings["predicted_ms"]) / 1000 / max(1.0, passes))
    return statistics.median(each)


async def measure(url: str, server: int, engine: int, options: argparse.Namespace) -> int:
    """Runs the clients, prints what came of it, and returns whether something is wrong."""
    found, marks = Found(), WORDS[: options.clients]
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, limits=limits) as http:
        idle_pass_s = await pass_s(http, marks)
        watching = asyncio.create_task(watch(found, {"server": server, "engine": engine}))
        until = time.monotonic() + options.minutes * 60
        every_s = 60 * options.clients / options.per_minute
        budget_s = options.budget_ms / 1000
        clients = [
            Client(http, number, marks, budget_s, every_s, found)
            for number in range(options.clients)
        ]
        await asyncio.gather(*(client.work(until) for client in clients))
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        shared = await counter(http, "diffgemma_shared_total")
        cancelled = await counter(http, "diffgemma_cancelled_total")
    memory = {name: _fifths(values) for name, values in found.memory.items()}
    growth = {name: values[-1] / values[1] - 1 for name, values in memory.items()}
    late_s = percentile(found.late, 0.99)
    lost = sum(count for name, count in found.statuses.items() if name.startswith("lost"))
    refused = {name: count for name, count in found.statuses.items() if name[0].isdigit()}
    result: Body = {
        "requests": sum(found.statuses.values()),
        "answered": found.statuses["answered"],
        "empty": found.empty,
        "given up": found.statuses["given up"],
        "cancelled by the server": int(cancelled),
        "shared": int(shared),
        "refused": refused,
        "lost": lost,
        "answer ms, p50": round(percentile(found.seconds, 0.5) * 1000, 1),
        "answer ms, p99": round(percentile(found.seconds, 0.99) * 1000, 1),
        "overshoot ms, p50": round(percentile(found.late, 0.5) * 1000, 1),
        "overshoot ms, p99": round(late_s * 1000, 1),
        "pass ms, idle": round(idle_pass_s * 1000, 1),
        "overshoot in passes, p99": round(late_s / idle_pass_s, 2),
        "memory MiB": memory,
        "memory growth": {name: round(one, 4) for name, one in growth.items()},
        "with a name of the own document": found.own,
        "foreign": found.foreign,
    }
    table = Table(title=f"{options.clients} clients, {options.minutes:g} minutes")
    table.add_column("what")
    table.add_column("found")
    for name, value in result.items():
        table.add_row(name, str(value))
    Console(stderr=True, width=120).print(table)
    print(json.dumps({**result, "machine": describe_machine()}))
    wrong = lost or found.foreign or late_s > 2 * idle_pass_s or max(growth.values()) > 0.05
    return 1 if wrong or not found.own else 0


def _fifths(values: Sequence[float]) -> list[float]:
    """The mean of each fifth of the values."""
    parts = [values[len(values) * at // 5 : len(values) * (at + 1) // 5] for at in range(5)]
    return [round(statistics.mean(part), 1) for part in parts]


def run(options: argparse.Namespace) -> int:
    """Starts a server and an engine of its own, and ends both."""
    command = [sys.executable, "-m", "diffgemma_lsp"]
    with tempfile.TemporaryDirectory(prefix="bench") as folder:
        env = {**os.environ, RUNTIME_DIR_VARIABLE: str(Path(folder) / "run")}
        flags = ["--port", "0", "--model", options.model, "--budget-ms", str(options.budget_ms)]
        flags += ["--rate", str(2 * options.per_minute), "--queue", str(options.queue)]
        server = subprocess.Popen(
            [*command, "serve", *flags], env=env, stderr=subprocess.PIPE, text=True
        )
        try:
            assert server.stderr is not None
            url = server.stderr.readline().split()[-1]
            _until_ready(url)
            said = subprocess.check_output([*command, "engine", "status", "--json"], env=env)
            (engine,) = json.loads(said)
            return asyncio.run(measure(url, server.pid, engine["pid"], options))
        finally:
            server.terminate()
            server.wait()
            stop = [*command, "engine", "stop", "--all"]
            subprocess.run(stop, env=env, stdout=subprocess.DEVNULL, check=False)


def _until_ready(url: str) -> None:
    """Waits for an answer, by which the model is loaded."""
    body = {**infill("x = ", "\n"), "t_max_predict_ms": 60_000}
    while httpx.post(f"{url}/infill", json=body, timeout=300).status_code != 200:
        time.sleep(1.0)


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--minutes", type=float, default=10.0, metavar="N", help="at least 0.1 (default: 10)")
    add("--clients", type=int, default=50, metavar="N", help="how many (default: 50)")
    add("--per-minute", type=int, default=1000, metavar="N", help="requests of all (default: 1000)")
    add("--budget-ms", type=int, default=600, metavar="MS", help="for an answer (default: 600)")
    add("--queue", type=int, default=32, metavar="N", help="the server's (default: 32)")
    add("--model", default="nano", metavar="PATH", help="a folder or a name (default: nano)")
    options = parser.parse_args(argv)
    if options.minutes < 0.1:  # a fifth of which has a look at the memory
        parser.error("--minutes must be at least 0.1")
    if not 1 <= options.clients <= len(WORDS):
        parser.error(f"--clients must lie between 1 and {len(WORDS)}")
    return run(options)


if __name__ == "__main__":
    raise SystemExit(main())
