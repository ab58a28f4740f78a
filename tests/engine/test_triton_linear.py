"""The kernel for weights in bf16, 8 and 4 bits against the product of the widened ones.

On a CUDA card it runs as users have it. Elsewhere Triton's interpreter runs it, where triton can be
imported, with rows in float32: it knows no bfloat16, nor instructions of a card. Those are carried
out here, one by one.
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from engine.backbones import experts, linear, triton_linear
from engine.backbones.config import parse_config
from engine.backbones.experts import Experts
from engine.backbones.linear import Linear, Stacked
from engine.backbones.quantized import GROUP, Bits, Quantized
from engine.backbones.triton_linear import TILES, WIDEN_FROM, Tile, available, grouped_linear
from tests.cases import cases
from tests.engine.tiny import tiny_config

ROOT = Path(__file__).resolve().parents[2]
CARD = (
    os.environ.get("TRITON_INTERPRET") != "1"
    and torch.cuda.is_available()
    and torch.cuda.get_device_capability() >= (8, 0)
)
DEVICE = torch.device("cuda" if CARD else "cpu")
DTYPE = torch.bfloat16 if CARD else torch.float32
ERROR = 0.005 if CARD else 1e-5
SMALL = (Tile(16, 32, 64, 4, 2), Tile(16, 64, 128, 4, 3))
SHARED = 99 * 1024
"""Bytes of shared memory that a program can have on consumers' cards."""


@pytest.fixture
def kernel() -> Any:
    pytest.importorskip("triton", reason="triton comes with torch for CUDA only")
    if not CARD and os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("no card from Ampere on, and TRITON_INTERPRET is not set")
    from engine.backbones import triton_kernel

    return triton_kernel


def random(*shape: int, bits: int = 16) -> Tensor | Quantized:
    weight = torch.randn(shape, device=DEVICE, dtype=DTYPE)
    if bits == 16:
        return weight
    return Quantized(weight, 8 if bits == 8 else 4)


def rows(*shape: int) -> Tensor:
    return torch.randn(shape, device=DEVICE, dtype=DTYPE)


def wide(weight: Tensor | Quantized) -> Tensor:
    known = weight.plain(DTYPE) if isinstance(weight, Quantized) else weight
    return known.float()


def error(out: Tensor, true: Tensor) -> float:
    assert out.dtype == DTYPE
    assert out.shape == true.shape
    return float((out.float() - true).norm() / true.norm())


@pytest.mark.parametrize("tile", SMALL)
@pytest.mark.parametrize("bits", [16, 8, 4])
@pytest.mark.parametrize(("m", "outputs", "inputs"), [(1, 64, 64), (5, 70, 192), (33, 130, 704)])
def test_a_layer(kernel: Any, bits: int, m: int, outputs: int, inputs: int, tile: Tile) -> None:
    x, bias, weight = rows(m, inputs), rows(outputs), random(outputs, inputs, bits=bits)
    true = F.linear(x.float(), wide(weight), bias.float())
    assert error(triton_linear.linear(x, weight, bias, tile), true) < ERROR
    assert error(triton_linear.linear(x.unsqueeze(0), weight, bias), true.unsqueeze(0)) < ERROR
    assert error(triton_linear.linear(x, weight), true - bias.float()) < ERROR


@pytest.mark.parametrize("bits", [16, 8, 4])
@cases(4)
@given(st.data())
def test_experts_see_their_rows(kernel: Any, bits: int, data: st.DataObject) -> None:
    """Some see none. Rows come back to their places."""
    torch.manual_seed(data.draw(st.integers(0, 10**6)))
    count = data.draw(st.integers(1, 7), "experts")
    top_k = data.draw(st.integers(1, count), "of which a row has")
    n, tile = data.draw(st.integers(1, 40), "rows"), data.draw(st.sampled_from(SMALL))
    d, inner = 128, GROUP * data.draw(st.integers(1, 3))
    chosen = torch.stack([torch.randperm(count)[:top_k] for _ in range(n)]).to(DEVICE)
    picked, order = chosen.flatten().sort(stable=True)
    numbers = torch.arange(count, device=DEVICE)
    ends = torch.searchsorted(picked, numbers, right=True, out_int32=True)
    x, gate_up, down = rows(n, d), random(count, 2 * inner, d, bits=bits), random(count, d, inner)

    def each(x: Tensor, weight: Tensor | Quantized) -> Tensor:
        return torch.einsum("mi,moi->mo", x.float(), wide(weight)[picked])

    both = each(x[order // top_k], gate_up)
    plain = grouped_linear(x, gate_up, order, ends, top_k, first=True, tile=tile)
    assert error(plain, both) < ERROR
    gate, up = both.chunk(2, dim=-1)
    gated = grouped_linear(x, gate_up, order, ends, top_k, first=True, gated=True, tile=tile)
    assert error(gated, F.gelu(gate, approximate="tanh") * up) < ERROR
    sorted_rows = rows(n * top_k, inner)
    back = torch.empty(n * top_k, d, device=DEVICE)
    back[order] = each(sorted_rows, down)
    assert error(grouped_linear(sorted_rows, down, order, ends, top_k, first=False), back) < ERROR


@torch.inference_mode()
@pytest.mark.parametrize("bits", [8, 4])
def test_a_block_of_experts_and_a_layer_are_what_they_are_widened(
    kernel: Any, bits: Bits, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tiny_config(hidden_size=128, moe_intermediate_size=64)
    data["text_config"] |= {"num_experts": 8, "top_k_experts": 3}
    block = Experts(parse_config(data)).to(DEVICE)
    for name, parameter in list(block.named_parameters()):
        kept = Stacked(torch.randn_like(parameter) * 0.1, "int8" if bits == 8 else "int4")
        if kept.each is not None:  # as a card has them
            kept.each, kept.whole = None, Quantized(torch.randn_like(parameter) * 0.1, bits)
        delattr(block, name)
        block.register_module(name, kept)
    x, weights = rows(9, 128), torch.rand(9, 3, device=DEVICE)
    chosen = torch.stack([torch.randperm(8)[:3] for _ in range(9)]).to(DEVICE)
    layer, used = Linear(random(96, 128, bits=bits)), rows(2, 5, 128)
    results: list[tuple[Tensor, Tensor]] = []
    for by_kernel in (True, False):
        monkeypatch.setattr(experts, "multiplies", lambda *_, yes=by_kernel: yes)
        monkeypatch.setattr(triton_linear, "multiplies", lambda *_, yes=by_kernel: yes)
        results.append((block(x, weights, chosen), layer(used)))
    for ours, plain in zip(*results, strict=True):
        assert error(ours, plain.float()) < 2 * ERROR


def test_instructions_of_a_card_give_what_bits_stand_for(kernel: Any) -> None:
    """All words, each beside another, with many scales: to the last bit what they are widened."""
    words = torch.stack((torch.arange(2**16), torch.randperm(2**16)), dim=-1)
    codes = [((words << 56 - place) >> 56).bfloat16() for place in (0, 8)]
    for found, true in zip(carried_out(kernel.EIGHT.value, {"$2": words}, 2), codes, strict=True):
        assert torch.equal(found, true)
    scales = torch.randn(words.shape).bfloat16()
    given_ = {"$4": words, "$5": scales.view(torch.int16).long() & 0xFFFF}
    codes = [((words << 60 - place) >> 60).bfloat16() for place in (0, 4, 8, 12)]
    for found, true in zip(carried_out(kernel.FOUR.value, given_, 4), codes, strict=True):
        assert torch.equal(found, true * scales)


def carried_out(text: str, halves: dict[str, Tensor], outputs: int) -> list[Tensor]:
    """What instructions of PTX leave in registers of two bfloat16, for many at once. halves: what
    is in them before, [n, 2], the lower half first."""
    known = {name: both[:, 0] | both[:, 1] << 16 for name, both in halves.items()}

    def value(name: str) -> Tensor:
        return known[name] if name in known else torch.tensor(int(name, 0))

    def numbers(name: str) -> Tensor:
        both = torch.stack((value(name) & 0xFFFF, value(name) >> 16), dim=-1)
        return both.to(torch.int16).view(torch.bfloat16).double()

    for line in re.findall(r"^\s*([a-z].*);$", text, re.M):
        name, _, rest = line.partition(" ")
        to, *of = (part.strip() for part in rest.split(","))
        match name:
            case "mov.b32":
                known[to] = value(of[0])
            case "shr.u32":
                known[to] = value(of[0]) >> int(of[1])
            case "lop3.b32":
                a, b, c = (value(one) for one in of[:3])
                known[to] = {"0xEA": a & b | c, "0x6A": (a & b) ^ c}[of[3]]
            case "fma.rn.bf16x2":
                a, b, c = (numbers(one) for one in of)
                both = (a * b + c).bfloat16().view(torch.int16).long() & 0xFFFF
                known[to] = both[..., 0] | both[..., 1] << 16
            case _:
                raise AssertionError(line)
    return [numbers(f"${i}").bfloat16() for i in range(outputs)]


def test_tiles_fit_every_card(kernel: Any) -> None:
    """They are compiled for an H100, which needs most; no card is needed for it."""
    script = ROOT / "tests" / "engine" / "compile_tiles.py"
    environment = {**os.environ, "TRITON_INTERPRET": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    shared = [int(line) for line in done.stdout.split()]
    assert len(shared) == sum(map(len, TILES.values()))
    assert max(shared) <= SHARED


@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize("broken", [None, "linear", "grouped_linear"])
def test_what_is_wrong_on_a_card_is_noticed(
    kernel: Any, bits: int, broken: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if broken is not None:
        right = getattr(triton_linear, broken)
        monkeypatch.setattr(triton_linear, broken, lambda *a, **k: right(*a, **k) * 1.1)
    unused = broken == "linear" and bits == 16  # torch has its own
    assert triton_linear._works(DEVICE, bits, DTYPE) == (broken is None or unused)


def test_what_is_missing_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    device = torch.device("cuda", 5)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    monkeypatch.setattr(torch.version, "hip", None)

    def no_compiler(device: torch.device, bits: int) -> bool:
        raise RuntimeError("Failed to find C compiler. Please specify via CC")

    monkeypatch.setattr(triton_linear, "_works", no_compiler)
    available.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert not available(device, 4)
        assert not available(device, 4)
    assert [record.getMessage() for record in caplog.records] == [
        "weights in few bits save no time here, triton can't compile: "
        "Failed to find C compiler. Please specify via CC"
    ]
    caplog.clear()
    available.cache_clear()
    monkeypatch.setattr(triton_linear, "_works", lambda device, bits: __import__("no_such_triton"))
    assert not available(device, 4)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    available.cache_clear()
    assert not available(device, 4)
    assert not available(torch.device("cpu"), 4)
    assert caplog.records == []
    available.cache_clear()


def test_when_it_is_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_linear, "available", lambda device, bits: True)
    x, weight = torch.randn(4, 128).bfloat16(), torch.randn(64, 128)
    few, multiplies = Quantized(weight, 4), triton_linear.multiplies
    assert multiplies(x, few, 4)
    assert multiplies(x, weight.bfloat16(), 4)
    assert not multiplies(x, few, 0)
    assert not multiplies(x, few, WIDEN_FROM)
    assert not multiplies(x.float(), few, 4)
    assert not multiplies(x, weight, 4)
    assert not multiplies(x[:, :96], Quantized(weight[:, :96], 4), 4), "groups are not whole"
    learning = x.clone().requires_grad_()
    assert not multiplies(learning, few, 4)
    assert not multiplies(x, weight.bfloat16().requires_grad_(), 4)
    with torch.inference_mode():
        assert multiplies(learning, few, 4)
    monkeypatch.setattr(triton_linear, "_has_fast_grouped_mm", lambda device: True)
    assert multiplies(x, few, 4)
    assert not multiplies(x, weight.bfloat16(), 4)


def test_a_layer_without_the_kernel_is_widened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "multiplies_int8", lambda device: False)
    layer = Linear(torch.randn(64, 128), None, "int4")
    assert isinstance(layer.weight, Quantized)
    x = torch.randn(3, 128).bfloat16()
    assert torch.equal(layer(x), F.linear(x, layer.weight.plain(torch.bfloat16)))
