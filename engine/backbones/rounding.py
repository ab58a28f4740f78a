"""Which weights of a DiffusionGemma are kept in how many bits, and how they come into its modules.

Routers, norms, the embeddings and the head stay as they are: a router in 4 bits sends most rows to
other experts. In 4 bits are the experts, which are nine tenths of the model, and the dense MLPs;
attention, of which each row sees all, is in 8 then.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import prod

from torch import Tensor, nn

from engine.backbones.linear import Product, Stacked
from engine.backbones.quantized import Bits, Format, bytes_of

_ATTENTION = re.compile(r"layers\.\d+\.self_attn\.[qkvo]_proj\.weight")
_MLP = re.compile(
    r"(layers\.\d+\.mlp|self_conditioning)\.(gate|up|down)_proj\.weight"
    r"|layers\.\d+\.experts\.(gate_up|down)_proj"
)


def bits_of(name: str, format: Format) -> Bits | None:
    """In how many bits the weight called `name` is kept; None: as it is."""
    if format == "plain" or not (_ATTENTION.fullmatch(name) or _MLP.fullmatch(name)):
        return None
    return 4 if format == "int4" and _MLP.fullmatch(name) else 8


def bytes_in(shapes: Mapping[str, tuple[int, ...]], format: Format, itemsize: int) -> int:
    """Memory that weights of these shapes take. itemsize: bytes of a number that is not rounded."""
    total = 0
    for name, shape in shapes.items():
        bits = bits_of(name, format)
        total += prod(shape) * itemsize if bits is None else bytes_of(shape, bits)
    return total


def put(model: nn.Module, name: str, weight: Tensor, bits: Bits) -> None:
    """Puts a weight in so many bits in the place of the parameter called `name`."""
    format: Format = "int8" if bits == 8 else "int4"
    parent, _, own = name.removesuffix(".weight").rpartition(".")
    module = model.get_submodule(parent)
    old = getattr(module, own)
    delattr(module, own)
    kept = Product(weight, old.bias, format) if isinstance(old, nn.Linear) else None
    module.register_module(own, kept or Stacked(weight, format))
