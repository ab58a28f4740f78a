"""What is asked of a device. Each answer is a row of names and numbers, times in milliseconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from engine.attention.batch import Batch
from engine.attention.graphs import Graphs
from engine.attention.kv import KVBuffer
from engine.attention.prefix_cache import PrefixCache, canvas_span
from engine.attention.span import Span, forward
from engine.backbones.dense import Dense
from engine.backbones.diffusion_gemma import DiffusionGemma, Layer
from engine.benchmark.clock import bandwidth, host_milliseconds, milliseconds, wait
from engine.benchmark.fills import fill, fill_window, read_prefix, together
from engine.benchmark.shapes import weight_bytes
from engine.diffusion.denoiser import window_span

Row = dict[str, Any]
Forward = Callable[[Sequence[Span]], Sequence[Tensor]]


@dataclass(slots=True)
class Card:
    """The device, and how many bytes a second its memory gives. repeats: of passes, of which a
    time is the median; a third of it of fills."""

    device: torch.device
    repeats: int = 9
    bytes_per_second: float = 0.0

    def measure(self) -> Row:
        """The memory's bandwidth, by a copy."""
        self.bytes_per_second = bandwidth(self.device, self.repeats)
        return {"what": "copy", "GB/s": round(self.bytes_per_second / 1e9)}


class Subject:
    """A model that is asked about. prefix: what stands in front of its canvases (DiffusionGemma);
    None for one that reads windows."""

    def __init__(self, card: Card, model: DiffusionGemma | Dense, behind: int) -> None:
        self.card, self.model, self.behind = card, model, behind
        self.bytes = weight_bytes(model)
        self.floor = 1000 * self.bytes / card.bytes_per_second
        self.batch = Batch(model)
        self.prefix: PrefixCache | None = None
        if isinstance(model, DiffusionGemma):
            self.prefix = read_prefix(model, behind)

    def plain(self, spans: Sequence[Span]) -> list[Tensor]:
        """A pass as it is, kernel by kernel."""
        return forward(self.model, spans)

    def size(self) -> Row:
        """What the weights take, and the floor of a pass' time."""
        row: Row = {"what": "weights", "GB": round(self.bytes / 1e9, 4), "ms": round(self.floor, 2)}
        if self.card.device.type == "cuda":
            row["GB in use"] = round(torch.cuda.memory_allocated() / 1e9, 2)
        return row

    def span(self, rows: int) -> Span:
        """A canvas behind the prefix, or a window."""
        model = self.model
        own = KVBuffer(model.kv, model.dtype, model.device, growth=1)
        ids = torch.randint(1, model.config.vocab_size, (rows,), device=model.device)
        if self.prefix is None:
            return window_span(ids, own)
        soft = torch.randn(rows, model.config.hidden_size, dtype=model.dtype, device=model.device)
        return canvas_span(self.prefix, len(self.prefix.ids), own, ids, soft)

    def pass_(self, run: Forward, what: str, rows: int, many: int = 1, head: int = 256) -> Row:
        """A pass with the head on at most so many rows of each of `many` canvases.

        of floor: its time by that of reading all weights once. host: until it is started.
        """
        spans = [self.span(rows) for _ in range(many)]

        def whole() -> None:
            for hidden in run(spans):
                self.model.logits(hidden[-head:])

        device, repeats = self.card.device, self.card.repeats
        spent = milliseconds(whole, device, repeats)
        host = host_milliseconds(whole, device, repeats)
        row: Row = {"what": what, "rows": rows, "at once": many, "ms": round(spent, 3)}
        return row | {"host": round(host, 3), "of floor": round(spent / self.floor, 3)}

    def same(self, graphs: Graphs, rows: int) -> Row:
        """How far a graph's rows are from those of the plain pass, and from its own the next
        time."""
        span = self.span(rows)
        want, got = self.plain([span])[0].float(), graphs([span])[0].float()
        again = graphs([span])[0].float()
        off = float((got - want).norm() / want.norm())
        row: Row = {"what": "graph against plain", "rows": rows, "relative": round(off, 5)}
        return row | {"again": float((again - got).abs().max())}

    def prefill(self, tokens: int) -> Row:
        """Reading a prefix, none of which is known."""

        def read() -> None:
            read_prefix(self.model, tokens)

        spent = milliseconds(read, self.card.device, -(-self.card.repeats // 3), 1)
        return {"what": "prefill", "rows": tokens, "ms": round(spent, 1)}

    def fills(self, free: int, passes: int, many: int = 1) -> Row:
        """Fills side by side by the engine's loop, behind a prefix that has been read."""
        taken: list[float] = []
        for _ in range(1 + -(-self.card.repeats // 3)):
            wait(self.card.device)
            began = time.perf_counter()
            together([self._fill(free, passes) for _ in range(many)])
            wait(self.card.device)
            taken.append(1000 * (time.perf_counter() - began))
        spent = median(taken[1:])
        row: Row = {"what": "fill", "rows": free, "passes": passes, "at once": many}
        return row | {"ms": round(spent, 1), "a pass": round(spent / passes, 2)}

    def kernels(self, rows: int, folder: Path) -> Row:
        """What takes the time of a pass, as a table in a file of the folder."""
        spans, run = [self.span(rows)], self.batch.graphs or self.plain
        run(spans)
        path = folder / f"{type(self.model).__name__.lower()}-{self.model.format}-{rows}.txt"
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(_kernels(lambda: run(spans), self.card.device), encoding="utf-8")
        return {"what": f"kernels are in {path}"}

    def compiled(self, canvases: Sequence[int]) -> Iterator[Row]:
        """Passes whose layers were compiled. The model stays so."""
        assert isinstance(self.model, DiffusionGemma)
        began = time.perf_counter()
        for layer in self.model.layers:
            assert isinstance(layer, Layer)
            layer.before = torch.compile(layer.before, dynamic=True)
            layer.after = torch.compile(layer.after, dynamic=True)
        self.batch = Batch(self.model)
        run = self.batch.graphs or self.plain
        run([self.span(canvases[0])])
        wait(self.card.device)
        yield {"what": "to compile", "ms": round(1000 * (time.perf_counter() - began))}
        for rows in canvases:
            yield self.pass_(run, "pass, compiled", rows)

    def _fill(self, free: int, passes: int) -> Iterator[Any]:
        if self.prefix is None:
            return fill_window(self.model, self.batch, self.behind, free, passes)
        return fill(self.model, self.batch, self.prefix, free, passes)


def _kernels(work: Callable[[], object], device: torch.device, most: int = 60) -> str:
    from torch.profiler import ProfilerActivity, profile

    cuda = device.type == "cuda"
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=kinds) as seen:
        work()
        wait(device)
    order = "self_device_time_total" if cuda else "self_cpu_time_total"
    return seen.key_averages().table(sort_by=order, row_limit=most)
