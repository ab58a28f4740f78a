"""Products with weights as they are stored, in bf16, 8 or 4 bits, on CUDA cards from Ampere on.

A canvas is few rows, so that a product takes as long as its weights are read: of a quarter of the
bytes, a quarter of the time. One kernel (engine.backbones.triton_kernel) widens them in registers,
for a linear layer and for experts, which all see their own rows in one launch. It never waits for
the host, and what it gives does not depend on which program is first.

Triton comes with torch for CUDA, and compiles by a C compiler of the system. Without either,
products go the way that they go on other devices.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.backbones.quantized import GROUP, Quantized

_log = logging.getLogger(__name__)

WIDEN_FROM = 1024
"""From so many rows a weight on, widening it once costs less than doing so for each block of them:
a dense product of the library is then bound by arithmetic, and twice as fast at it."""

_ROUNDING = 0.02
"""How far a product may be from one that is not rounded: what bfloat16 costs, several times."""

PROGRAMS = 256
"""So many keep a card busy: where a product has fewer, they are made smaller."""


class Tile(NamedTuple):
    """What a program multiplies at a time, and how: rows, channels and inputs of a block; warps;
    how many blocks of inputs are under way. At most 99 KiB of shared memory, which is what smaller
    cards have."""

    rows: int
    channels: int
    inputs: int
    warps: int
    stages: int


TILES = {
    4: (
        Tile(16, 128, 128, 4, 4),
        Tile(32, 128, 128, 4, 4),
        Tile(64, 128, 128, 4, 3),
        Tile(128, 128, 64, 8, 3),
    ),
    8: (
        Tile(16, 64, 128, 4, 4),
        Tile(32, 64, 128, 4, 4),
        Tile(64, 64, 128, 4, 3),
        Tile(128, 128, 64, 8, 3),
    ),
    16: (
        Tile(16, 64, 128, 4, 3),
        Tile(32, 64, 128, 4, 3),
        Tile(64, 64, 64, 4, 3),
        Tile(128, 128, 64, 8, 3),
    ),
}
"""By bits, for so many rows a weight at most; the last one for all above."""


def tile_for(rows: float, outputs: int, bits: int) -> Tile:
    """The tile for a product of so many rows with each weight [outputs, in]."""
    tile = next((one for one in TILES[bits] if one.rows >= rows), TILES[bits][-1])
    few = -(-rows // tile.rows) * (outputs // tile.channels) < PROGRAMS
    return tile._replace(channels=64, warps=4) if few and tile.rows < 128 else tile


def multiplies(x: Tensor, weight: Tensor | Quantized, rows: float) -> bool:
    """Whether the kernel is the way to multiply x [..., in] by a weight [..., out, in], or each of
    a stack by so many rows. It has no gradients."""
    if not 0 < rows < WIDEN_FROM or weight.shape[-1] % GROUP:
        return False
    if isinstance(weight, Tensor):
        if weight.dtype != torch.bfloat16 or _has_fast_grouped_mm(x.device):
            return False
        if torch.is_grad_enabled() and weight.requires_grad:
            return False
    if x.dtype != torch.bfloat16 or (torch.is_grad_enabled() and x.requires_grad):
        return False
    return available(x.device, _bits(weight))


@cache
def _has_fast_grouped_mm(device: torch.device) -> bool:
    """Whether torch multiplies groups in bfloat16 by a kernel of its own. Elsewhere it reads their
    sizes back and multiplies one after the other."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] in (9, 10)


@cache
def available(device: torch.device, bits: int) -> bool:
    """Whether a device has the kernel for weights of so many bits. The first time some products are
    compared with torch's: what is missing or wrong is said in one line, and not tried again."""
    if device.type != "cuda" or torch.version.hip is not None:
        return False
    if torch.cuda.get_device_capability(device) < (8, 0):
        return False
    try:
        if _works(device, bits):
            return True
        reason = "a first product was wrong"
    except ImportError:  # of Windows, say
        return False
    except Exception as problem:
        lines = str(problem).strip().splitlines() or [type(problem).__name__]
        reason = lines[-1]
    _log.warning("weights in few bits save no time here, triton can't compile: %s", reason)
    return False


def _works(device: torch.device, bits: int, dtype: torch.dtype = torch.bfloat16) -> bool:
    """Whether products of all kinds are right. What a card and its compiler make of them nobody can
    know before, and what is wrong would be read as text."""
    draw = torch.Generator().manual_seed(bits)
    size, top_k = 2 * GROUP, 2
    x = torch.randn(5, size, generator=draw).to(device, dtype)
    stack = torch.randn(3, size, size, generator=draw).to(device, dtype)
    weight = stack if bits == 16 else Quantized(stack, 8 if bits == 8 else 4)
    exact = (stack if isinstance(weight, Tensor) else weight.plain(dtype)).float()
    chosen = torch.tensor([[0, 2], [2, 0], [0, 2], [2, 0], [0, 2]], device=device)
    experts, order = chosen.flatten().sort(stable=True)
    ends = (experts <= torch.arange(3, device=device).unsqueeze(1)).sum(1).int()
    inner = grouped_linear(x, weight, order, ends, top_k, first=True, gated=True)
    rows = torch.einsum("ni,eoi->eno", x.float(), exact)[experts, order // top_k]
    gate, up = rows.chunk(2, dim=-1)
    right = _alike(inner, F.gelu(gate, approximate="tanh") * up)
    if bits != 16:
        one = Quantized(stack[0], 8 if bits == 8 else 4)
        right &= _alike(linear(x, one), x.float() @ one.plain(dtype).float().T)
        back = grouped_linear(x.repeat(2, 1), weight, order, ends, top_k, first=False)
        want = torch.einsum("mi,moi->mo", x.repeat(2, 1).float(), exact[experts])
        right &= _alike(back, torch.empty_like(want).index_copy_(0, order, want))
    return right


def _alike(some: Tensor, others: Tensor) -> bool:
    return bool((some.float() - others).norm() <= _ROUNDING * others.norm())


def linear(
    x: Tensor, weight: Tensor | Quantized, bias: Tensor | None = None, tile: Tile | None = None
) -> Tensor:
    """x [..., in] in bfloat16, weight [out, in], bias [out] -> [..., out], summed in float32."""
    rows = x.reshape(-1, x.shape[-1])
    tile = tile or tile_for(len(rows), weight.shape[0], _bits(weight))
    out = x.new_empty(len(rows), weight.shape[0])
    _launch(rows, weight, out, tile, -(-len(rows) // tile.rows), bias=bias)
    return out.view(*x.shape[:-1], -1)


def grouped_linear(
    x: Tensor,
    weight: Tensor | Quantized,
    order: Tensor,
    ends: Tensor,
    top_k: int,
    *,
    first: bool,
    gated: bool = False,
    tile: Tile | None = None,
) -> Tensor:
    """The products of N rows with top_k experts each, of E. weight [E, out, in].

    The M = N top_k places, k after each other for each row, are sorted by expert: place order[i]
    (int64 [M]) is the i-th, and those of expert e end before ends[e] (int32 [E]).

    first: from rows x [N, in] to sorted ones. Otherwise from sorted ones, x [M, in], to places.
    gated: weight's outputs are first gates, then as many that are multiplied by the gates' GELU (in
    its tanh form) -> [M, out / 2]; otherwise -> [M, out].
    """
    experts, outputs = weight.shape[0], weight.shape[1] // (2 if gated else 1)
    places = len(order)
    rows = 2 * places / experts  # some see twice as many as others
    tile = tile or tile_for(rows, experts * outputs, _bits(weight))
    # As many blocks as there can be: a full one for so many rows, and one that is not for each.
    blocks = places // tile.rows + min(experts, places)
    out = x.new_empty(places, outputs)
    _launch(x, weight, out, tile, blocks, None, order, ends, top_k, first=first, gated=gated)
    return out


def _bits(weight: Tensor | Quantized) -> int:
    return weight.bits if isinstance(weight, Quantized) else 16


def _launch(
    x: Tensor,
    weight: Tensor | Quantized,
    out: Tensor,
    tile: Tile,
    blocks: int,
    bias: Tensor | None = None,
    order: Tensor | None = None,
    ends: Tensor | None = None,
    top_k: int = 1,
    *,
    first: bool = False,
    gated: bool = False,
) -> None:
    # Only here: triton is not everywhere, and takes a second.
    from engine.backbones.triton_kernel import product

    few = weight if isinstance(weight, Quantized) else None
    codes = weight.codes if isinstance(weight, Quantized) else weight
    outputs = out.shape[1]
    experts = 0 if ends is None else len(ends)
    columns = -(-outputs * (2 if gated else 1) // tile.channels)
    kernel: Any = product
    with torch.cuda.device_of(x):
        kernel[(blocks, columns)](
            x.contiguous(),
            codes,
            None if few is None else few.scales,
            bias,
            out,
            order,
            ends,
            len(x),
            outputs,
            top_k,
            experts,
            INPUTS=weight.shape[-1],
            BITS=_bits(weight),
            GROUP=GROUP,
            EXPERTS=1 << (experts - 1).bit_length() if experts else 0,
            TAKE=order is not None and first,
            PUT=order is not None and not first,
            GATED=gated,
            ASM=x.is_cuda,
            BLOCK_M=tile.rows,
            BLOCK_N=tile.channels,
            BLOCK_K=tile.inputs,
            num_warps=tile.warps,
            num_stages=tile.stages,
        )
