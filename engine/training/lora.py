"""Low-rank adapters: W + scale * up @ down in the place of a frozen W, for matrices and stacks.

The sum is what the forward pass uses, in the precision of the weights: what is trained is what
`merged` writes, and linear layers and stacked experts are one case.
Source: LoRA (arXiv 2106.09685); as there, `down` starts at random and `up` at zero.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from engine.backbones.diffusion_gemma import Attention, DiffusionGemma, Experts, GatedMLP, Layer

_TRAINED = re.compile(r"(?P<module>.*)\.parametrizations\.(?P<name>\w+)\.0\.(?P<part>up|down)")


class LowRank(nn.Module):
    """Adds a low-rank matrix to a weight [..., out, in]; each matrix of a stack gets its own."""

    def __init__(self, weight: Tensor, rank: int, scale: float, generator: torch.Generator) -> None:
        super().__init__()
        *stack, rows, columns = weight.shape
        self.scale = scale
        down = torch.randn(*stack, rank, columns, generator=generator) * columns**-0.5
        self.down = nn.Parameter(down.to(weight))
        self.up = nn.Parameter(weight.new_zeros(*stack, rows, rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.scale * (self.up @ self.down)


def attach(model: DiffusionGemma, rank: int, scale: float, seed: int) -> None:
    """Freezes the model and gives all matrices of its layers adapters: attention, MLPs, experts."""
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for layer in model.layers:
        assert isinstance(layer, Layer)
        for module in layer.modules():
            if isinstance(module, Experts):
                names = ["gate_up_proj", "down_proj"]
                targets = [(module, name) for name in names]
            elif isinstance(module, Attention | GatedMLP):
                own = [child for child in module.children() if isinstance(child, nn.Linear)]
                targets = [(child, "weight") for child in own]
            else:
                continue
            for owner, name in targets:
                adapter = LowRank(owner.get_parameter(name), rank, scale, generator)
                parametrize.register_parametrization(owner, name, adapter)


def adapters(trained: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Trained tensors of a model with adapters, by the name of the weight and `.up` or `.down`."""
    named: dict[str, Tensor] = {}
    for name, tensor in trained.items():
        match = _TRAINED.fullmatch(name)
        assert match, f"{name} belongs to no adapter"
        named[f"{match['module']}.{match['name']}.{match['part']}"] = tensor
    return named


def merged(name: str, weight: Tensor, own: Mapping[str, Tensor], scale: float) -> Tensor:
    """A weight with its adapter, if `own` (of `adapters`) has one, in the weight's precision."""
    up, down = own.get(f"{name}.up"), own.get(f"{name}.down")
    if up is None or down is None:
        return weight
    return weight + (scale * (up.to(weight) @ down.to(weight)))
