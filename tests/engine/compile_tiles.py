"""Compiles the kernel of engine.backbones.triton_linear for all its tiles, and prints the bytes of
shared memory that each takes, a line for each. Run by test_triton_linear.py, in a process that does
not interpret."""

from __future__ import annotations

from triton import compile as compiled  # pyright: ignore[reportMissingImports]
from triton.backends.compiler import GPUTarget  # pyright: ignore[reportMissingImports]
from triton.compiler import ASTSource  # pyright: ignore[reportMissingImports]

from engine.backbones.quantized import GROUP
from engine.backbones.triton_kernel import product
from engine.backbones.triton_linear import TILES

CODES = {16: "*bf16", 8: "*i16", 4: "*i16"}
SCALES = {8: "*fp32", 4: "*bf16"}
HOPPER = GPUTarget("cuda", 90, 32)

for bits, tiles in TILES.items():
    for tile in tiles:
        constants = {"bias": None, "INPUTS": 2816, "BITS": bits, "GROUP": GROUP, "EXPERTS": 128}
        constants |= {"TAKE": True, "PUT": False, "GATED": True, "ASM": True}
        constants |= {"BLOCK_M": tile.rows, "BLOCK_N": tile.channels, "BLOCK_K": tile.inputs}
        constants |= {} if bits in SCALES else {"scales": None}
        types = {"x": "*bf16", "codes": CODES[bits], "scales": SCALES.get(bits), "out": "*bf16"}
        types |= {"order": "*i64", "ends": "*i32"}
        signature = {
            name: "constexpr" if name in constants else types.get(name, "i32")
            for name in product.arg_names
        }
        aligned = {
            (i,): [["tt.divisibility", 16]]
            for i, (name, type) in enumerate(signature.items())
            if type.startswith("*") or name == "outputs"
        }
        source = ASTSource(product, signature, constants, aligned)
        options = {"num_warps": tile.warps, "num_stages": tile.stages}
        print(compiled(source, target=HOPPER, options=options).metadata.shared, flush=True)
