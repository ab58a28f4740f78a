"""A mixture of experts: a router that chooses some for each row, and what they do with it.

Shapes: N rows, d hidden size, E experts, k of them chosen.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.backbones.config import ModelConfig
from engine.backbones.linear import Stacked
from engine.backbones.parts import Norm, gelu
from engine.backbones.quantized import Quantized
from engine.backbones.triton_linear import grouped_linear, multiplies


class Router(nn.Module):
    """Chooses each row's experts from the raw residual."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.top_k = config.experts_per_token
        self.norm = Norm(config.hidden_size, config.norm_eps, scaled=False)
        self.proj = nn.Linear(config.hidden_size, config.experts, bias=False)
        self.scale = nn.Parameter(torch.ones(config.hidden_size))
        self.per_expert_scale = nn.Parameter(torch.ones(config.experts))
        self.root = config.hidden_size**-0.5

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [N, d] -> weights [N, k] in float32, expert indices [N, k].

        The reference takes the softmax over all experts, then makes the chosen ones sum to one:
        that is the softmax over the chosen ones.
        """
        normed = F.rms_norm(x, self.norm.size, self.scale, self.norm.eps)
        # beta 0: what is added is never looked at. alpha: the root, without rounding in between.
        scores = torch.addmm(
            self.per_expert_scale, normed, self.proj.weight.t(), beta=0, alpha=self.root
        )
        best, chosen = scores.topk(self.top_k, dim=-1)
        return best.softmax(-1, dtype=torch.float32) * self.per_expert_scale[chosen], chosen


class Experts(nn.Module):
    """Many small gated MLPs, of which each row uses a few. Weights are stacked, as in transformers.

    With few experts all of them are run on all rows, which is one batched matrix product and no
    shuffling of rows. With many, rows are sorted by expert and each expert sees its own.
    """

    DENSE_UP_TO = 4

    gate_up_proj: nn.Parameter | Stacked
    down_proj: nn.Parameter | Stacked

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        e, d, inner = config.experts, config.hidden_size, config.expert_size
        self.gate_up_proj = nn.Parameter(torch.empty(e, 2 * inner, d))
        self.down_proj = nn.Parameter(torch.empty(e, d, inner))

    def forward(self, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        """x [N, d], weights and chosen [N, k] -> [N, d]."""
        few = self.gate_up_proj.shape[0] <= self.DENSE_UP_TO
        few = few and not isinstance(self.gate_up_proj, Stacked)
        return (self.dense if few else self.grouped)(x, weights, chosen)

    def dense(self, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        """Every expert on every row; the share of those not chosen is zero."""
        share = weights.new_zeros(x.shape[0], self.gate_up_proj.shape[0])
        share = share.scatter(1, chosen, weights)  # float32 until it is applied
        assert isinstance(self.gate_up_proj, Tensor)
        assert isinstance(self.down_proj, Tensor)
        gate, up = (x @ self.gate_up_proj.transpose(1, 2)).chunk(2, dim=-1)  # [E, N, inner]
        inner = (gelu(gate) * up * share.t().unsqueeze(-1)).to(x.dtype)
        # Summing over experts inside the product: [N, E * inner] @ [E * inner, d].
        down = self.down_proj.transpose(1, 2).flatten(0, 1)
        return inner.transpose(0, 1).flatten(1) @ down

    def grouped(self, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        """Rows sorted by expert; each expert's rows form one group.

        Nothing here waits for the device, and nothing depends on which of its threads is first:
        what the k experts of a row say goes back to that row's k places, each of which is written
        once, and is summed in their order, in float32.
        """
        top_k = chosen.shape[1]
        experts, order = chosen.flatten().sort(stable=True)
        # The last row of each group, counted from 1: how many rows have an expert up to this one.
        ends = torch.searchsorted(
            experts, _numbers(self.gate_up_proj.shape[0], x.device), right=True, out_int32=True
        )
        gate_up, down = _whole(self.gate_up_proj), _whole(self.down_proj)
        rows = len(order) / self.gate_up_proj.shape[0]
        if all(one is not None and multiplies(x, one, rows) for one in (gate_up, down)):
            assert gate_up is not None
            assert down is not None
            inner = grouped_linear(x, gate_up, order, ends, top_k, first=True, gated=True)
            back = grouped_linear(inner, down, order, ends, top_k, first=False)
        else:
            both = _grouped_linear(x[order // top_k], self.gate_up_proj, ends)
            gate, up = both.chunk(2, dim=-1)
            out = _grouped_linear(gelu(gate) * up, self.down_proj, ends)
            back = torch.empty_like(out).index_copy_(0, order, out)
        back = back.unflatten(0, chosen.shape)
        return (back * weights.unsqueeze(-1)).sum(1).to(x.dtype)


def _whole(weight: Tensor | Stacked) -> Tensor | Quantized | None:
    """The weights of all experts in one; None if each is by itself."""
    return weight.whole if isinstance(weight, Stacked) else weight


def _grouped_linear(x: Tensor, weight: Tensor | Stacked, ends: Tensor) -> Tensor:
    """x [N, in] sorted into groups that end before the rows `ends` (int32 [E]), weight
    [E, out, in] -> [N, out]."""
    each = weight.each if isinstance(weight, Stacked) else None
    if isinstance(weight, Stacked) and each is None:
        weight = weight.plain(x.dtype)
    if isinstance(weight, Tensor) and _has_grouped_mm(x):
        return F.grouped_mm(x, weight.transpose(1, 2), offs=ends)
    last = ends.tolist()
    groups = [(e, x[a:b]) for e, (a, b) in enumerate(zip([0, *last], last, strict=False)) if a < b]
    if each is not None:
        return torch.cat([each[e](rows) for e, rows in groups])
    assert isinstance(weight, Tensor)
    return torch.cat([F.linear(rows, weight[e]) for e, rows in groups])


def _has_grouped_mm(x: Tensor) -> bool:
    return x.is_cuda


@cache
def _numbers(count: int, device: torch.device) -> Tensor:
    """0 … count - 1. Made once: what a pass makes anew is a kernel that is started."""
    with torch.inference_mode(False):  # training may use the same
        return torch.arange(count, device=device)
