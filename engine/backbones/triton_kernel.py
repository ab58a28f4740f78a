"""The kernel of engine.backbones.triton_linear. It needs triton, which comes with torch for CUDA.

A tile is the transposed product, weights [channels, inputs] times rows [inputs, rows]: widened
weights then go from registers into the matrix units (on Hopper the left operand alone can), and
never back to shared memory.
"""

from __future__ import annotations

# triton is not there where types are checked, and what it compiles is no Python.
# pyright: basic, reportMissingImports=false, reportGeneralTypeIssues=false
import triton
import triton.language as tl

# Codes become numbers without the units that convert integers, which are slower than the memory:
# the last of the seven bits behind the point of 128.0 counts one. Two numbers in a register.
EIGHT = tl.constexpr(
    """{
    .reg .b32 minus, word, low, sign;
    mov.b32 minus, 0xBF80BF80;
    lop3.b32 low, $2, 0x007F007F, 0x43004300, 0xEA;
    lop3.b32 sign, $2, 0x00800080, 0x43004300, 0xEA;
    fma.rn.bf16x2 $0, sign, minus, low;
    shr.u32 word, $2, 8;
    lop3.b32 low, word, 0x007F007F, 0x43004300, 0xEA;
    lop3.b32 sign, word, 0x00800080, 0x43004300, 0xEA;
    fma.rn.bf16x2 $1, sign, minus, low;
}"""
)
# Its sign turned, a code is one of 0 … 15: minus 136 (which is exact), times the scale.
FOUR = tl.constexpr(
    """{
    .reg .b32 one, minus, zero, word;
    mov.b32 one, 0x3F803F80;
    mov.b32 minus, 0xC308C308;
    mov.b32 zero, 0x80008000;
    lop3.b32 word, $4, 0x000F000F, 0x43084308, 0x6A;
    fma.rn.bf16x2 word, word, one, minus;
    fma.rn.bf16x2 $0, word, $5, zero;
    shr.u32 word, $4, 4;
    lop3.b32 word, word, 0x000F000F, 0x43084308, 0x6A;
    fma.rn.bf16x2 word, word, one, minus;
    fma.rn.bf16x2 $1, word, $5, zero;
    shr.u32 word, $4, 8;
    lop3.b32 word, word, 0x000F000F, 0x43084308, 0x6A;
    fma.rn.bf16x2 word, word, one, minus;
    fma.rn.bf16x2 $2, word, $5, zero;
    shr.u32 word, $4, 12;
    lop3.b32 word, word, 0x000F000F, 0x43084308, 0x6A;
    fma.rn.bf16x2 word, word, one, minus;
    fma.rn.bf16x2 $3, word, $5, zero;
}"""
)


@triton.jit
def read(where, there, EVEN: tl.constexpr):
    """What is at some places; zeros for those that are not there, unless all are."""
    if EVEN:
        return tl.load(where)
    else:
        return tl.load(where, mask=there, other=0)


@triton.jit
def eight_bits(words, dtype: tl.constexpr, ASM: tl.constexpr):
    """int16 -> the numbers in its low byte and its high one."""
    if ASM:
        return tl.inline_asm_elementwise(
            EIGHT, "=&r,=r,r", [words], (tl.bfloat16, tl.bfloat16), True, 2
        )
    else:
        return ((words << 8) >> 8).to(dtype), (words >> 8).to(dtype)


@triton.jit
def four_bits(words, scale, dtype: tl.constexpr, ASM: tl.constexpr):
    """int16, bfloat16 -> what its four bits stand for, from the lowest on."""
    if ASM:
        return tl.inline_asm_elementwise(
            FOUR,
            "=&r,=&r,=&r,=r,r,r",
            [words, scale],
            (tl.bfloat16, tl.bfloat16, tl.bfloat16, tl.bfloat16),
            True,
            2,
        )
    else:
        wide = scale.to(tl.float32)
        return (
            (((words << 12) >> 12).to(tl.float32) * wide).to(dtype),
            (((words << 8) >> 12).to(tl.float32) * wide).to(dtype),
            (((words << 4) >> 12).to(tl.float32) * wide).to(dtype),
            ((words >> 12).to(tl.float32) * wide).to(dtype),
        )


@triton.jit
def find(ends, block, experts, EXPERTS: tl.constexpr, BLOCK_M: tl.constexpr):
    """Which expert a block of rows belongs to (at least `experts`: none), its first row, and the
    last row of the expert."""
    at = tl.arange(0, EXPERTS)
    end = tl.load(ends + at, mask=at < experts, other=0)
    begin = tl.load(ends + at - 1, mask=(at > 0) & (at < experts), other=0)
    blocks = (end - begin + BLOCK_M - 1) // BLOCK_M
    before = tl.cumsum(blocks, 0) <= block
    expert = tl.sum(before.to(tl.int32), 0)
    inside = block - tl.sum(tl.where(before, blocks, 0), 0)
    first = tl.load(ends + expert - 1, mask=(expert > 0) & (expert < experts), other=0)
    last = tl.load(ends + expert, mask=expert < experts, other=0)
    return expert, first + inside * BLOCK_M, last


@triton.jit(do_not_specialize=["rows", "top_k", "experts"])
def product(
    x,
    codes,
    scales,
    bias,
    out,
    order,
    ends,
    rows,
    outputs,
    top_k,
    experts,
    INPUTS: tl.constexpr,
    BITS: tl.constexpr,
    GROUP: tl.constexpr,
    EXPERTS: tl.constexpr,
    TAKE: tl.constexpr,
    PUT: tl.constexpr,
    GATED: tl.constexpr,
    ASM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """A block of BLOCK_M rows times BLOCK_N channels of their expert.

    EXPERTS: a power of two, or 0 where all rows belong to one group. TAKE: row i is that of x which
    place order[i] is of. PUT: row i is written to place order[i]. GATED: channels are pairs of a
    gate and what it gates. GROUP: inputs that share a scale.
    """
    block = tl.program_id(0)
    if EXPERTS:
        expert, first, last = find(ends, block, experts, EXPERTS, BLOCK_M)
        if expert >= experts:
            return
    else:
        expert, first, last = 0, block * BLOCK_M, rows
    row = first + tl.arange(0, BLOCK_M)
    real = row < last
    place = row
    if TAKE or PUT:
        place = tl.load(order + row, mask=real, other=0)
    source = tl.where(real, place.to(tl.int32) // top_k if TAKE else row, 0).to(tl.int64) * INPUTS
    taken = x + source[None, :]

    i = tl.arange(0, BLOCK_N)
    if GATED:
        column = tl.program_id(1) * (BLOCK_N // 2) + i // 2
        channel = tl.where(column < outputs, column + i % 2 * outputs, 0)
        channel += tl.cast(expert, tl.int64) * (2 * outputs)
    else:
        column = tl.program_id(1) * BLOCK_N + i
        channel = tl.where(column < outputs, column, 0) + tl.cast(expert, tl.int64) * outputs

    EVEN: tl.constexpr = INPUTS % BLOCK_K == 0
    kind: tl.constexpr = x.dtype.element_ty
    sums = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    if BITS == 16:
        stored = codes + (channel * INPUTS)[:, None]
        for start in range(0, INPUTS, BLOCK_K):
            at = start + tl.arange(0, BLOCK_K)
            there = at < INPUTS
            w = read(stored + at[None, :], there[None, :], EVEN)
            sums = tl.dot(w, read(taken + at[:, None], there[:, None], EVEN), sums)
    else:
        PARTS: tl.constexpr = 16 // BITS
        EACH: tl.constexpr = GROUP // PARTS
        WORDS: tl.constexpr = BLOCK_K // PARTS
        stored = codes + (channel * (INPUTS // PARTS))[:, None]
        for start in range(0, INPUTS // PARTS, WORDS):
            at = start + tl.arange(0, WORDS)
            there = at < INPUTS // PARTS
            words = read(stored + at[None, :], there[None, :], EVEN)
            if BITS == 8:
                ws = eight_bits(words, kind, ASM)
            else:
                group = start // EACH + tl.arange(0, BLOCK_K // GROUP)
                steps = scales + (channel * (INPUTS // GROUP))[:, None] + group[None, :]
                scale = read(steps, (group < INPUTS // GROUP)[None, :], EVEN)
                scale = tl.broadcast_to(scale[:, :, None], (BLOCK_N, BLOCK_K // GROUP, EACH))
                ws = four_bits(words, tl.reshape(scale, (BLOCK_N, WORDS)), kind, ASM)
            first_of = at + at // EACH * (GROUP - EACH)  # the input in a word's lowest bits
            for p in tl.static_range(PARTS):
                some = read(taken + (first_of + p * EACH)[:, None], there[:, None], EVEN)
                sums = tl.dot(ws[p], some, sums)
        if BITS == 8:
            sums *= tl.load(scales + channel)[:, None]
    if bias is not None:
        sums += tl.load(bias + channel).to(tl.float32)[:, None]

    if GATED:
        pairs = tl.permute(tl.reshape(sums, (BLOCK_N // 2, 2, BLOCK_M)), (0, 2, 1))
        gate, up = tl.split(pairs)
        # tanh(z) = 2 sigmoid(2 z) - 1
        z = 0.7978845608028654 * (gate + 0.044715 * gate * gate * gate)
        sums = gate * tl.sigmoid(2 * z) * up
        column = tl.program_id(1) * (BLOCK_N // 2) + tl.arange(0, BLOCK_N // 2)
    target = (place if PUT else row).to(tl.int64) * outputs
    where = out + target[None, :] + column[:, None]
    tl.store(where, sums.to(out.dtype.element_ty), mask=real[None, :] & (column < outputs)[:, None])
