"""Weights in 8 bits against bfloat16 on a CPU: time a pass, memory a layer, by turns in one run.

python tests/bench/low_precision.py --rounds 9

`pass` is one of a dense model of mini's shape (24 layers, hidden size 896, random weights) with the
head, over so many rows; `expert` one expert of the 26B model; `layer` a linear layer of it. Each
round runs all, plain and 8 bits after each other, so that both meet the same load; the ratio is the
median of the rounds' ratios. Memory is what the process grows by when a layer is packed. Prints a
table; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from engine.attention.sdpa import read
from engine.backbones.dense import Dense
from engine.backbones.dense_config import parse_dense
from engine.backbones.linear import Linear
from engine.backbones.quantized import Format
from engine.evaluation.setup import describe_machine
from engine.weights.dense import shapes

FORMATS: tuple[Format, ...] = ("plain", "int8")
SHAPE = {
    **{"model_type": "qwen2", "vocab_size": 32_000, "hidden_size": 896, "num_hidden_layers": 24},
    **{"intermediate_size": 4864, "num_attention_heads": 14, "num_key_value_heads": 2},
    **{"tie_word_embeddings": True, "max_position_embeddings": 4096, "rope_theta": 1e6},
}
LAYERS = {"expert": (1408, 2816), "layer": (4096, 2816)}


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="(default: 9)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="(default: 1)")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    work = {**_passes(), **_layers()}
    for both in work.values():
        for call in both.values():
            call()
    seconds: dict[str, list[list[float]]] = {name: [] for name in work}
    for _ in range(options.rounds):
        for name, both in work.items():
            seconds[name].append([_time(both[format]) for format in FORMATS])
    rows = {
        name: {
            "plain_ms": round(1000 * statistics.median(a for a, _ in taken), 3),
            "int8_ms": round(1000 * statistics.median(b for _, b in taken), 3),
            "times_faster": round(statistics.median(a / b for a, b in taken), 2),
            "least": round(min(a / b for a, b in taken), 2),
        }
        for name, taken in seconds.items()
    }
    memory = {format: _memory(format) for format in FORMATS}
    table = Table(title=f"{options.threads} threads, {options.rounds} rounds")
    for column in ("", "bf16 ms", "int8 ms", "times faster", "least"):
        table.add_column(column)
    for name, row in rows.items():
        table.add_row(name, *(f"{value:g}" for value in row.values()))
    Console().print(table)
    result = {"machine": describe_machine(), "load_after": os.getloadavg()[0]}
    print(json.dumps({**result, "rows": rows, "memory_of_a_layer": memory}))
    return 0


def _passes() -> dict[str, dict[Format, Callable[[], object]]]:
    """A pass of a whole model, over so many rows."""
    config = parse_dense(SHAPE)
    state = {name: torch.randn(size).bfloat16() * 0.02 for name, size in shapes(config).items()}
    models = {format: Dense(config, state, format=format) for format in FORMATS}

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return read(q, k, v)

    def one(model: Dense, rows: int) -> Callable[[], object]:
        ids, at = torch.randint(0, config.vocab_size, (1, rows)), torch.arange(rows)

        @torch.inference_mode()
        def run() -> object:
            return model.logits(model.encode(ids, at, attend))

        return run

    return {
        f"pass, {rows} rows": {format: one(model, rows) for format, model in models.items()}
        for rows in (8, 32, 128)
    }


def _layers() -> dict[str, dict[Format, Callable[[], object]]]:
    """A single product of the 26B model's."""

    def one(format: Format, shape: tuple[int, int], rows: int) -> Callable[[], object]:
        product = Linear(torch.randn(shape).bfloat16() * 0.02, format=format)
        x = torch.randn(rows, shape[1]).bfloat16()
        return lambda: product(x)

    return {
        f"{name} {shape[0]}x{shape[1]}, {rows} rows": {
            format: one(format, shape, rows) for format in FORMATS
        }
        for name, shape in LAYERS.items()
        for rows in (16, 256)
    }


def _time(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _memory(format: Format) -> float:
    """Bytes a weight, as the process grows by it."""
    shape, before = (8192, 8192), _resident()
    weight = torch.randn(shape, dtype=torch.bfloat16)
    kept = Linear(weight, format=format)
    del weight
    grown = _resident() - before
    assert kept.out_features == shape[0]
    return round(grown / (shape[0] * shape[1]), 3)


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    sys.exit(main())
