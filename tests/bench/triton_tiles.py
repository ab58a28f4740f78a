"""The kernel for weights in bf16, 8 and 4 bits on a CUDA card, by its tiles.

PYTHONPATH=. python tests/bench/triton_tiles.py --seconds 45

Needs torch and triton only. Experts are those of DiffusionGemma's 26B (128 of [1408, 2816] and
[2816, 704], of which each row has 8), layers its own and those of Qwen2's 7B. Each case is first
held against the same product of the widened weights in float32, then timed: the median of replays
of a CUDA graph, over as many copies of the weights as the card's cache can't hold. Prints a line of
JSON for each as it is known, the most important first, until the time is over.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.backbones import triton_linear
from engine.backbones.quantized import GROUP, Quantized
from engine.backbones.triton_linear import Tile, grouped_linear, linear, tile_for

DEVICE = torch.device("cuda")
E, D, INNER, TOP_K = 128, 2816, 704, 8
UNCACHED = 250 * 2**20
"""So many bytes of weights are read by turns."""
REPLAYS = 9

Weight = Tensor | Quantized


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=45, metavar="N", help="(default: 45)")
    options = parser.parse_args(argv)
    end = time.monotonic() + options.seconds
    torch.manual_seed(0)
    started = time.monotonic()
    there = triton_linear.available(DEVICE)
    properties = torch.cuda.get_device_properties(DEVICE)
    say(
        device=properties.name,
        multiprocessors=properties.multi_processor_count,
        l2_mb=getattr(properties, "L2_cache_size", 0) >> 20,
        torch=torch.__version__,
        available=there,
        seconds=round(time.monotonic() - started, 1),
    )
    if not there:
        return 1
    for case in cases():
        if time.monotonic() > end:
            say(cut_off=True)
            break
        started = time.monotonic()
        try:
            with torch.inference_mode():
                found = case()
        except Exception as problem:  # one tile that can't be is no reason to leave the others
            found = {"failed": f"{type(problem).__name__}: {problem}"[-300:]}
        say(**found, took=round(time.monotonic() - started, 2))
    return 0


def say(**what: Any) -> None:
    """Prints a line."""
    print(json.dumps(what), flush=True)


def cases() -> Iterator[Callable[[], dict[str, Any]]]:
    """What is measured, the most important first."""
    for rows in (256, 64):
        for bits in (4, 8, 16):
            yield lambda rows=rows, bits=bits: experts(bits, rows)
        yield lambda rows=rows: experts(16, rows, "grouped_mm")
    yield lambda: experts(4, 256, "widened")
    for bits in (4, 8):
        yield lambda bits=bits: layer(bits, 64, (8192, 2816))
    yield lambda: layer(16, 64, (8192, 2816), "library")
    tiles = {
        (256, 4): ("32 64 128 4 4", "16 128 128 4 4", "32 128 64 4 5", "32 128 256 8 2"),
        (64, 4): ("16 64 128 4 5", "16 64 256 4 4", "16 128 64 4 6", "16 128 256 4 3"),
        (256, 8): ("32 128 128 4 3", "32 128 64 4 4", "16 64 128 4 4", "32 64 64 4 6"),
        (64, 8): ("16 128 128 4 4", "16 64 64 4 6", "16 64 256 4 3"),
        (256, 16): ("32 64 64 4 4", "32 128 64 4 3"),
        (64, 16): ("16 64 64 4 5", "16 128 64 4 4"),
    }
    for (rows, bits), some in tiles.items():
        for said in some:
            tile = Tile(*map(int, said.split()))
            yield lambda rows=rows, bits=bits, tile=tile: experts(bits, rows, tile=tile)
    for rows in (64, 256):
        for shape in ((8192, 2816), (18944, 3584), (3584, 18944), (2112, 2816)):
            for bits in (4, 8):
                yield lambda rows=rows, bits=bits, shape=shape: layer(bits, rows, shape)
            yield lambda rows=rows, shape=shape: layer(16, rows, shape, "library")
    for rows in (512, 1024, 2048):
        for bits in (4, 8):
            yield lambda rows=rows, bits=bits: experts(bits, rows)
        yield lambda rows=rows: experts(16, rows, "grouped_mm")
    for rows in (512, 1024, 2048):
        for bits in (4, 8):
            for way in ("kernel", "widened"):
                yield lambda r=rows, b=bits, w=way: layer(b, r, (18944, 3584), w)
    for said in ("64 64 64 4 4", "64 128 128 8 3", "64 64 256 4 2"):
        tile = Tile(*map(int, said.split()))
        yield lambda tile=tile: layer(4, 64, (8192, 2816), tile=tile)


def experts(bits: int, rows: int, way: str = "kernel", tile: Tile | None = None) -> dict[str, Any]:
    """The two products of a layer's experts, one after the other. way: kernel; grouped_mm, with
    what it needs around it; widened: that after widening."""
    x = torch.randn(rows, D, dtype=torch.bfloat16, device=DEVICE)
    chosen = torch.rand(rows, E, device=DEVICE).topk(TOP_K).indices
    picked, order = chosen.flatten().sort(stable=True)
    ends = torch.searchsorted(picked, torch.arange(E, device=DEVICE), right=True, out_int32=True)
    gate_up, down = weights((E, 2 * INNER, D), bits), weights((E, D, INNER), bits)
    inner = torch.randn(rows * TOP_K, INNER, dtype=torch.bfloat16, device=DEVICE)

    def first(weight: Weight) -> Tensor:
        if way == "kernel":
            return grouped_linear(x, weight, order, ends, TOP_K, first=True, gated=True, tile=tile)
        gate, up = grouped_mm(x[order // TOP_K], weight, ends).chunk(2, dim=-1)
        return F.gelu(gate, approximate="tanh") * up

    def second(weight: Weight) -> Tensor:
        if way == "kernel":
            return grouped_linear(inner, weight, order, ends, TOP_K, first=False, tile=tile)
        out = grouped_mm(inner, weight, ends)
        return torch.empty_like(out).index_copy_(0, order, out)

    errors = [
        wrong(lambda: first(gate_up[0]), true_first(x, gate_up[0], order, ends)),
        wrong(lambda: second(down[0]), true_second(inner, down[0], order, ends)),
    ]
    took = [timed(first, gate_up), timed(second, down)]
    sizes = [nbytes(gate_up[0]), nbytes(down[0])]
    chosen_tile = tile or tile_for(2 * rows * TOP_K / E, E * D, bits)
    return {
        "experts": way,
        "bits": bits,
        "rows": rows,
        "tile": list(chosen_tile) if way == "kernel" else None,
        "us": [round(one, 1) for one in took],
        "us_both": round(sum(took), 1),
        "gb_s": [round(size / one / 1e3) for size, one in zip(sizes, took, strict=True)],
        "error": errors,
    }


def layer(
    bits: int, rows: int, shape: tuple[int, int], way: str = "kernel", tile: Tile | None = None
) -> dict[str, Any]:
    """A linear layer. way: kernel; library, for bf16; widened: that after widening."""
    x = torch.randn(rows, shape[1], dtype=torch.bfloat16, device=DEVICE)
    every = weights(shape, bits)

    def product(weight: Weight) -> Tensor:
        return linear(x, weight, tile=tile) if way == "kernel" else F.linear(x, widened(weight))

    error = wrong(lambda: product(every[0]), x.float() @ widened(every[0]).float().T)
    took = timed(product, every)
    return {
        "layer": way,
        "bits": bits,
        "rows": rows,
        "shape": shape,
        "tile": list(tile or tile_for(rows, shape[0], bits)) if way == "kernel" else None,
        "us": round(took, 1),
        "gb_s": round(nbytes(every[0]) / took / 1e3),
        "tflops": round(2 * rows * shape[0] * shape[1] / took / 1e6),
        "error": error,
    }


def weights(shape: tuple[int, ...], bits: int) -> list[Weight]:
    """Random ones, as many as the cache can't hold."""
    made: list[Weight] = []
    size = 0
    while size < UNCACHED:
        made.append(random(shape, bits))
        size += nbytes(made[-1])
    return made


def random(shape: tuple[int, ...], bits: int) -> Weight:
    """A random weight, without rounding one."""
    if bits == 16:
        return torch.randn(shape, dtype=torch.bfloat16, device=DEVICE) * 0.02
    weight = object.__new__(Quantized)
    weight.shape, weight.bits = torch.Size(shape), 4 if bits == 4 else 8
    words = (*shape[:-1], shape[-1] * bits // 16)
    weight.codes = torch.randint(-(2**15), 2**15, words, dtype=torch.int16, device=DEVICE)
    groups = (*shape[:-1], shape[-1] // GROUP) if bits == 4 else shape[:-1]
    scales = (0.5 + torch.rand(groups, device=DEVICE)) * 0.02 / 2 ** (bits - 2)
    weight.scales = scales.bfloat16() if bits == 4 else scales
    return weight


def nbytes(weight: Weight) -> int:
    return weight.nbytes


def widened(weight: Weight) -> Tensor:
    return weight.plain(torch.bfloat16) if isinstance(weight, Quantized) else weight


def grouped_mm(x: Tensor, weight: Weight, ends: Tensor) -> Tensor:
    return F.grouped_mm(x, widened(weight).transpose(1, 2), offs=ends)


def true_groups(x: Tensor, weight: Weight, ends: Tensor) -> Tensor:
    """The product in float32, one expert after the other."""
    wide, groups = widened(weight), pairwise([0, *ends.tolist()])
    return torch.cat([x[a:b].float() @ wide[e].float().T for e, (a, b) in enumerate(groups)])


def true_first(x: Tensor, weight: Weight, order: Tensor, ends: Tensor) -> Tensor:
    gate, up = true_groups(x[order // TOP_K], weight, ends).chunk(2, dim=-1)
    return F.gelu(gate, approximate="tanh") * up


def true_second(x: Tensor, weight: Weight, order: Tensor, ends: Tensor) -> Tensor:
    out = true_groups(x, weight, ends)
    return torch.empty_like(out).index_copy_(0, order, out)


def wrong(call: Callable[[], Tensor], true: Tensor) -> float | str:
    """The relative error of what a call gives. It must write all of its memory, and the same twice:
    what it is likely to get is full of NaN before."""
    found: list[Tensor] = []
    for _ in range(2):
        poison = torch.full(true.shape, float("nan"), dtype=torch.bfloat16, device=DEVICE)
        del poison
        found.append(call())
    if not torch.equal(*found):
        return "differs from run to run" if found[0].isfinite().all() else "not finite"
    return float(f"{float((found[0].float() - true).norm() / true.norm()):.2e}")


def timed(call: Callable[[Weight], Tensor], every: Sequence[Weight]) -> float:
    """Microseconds of a call."""
    turns = max(1, 8 // len(every))
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for weight in every[:2]:
            call(weight)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(turns):
            for weight in every:
                call(weight)
    taken: list[float] = []
    for number in range(REPLAYS + 2):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        stop.record()
        stop.synchronize()
        if number > 1:
            taken.append(1000 * start.elapsed_time(stop) / (turns * len(every)))
    return statistics.median(taken)


if __name__ == "__main__":
    raise SystemExit(main())
