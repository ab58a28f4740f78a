"""What is asked of a card, the smallest question first. Each answer is a row of names and numbers;
times are in milliseconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from engine.attention.batch import Batch
from engine.attention.graphs import Graphs
from engine.attention.kv import KVBuffer
from engine.attention.prefix_cache import canvas_span
from engine.attention.span import Span, forward
from engine.benchmark.clock import bandwidth, host_milliseconds, milliseconds, wait
from engine.benchmark.fills import fill, read_prefix, together
from engine.benchmark.shapes import diffusion_gemma, weight_bytes

Row = dict[str, Any]


@dataclass(slots=True)
class Card:
    """The device, and what was found out about it. small: a rehearsal."""

    device: torch.device
    small: bool
    bytes_per_second: float = 0.0

    @property
    def behind(self) -> int:
        """Tokens of a prefix."""
        return 192 if self.small else 4096

    def floor(self, count: int) -> float:
        """The least time in which so many bytes can be read."""
        return 1000 * count / self.bytes_per_second


def copy(card: Card) -> Iterator[Row]:
    """The memory's bandwidth."""
    card.bytes_per_second = bandwidth(card.device)
    yield {"what": "copy", "GB/s": round(card.bytes_per_second / 1e9)}


class Gemma:
    """Questions about a DiffusionGemma in one format."""

    def __init__(self, card: Card, format: Any) -> None:
        self.card, self.format = card, format
        began = time.perf_counter()
        self.model = diffusion_gemma(card.device, format, card.small)
        wait(card.device)
        self.made = time.perf_counter() - began
        self.bytes = weight_bytes(self.model)
        self.cache = read_prefix(self.model, card.behind)

    def span(self, rows: int, conditioned: bool = True) -> Span:
        """A canvas behind the prefix."""
        model = self.model
        own = KVBuffer(model.kv, model.dtype, model.device, growth=1)
        soft = torch.randn(rows, model.config.hidden_size, dtype=model.dtype, device=model.device)
        ids = torch.randint(1, model.config.vocab_size, (rows,), device=model.device)
        return canvas_span(self.cache, len(self.cache.ids), own, ids, soft if conditioned else None)

    def size(self) -> Row:
        """What the weights take, and the floor of a pass' time."""
        floor = self.card.floor(self.bytes)
        row = {"what": "weights", "GB": round(self.bytes / 1e9, 2), "floor": round(floor, 2)}
        if self.card.device.type == "cuda":
            row["GB in use"] = round(torch.cuda.memory_allocated() / 1e9, 2)
        return row | {"made in s": round(self.made, 1)}

    def passes(self, run: Callable[[list[Span]], Any], name: str, rows: int, many: int = 1) -> Row:
        """A pass with the head: `rows` of each of `many` canvases behind the prefix."""
        spans = [self.span(rows) for _ in range(many)]
        device = self.card.device

        def whole() -> None:
            for hidden in run(spans):
                self.model.logits(hidden)

        spent = milliseconds(whole, device)
        host = host_milliseconds(whole, device, 5)
        floor = self.card.floor(self.bytes)
        row: Row = {"what": name, "rows": rows, "canvases": many, "ms": round(spent, 3)}
        return row | {"host": round(host, 3), "of floor": round(spent / floor, 3)}

    def same(self, graphs: Graphs, rows: int) -> Row:
        """How far a graph's rows are from those of the plain pass."""
        span = self.span(rows)
        want, got = forward(self.model, [span])[0].float(), graphs([span])[0].float()
        again = graphs([span])[0].float()
        off = float((got - want).norm() / want.norm())
        return {
            "what": "graph against plain",
            "rows": rows,
            "relative": round(off, 5),
            "again": float((again - got).abs().max()),
            "finite": bool(got.isfinite().all()),
        }

    def prefill(self) -> Iterator[Row]:
        """Reading a prefix, none of which is known."""
        for tokens in (self.card.behind // 8, self.card.behind):
            spent = milliseconds(
                lambda n=tokens: read_prefix(self.model, n), self.card.device, 3, 1
            )
            yield {"what": "prefill", "tokens": tokens, "ms": round(spent, 1)}

    def fills(self, batch: Batch, free: int, passes: int, many: int) -> Row:
        """Fills side by side by the engine's loop."""

        def run() -> None:
            together([fill(self.model, batch, self.cache, free, passes) for _ in range(many)])

        run()
        wait(self.card.device)
        taken: list[float] = []
        for _ in range(3):
            began = time.perf_counter()
            run()
            wait(self.card.device)
            taken.append(1000 * (time.perf_counter() - began))
        row: Row = {"what": "fill", "slots": free, "passes": passes, "at once": many}
        return row | {
            "ms": round(sorted(taken)[1], 1),
            "a pass": round(sorted(taken)[1] / passes, 2),
        }


def kernels(work: Callable[[], object], most: int = 40) -> str:
    """A table of the kernels that take the time of `work`."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as seen:
        work()
        torch.cuda.synchronize()
    return seen.key_averages().table(sort_by="self_device_time_total", row_limit=most)
