"""What the layers of a backbone are made of: the norm, the activation, rotary positions.

Shapes: B batch, T rows, H heads, D head_dim.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.backbones.config import LayerConfig


class Norm(nn.Module):
    """Root-mean-square norm, computed in float32; `scaled` ones have a learnt weight."""

    weight: Tensor | None

    def __init__(self, size: int, eps: float, scaled: bool = True) -> None:
        super().__init__()
        self.eps = eps
        self.size = (size,)
        self.weight = nn.Parameter(torch.ones(size)) if scaled else None

    def forward(self, x: Tensor) -> Tensor:
        """x [..., size] -> the same, normed. torch computes it in float32 and rounds once at the
        end, whatever the precision of x: the same bits as with casts around it."""
        return F.rms_norm(x, self.size, self.weight, self.eps)


def gelu(x: Tensor) -> Tensor:
    """The Gaussian error linear unit in its tanh form, as Gemma was trained with."""
    return F.gelu(x, approximate="tanh")


def rope_table(layer: LayerConfig, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines [..., T, 1, D] of positions [..., T]; unrotated pairs get angle 0. The
    first half of the sines is negative, as `rotate` needs it.

    Source: RoFormer (arXiv 2104.09864); "proportional" as in transformers' modeling_rope_utils.
    """
    frequencies, signed = _frequencies(layer, positions.device)
    at = positions.unsqueeze(-1).unsqueeze(-1)
    return (at * frequencies).cos().to(dtype), (at * signed).sin().to(dtype)


@cache
def _frequencies(layer: LayerConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    """Radians per position of each dimension of a head, [D] in float32; and the same with the first
    half turned the other way round."""
    with torch.inference_mode(False):  # training may use the same
        steps = torch.arange(0, 2 * layer.rotated, 2, dtype=torch.float32, device=device)
        half = F.pad(
            1.0 / layer.rope_theta ** (steps / layer.rope_dim),
            (0, layer.head_dim // 2 - layer.rotated),
        )
        return torch.cat((half, half)), torch.cat((-half, half))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates x [B, T, H, D] by its positions' angles, as `rope_table` gives them."""
    first, second = x.chunk(2, dim=-1)
    return torch.addcmul(x * cos, torch.cat((second, first), dim=-1), sin)
