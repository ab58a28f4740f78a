"""An engine without a model: what it answers, and when, is written in the document itself.

A line `# fake: {"delay": 0.1}` anywhere around the hole plans the run:

delay: seconds of work. text: the answer; else it tells of the prefix and suffix it was made for.
texts: the answer's holes, if there are several. by_seed: answers to choose from by the seed. In an
answer, <strength> is how much of the draft may change. frame: a frame with this text comes first;
pass: the pass that it is of, 0 for the draft.
deaf: the budget is ignored. confidence: of the answer. others: [text, confidence] of what else
was considered. stop: why it ended. gains: by how many nats choices are likelier than the first.
error: the code of the EngineError to raise. bug: an exception that nobody foresaw.
stubborn: seconds that it takes to notice that it was cancelled.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
import zlib
from collections.abc import AsyncGenerator
from typing import Any

from engine.errors import DeadlineExceeded, error_from_code
from engine.types import Fixed, Frame, Hole, Infill, InfillRequest, Other, Piece

PLAN = re.compile(r"# fake: (\{.*\})")


def filling(prefix: str, suffix: str) -> str:
    """What the engine answers if the document does not say otherwise."""
    both = prefix + "|" + suffix
    return f"_{zlib.crc32(both.encode()):08x}"


def slow(seconds: float = 30.0, **more: object) -> str:
    """A first line that makes the engine take its time, by default longer than any deadline."""
    return f"# fake: {json.dumps({'delay': seconds, **more})}\n"


def varied(prefix: str, suffix: str, seed: int) -> str:
    """What it answers instead if it is to answer differently with each seed: one line, or two."""
    first = filling(prefix, suffix + f"|{seed}" * bool(seed))
    return first if int(first[1:], 16) % 4 else f"{first}\n{filling(suffix, prefix)}"


class FakeEngine:
    """Counts its runs, and how many of them were cancelled.

    texts: what it answers, whatever the plan is. says: its status, None if it is not there, and
    asked: how often it was asked for it. loading_until: until then, by time.monotonic(), its model
    loads, and no request is answered in time. jitter_ms: without a plan a run takes up to this
    long, by what it is made for. varied: without a plan its answers are `varied`.
    """

    def __init__(self, jitter_ms: int = 0, varied: bool = False) -> None:
        self.jitter_ms, self.varied = jitter_ms, varied
        self.runs = 0
        self.cancelled = 0
        self.warmed_up = False
        self.closed = False
        self.loaded = True
        self.can = ("fill",)
        self.languages: tuple[str, ...] | None = None
        self.says: dict[str, Any] | None = {"state": "ready"}
        self.asked = 0
        self.loading_until = -math.inf
        self.texts: tuple[str, ...] | None = None
        self.requests: list[InfillRequest] = []

    async def stream(self, request: InfillRequest) -> AsyncGenerator[Frame | Infill]:
        self.runs += 1
        self.requests.append(request)
        if (loads_s := self.loading_until - time.monotonic()) > 0:
            await asyncio.sleep(min(loads_s, request.budget_s or math.inf))
            if request.budget_s is not None and request.budget_s <= loads_s:
                raise DeadlineExceeded("the time was up before the model was loaded")
        fixed = [part.text for part in request.template if isinstance(part, Fixed)]
        found = PLAN.search("\n".join(fixed))
        plan: dict[str, Any] = json.loads(found[1]) if found else {}
        holes = len(request.template) - len(fixed)
        try:
            if "bug" in plan:
                raise ValueError(plan["bug"])
            if "error" in plan:
                raise error_from_code(plan["error"], "the fake engine was told to fail")
            if "frame" in plan:
                piece = Piece(plan["frame"], plan.get("confidence", 0.9))
                step = plan.get("pass", 1)
                yield Frame(step, 8 if step else 0, ((piece,),) * holes, 1.0)
            jitter = int(filling(fixed[0], fixed[-1])[1:], 16) % (self.jitter_ms + 1)
            delay = plan.get("delay", jitter / 1000)
            if request.budget_s is not None and not plan.get("deaf"):
                delay = min(delay, request.budget_s)
            await asyncio.sleep(delay)
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            if "stubborn" in plan:
                await asyncio.sleep(plan["stubborn"])
            raise
        made = varied(fixed[0], fixed[-1], request.seed) if self.varied else None
        text = plan.get("text", made or filling(fixed[0], fixed[-1]))
        if "by_seed" in plan:
            text = plan["by_seed"][request.seed % len(plan["by_seed"])]
        (hole, *_) = [part for part in request.template if isinstance(part, Hole)]
        text = text.replace("<strength>", f"{hole.strength:g}")
        texts = self.texts or tuple(plan.get("texts", [text] * holes))
        reason, confidence = plan.get("stop", "settled"), plan.get("confidence", 0.9)
        others = tuple(Other(*other) for other in plan.get("others", ()))
        scores = tuple(-9.0 + plan.get("gains", 9.0) * (n > 0) for n in range(len(request.choices)))
        yield Infill(text, texts, 8, 9, reason, confidence, {"total": 1.0}, others, scores)

    async def status(self) -> dict[str, Any] | None:
        self.asked += 1
        if self.says is None:
            return None
        if time.monotonic() < self.loading_until:
            return {"model": "fake", "info": None, "state": "loading", "fraction": 0.5}
        info = {"model": "fake", "can": self.can, "languages": self.languages}
        loaded_s = time.monotonic() - self.loading_until
        return {"model": "fake", "info": info, "loaded_s": loaded_s, **self.says}

    async def warm_up(self) -> None:
        self.warmed_up = True

    async def unload(self) -> bool:
        was, self.loaded = self.loaded, False
        self.says = {"state": "unloaded"}
        return was

    async def aclose(self) -> None:
        self.closed = True
