"""APEval's 41 samples that give the edits so far and no words: what comes of them with the server's
suggestions, by the tests of HumanEval (CursorCore, arXiv 2410.07002; both are for measuring only).

python tests/bench/apeval.py apeval.json.gz HumanEval-SingleLineInfilling.jsonl.gz

Over the protocol, with the real engine in this process and no deadline. The document goes through
the sample's versions one by one; then what comes by itself at the cursor is accepted, and what is
offered as a next edit, until nothing comes. Four ways: the text as it stands, with next edits, with
suggestions, with both. A selection is given up: the cursor stands at its end.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "lsp")]

from in_process import InProcessClient  # noqa: E402
from lsp_client import AUTOMATIC, completion, did_change, did_close, did_open, position  # noqa: E402
from next_edits import Local  # noqa: E402

from diffgemma_lsp.features.inline_edit import METHOD  # noqa: E402
from engine.engine import InfillEngine  # noqa: E402
from engine.evaluation.humaneval import Problem, read_problems  # noqa: E402
from engine.evaluation.metrics import proportion  # noqa: E402
from engine.evaluation.sandbox import Sandbox  # noqa: E402

WAYS = {
    "as it stands": (0, 0),
    "next edits": (0, 4),
    "suggestions": (12, 0),
    "both": (12, 4),
}
"""How many suggestions at the cursor and next edits are accepted at most."""


class Sample(NamedTuple):
    """A sample's versions of a text, the last one as it stands, and the offset of the cursor."""

    versions: list[str]
    cursor: int


def sample_of(raw: dict[str, Any]) -> Sample:
    versions = [str(part["code"]) for part in (*raw["history"], raw["current"])]
    area = raw.get("area")
    cursor = area[-1] if isinstance(area, list) else area
    return Sample(versions, last_change(versions) if cursor is None else int(cursor))


def last_change(versions: list[str]) -> int:
    """Where the last version begins to be the one before again."""
    new, old = versions[-1], versions[-2] if len(versions) > 1 else ""
    common = 0
    while common < min(len(new), len(old)) and new[-1 - common] == old[-1 - common]:
        common += 1
    return len(new) - common


def place_of(text: str, offset: int) -> tuple[int, int]:
    before = text[:offset].split("\n")
    return len(before) - 1, len(before[-1])


def offset_of(text: str, place: dict[str, int]) -> int:
    lines = text.split("\n")
    return sum(len(line) + 1 for line in lines[: place["line"]]) + place["character"]


class Document:
    """A document of the server's, and the cursor in it."""

    def __init__(self, client: InProcessClient, uri: str, sample: Sample) -> None:
        self.client, self.uri, self.version = client, uri, 1
        self.text, self.cursor = sample.versions[0], sample.cursor
        client.send(did_open(uri, self.text))
        for text in sample.versions[1:]:
            self.become(text)

    def become(self, text: str) -> None:
        self.version, self.text = self.version + 1, text
        self.client.send(did_change(self.uri, self.version, {"text": text}))

    def accept(self, where: dict[str, Any], text: str) -> None:
        """Puts a text in the place of a range; the cursor goes behind it."""
        start, end = offset_of(self.text, where["start"]), offset_of(self.text, where["end"])
        self.become(self.text[:start] + text + self.text[end:])
        self.cursor = start + len(text)

    async def suggestion(self) -> bool:
        """Accepts what is suggested at the cursor; whether anything is."""
        asked = completion(self.uri, *place_of(self.text, self.cursor), AUTOMATIC)
        answer = await self.client.request(*asked)
        for item in answer:
            self.accept(item["range"], item["insertText"])
            return True
        return False

    async def next_edit(self) -> bool:
        """Accepts the next edit; whether there is one."""
        line, character = place_of(self.text, self.cursor)
        params = {
            "textDocument": {"uri": self.uri, "version": self.version},
            "position": position(line, character),
        }
        for edit in (await self.client.ask(METHOD, params))["edits"]:
            self.accept(edit["range"], edit["text"])
            return True
        return False


async def result(
    client: InProcessClient, uri: str, sample: Sample, most: tuple[int, int]
) -> tuple[str, int]:
    """The text that comes of it, and how many edits were accepted."""
    document, accepted = Document(client, uri, sample), 0
    for step, count in zip((document.suggestion, document.next_edit), most, strict=True):
        for _ in range(count):
            if not await step():
                break
            accepted += 1
    client.send(did_close(uri))
    return document.text, accepted


async def run(
    samples: list[dict[str, Any]], problems: dict[str, Problem], model: str | None
) -> None:
    engine, sandbox = InfillEngine.load(model, "cpu"), Sandbox()
    client = InProcessClient()
    client.connect(lambda settings: Local(engine))
    patience = {"invoked_budget_ms": 60_000, "automatic_budget_ms": 60_000}
    await client.initialize(["utf-32"], **patience, warm_up=False, look_ahead=False, stats=False)
    passed, accepted = Counter[str](), Counter[str]()
    for number, raw in enumerate(samples):
        problem = problems[raw["task_id"]]
        for way, most in WAYS.items():
            uri = f"file:///work/{number}_{most[0]}_{most[1]}.py"
            text, count = await result(client, uri, sample_of(raw), most)
            program = f"{text}\n{problem.test}\ncheck({problem.entry_point})\n"
            # What a sample leaves out, as its author's module had it.
            program = f"from typing import *\n{program}"
            passed[way] += sandbox.run(program).outcome == "passed"
            accepted[way] += count
        print(f"\r{number + 1}/{len(samples)}", end="", file=sys.stderr, flush=True)
    print(f"\n\n| | pass@1 of {len(samples)} | accepted |\n|---|---|---|")
    for way in WAYS:
        hits = passed[way]
        share = proportion([True] * hits + [False] * (len(samples) - hits))
        print(
            f"| {way} | {hits}: {share.value:.2f} ({share.low:.2f} to {share.high:.2f}) | ", end=""
        )
        print(f"{accepted[way]} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("samples", type=Path, help="apeval.json.gz")
    parser.add_argument("problems", type=Path, help="HumanEval-SingleLineInfilling.jsonl.gz")
    parser.add_argument("--model", help="default: mini where its base is, else nano")
    chosen = parser.parse_args()
    with gzip.open(chosen.samples, "rt", encoding="utf-8") as file:
        samples = [raw for raw in json.load(file) if raw["history"] and not raw["user"]]
    # A task's lines share its tests.
    problems = {
        "/".join(problem.task_id.split("/")[1:3]): problem
        for problem in read_problems(chosen.problems)
    }
    asyncio.run(run(samples, problems, chosen.model))


if __name__ == "__main__":
    main()
