"""One training step: a long causal prefix and many canvases that each continue a part of it.

The prefix is encoded once, with a loss on every next token. Each canvas attends to the prefix up
to where it starts, and to itself in both directions, exactly as at inference.

The objective is that of Google's fine-tuning recipe for DiffusionGemma (uniform noise, one noise
level per example, self-conditioning with probability one half, plain cross entropy, encoder loss
beside it), with what makes a small model's training look like its fills: a canvas without a signal
is mostly noise throughout, and the signal of one in the middle tells accepted tokens from noise.

Shapes: B windows, N prefix tokens, K canvases a window, C canvas tokens, W sliding window.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.backbones.base import Attend
from engine.backbones.config import ModelConfig
from engine.backbones.diffusion_gemma import DiffusionGemma
from engine.training.data import LATER_SLACK
from engine.training.middle import EVEN, Canvases, after_a_pass, after_own_passes, evened
from engine.training.noise import hits, noise, rank_in_hole
from engine.training.recipe import PLAIN, Objective


@dataclass(frozen=True, slots=True)
class TensorBatch:
    """A batch as tensors; see engine.training.dataset.Batch for the meaning of the fields."""

    prefix: Tensor  # int64 [B, N]
    canvas: Tensor  # int64 [B, K, C]
    start: Tensor  # int64 [B, K], ascending in each window
    free: Tensor  # bool [B, K, C]
    weight: Tensor  # float32 [B, K, C]


@dataclass(frozen=True, slots=True)
class Losses:
    """Nats. causal: a prefix token; denoise: a weighted hole slot; frontier: the first slot of a
    hole that holds noise, which is what a fill decides next."""

    total: Tensor
    causal: Tensor
    denoise: Tensor
    frontier: Tensor


def losses(
    model: DiffusionGemma,
    batch: TensorBatch,
    generator: torch.Generator,
    bos_id: int | None,
    objective: Objective = PLAIN,
    own_passes: int = 0,
) -> Losses:
    """Forward pass and losses of one batch; call `.total.backward()` on the result.

    own_passes: 0 makes the canvases in the middle of a fill from clean text; else so many passes of
    the model do.
    """
    config = model.config
    b, k, c = batch.canvas.shape
    device = batch.prefix.device

    hidden, read_prefix = encode(model, batch.prefix)
    causal = _causal_loss(model, hidden, batch.prefix, bos_id)

    clean, free = batch.canvas.flatten(0, 1), batch.free.flatten(0, 1)  # [B * K, C]
    start = batch.start.flatten()
    # Half of each window's canvases are as in the middle of a fill, conditioned on an earlier pass.
    # The others are as before the first pass of one: mostly noise throughout.
    half = torch.randperm(k, generator=generator)[: k // 2].sort().values
    conditioned = torch.zeros(b, k, 1, dtype=torch.bool)
    conditioned[:, half] = True
    conditioned = conditioned.flatten(0, 1)
    weight = batch.weight.flatten(0, 1)
    hit = hits(free, weight, conditioned, generator, objective.from_left)
    noised = noise(clean, hit, config.vocab_size, generator)
    positions = start.unsqueeze(1) + torch.arange(c, device=device)

    rows = conditioned.flatten().nonzero().squeeze(-1).to(device)
    soft = torch.zeros(b * k, c, config.hidden_size, dtype=model.dtype, device=device)
    if len(rows):
        attend = read_prefix(batch.start[:, half.to(device)], c)
        given = Canvases(clean[rows], free[rows], weight[rows], positions[rows], attend)
        if own_passes:
            middle = after_own_passes(model, given, own_passes, objective, generator)
        else:
            middle = after_a_pass(model, given, noised[rows], hit[rows], objective, generator)
        noised[rows], hit[rows], soft[rows] = middle.ids, middle.hit, middle.signal

    second = model.decode(noised, positions, read_prefix(batch.start, c), soft)
    taken, count = evened(free)
    logits = model.logits(second.flatten(0, 1)[taken])[:count]
    nats = F.cross_entropy(logits, clean[free], reduction="none")
    score = _score(weight, hit, free, objective)
    denoise = (nats * score).sum() / score.sum().clamp(min=1)
    with torch.no_grad():
        frontier = nats[_next_in_hole(hit, free)[free]].mean()
    return Losses(denoise + causal, causal.detach(), denoise.detach(), frontier)


def _score(weight: Tensor, hit: Tensor, free: Tensor, objective: Objective) -> Tensor:
    """What each free slot counts, [free slots]: most of all what is next in a hole."""
    order = rank_in_hole(hit, free)
    nearness = 1.0 + 3.0 * (hit & (order == 0)) + 1.0 * (hit & (order == 1))
    if objective.from_left == 0:
        nearness = torch.ones_like(nearness)
    weight = torch.where(weight < 1, weight * (objective.later_slack / LATER_SLACK), weight)
    if objective.loss_on == "corrupted":
        weight = weight * hit
    return (weight * nearness)[free]


def _next_in_hole(hit: Tensor, free: Tensor) -> Tensor:
    return hit & (rank_in_hole(hit, free) == 0)


def encode(model: DiffusionGemma, prefix: Tensor) -> tuple[Tensor, Callable[[Tensor, int], Attend]]:
    """Encodes prefixes [B, N] causally; returns their hidden rows [B, N, d] and a reader.

    The reader makes the attention of canvases: given their starts [B, K] (ascending) and length C,
    what `model.decode` needs for canvases [B * K, C] that each see the prefix up to its start.
    """
    config = model.config
    keys: list[Tensor] = []
    values: list[Tensor] = []

    def attend_prefix(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys.append(k)
        values.append(v)
        window = config.sliding_window if config.layers[layer].sliding else None
        return _causal(q, k, v, window)

    n = prefix.shape[1]
    hidden = model.encode(prefix, torch.arange(n, device=prefix.device), attend_prefix)

    def read_prefix(start: Tensor, c: int) -> Attend:
        views = _Views(start, n, c, config)

        def attend_canvas(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            see = _see_window if config.layers[layer].sliding else _see_all
            return see(q, k, v, keys[layer], values[layer], views)

        return attend_canvas

    return hidden, read_prefix


def _causal_loss(
    model: DiffusionGemma, hidden: Tensor, prefix: Tensor, bos_id: int | None
) -> Tensor:
    """Mean over all tokens but those that begin another document."""
    target = prefix[:, 1:].flatten()
    nats = F.cross_entropy(model.logits(hidden[:, :-1]).flatten(0, 1), target, reduction="none")
    inside = torch.ones_like(nats) if bos_id is None else (target != bos_id).float()
    return (nats * inside).sum() / inside.sum().clamp(min=1)


class _Views:
    """What the canvases may see of the prefix: computed once, used by every layer.

    In full layers, canvases that start near each other are read together: one group sees the
    prefix up to the last start in it, under a mask, so that no prefix is copied and little is
    computed in vain.
    """

    GROUPS = 4

    def __init__(self, start: Tensor, n: int, c: int, config: ModelConfig) -> None:
        b, k = start.shape
        self.shape = (b, k, c)
        device = start.device
        self.groups: list[tuple[slice, int, Tensor]] = []
        size = -(-k // self.GROUPS)
        for low in range(0, k, size):
            part = start[:, low : low + size]
            limit, count = min(n, -(-int(part.max()) // EVEN) * EVEN), part.shape[1]
            seen = torch.arange(limit, device=device) < part.unsqueeze(-1)  # [B, count, limit]
            own = torch.eye(count, dtype=torch.bool, device=device).expand(b, -1, -1)
            mask = torch.cat((seen, own.repeat_interleave(c, 2)), dim=-1)
            mask = mask.repeat_interleave(c, 1).unsqueeze(1)  # [B, 1, count * C, limit + count * C]
            self.groups.append((slice(low * c, (low + count) * c), limit, mask))
        # Sliding layers: the last W - 1 prefix tokens before each canvas, gathered.
        width = min(config.sliding_window - 1, n)
        index = start.unsqueeze(-1) - width + torch.arange(width, device=device)  # [B, K, W - 1]
        near = F.pad(index >= 0, (0, c), value=True)  # [B, K, W - 1 + C]
        self.near = near.flatten(0, 1)[:, None, None, :].expand(b * k, 1, c, width + c)
        offset = torch.arange(b, device=device)[:, None, None] * n
        self.index = (index.clamp(min=0) + offset).flatten()


def _see_all(
    q: Tensor, k: Tensor, v: Tensor, prefix_k: Tensor, prefix_v: Tensor, views: _Views
) -> Tensor:
    """Canvas rows over their part of the prefix and their own canvas, in a full layer."""
    b, _, c = views.shape
    q, k, v = (t.reshape(b, -1, *t.shape[2:]) for t in (q, k, v))
    outs: list[Tensor] = []
    for part, limit, mask in views.groups:
        keys = torch.cat((prefix_k[:, :limit], k[:, part]), 1)
        values = torch.cat((prefix_v[:, :limit], v[:, part]), 1)
        outs.append(_sdpa(q[:, part], keys, values, mask))
    out = torch.cat(outs, 1)
    return out.reshape(-1, c, *out.shape[2:])


def _see_window(
    q: Tensor, k: Tensor, v: Tensor, prefix_k: Tensor, prefix_v: Tensor, views: _Views
) -> Tensor:
    """Canvas rows over the last W - 1 prefix tokens and their own canvas, in a sliding layer."""
    rows = q.shape[0]
    near_k = prefix_k.flatten(0, 1)[views.index].view(rows, -1, *k.shape[2:])
    near_v = prefix_v.flatten(0, 1)[views.index].view(rows, -1, *v.shape[2:])
    return _sdpa(q, torch.cat((near_k, k), 1), torch.cat((near_v, v), 1), views.near)


def _causal(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    """Causal attention [B, N, ...]; with a window, in blocks that see one block back."""
    b, n, heads, d = q.shape
    if window is None or window >= n or n % window:
        mask = None
        if window is not None and window < n:
            row = torch.arange(n, device=q.device)
            gap = row.unsqueeze(1) - row
            mask = (gap >= 0) & (gap < window)
        return _sdpa(q, k, v, mask, causal=mask is None)
    blocks = n // window
    row = torch.arange(window, device=q.device).unsqueeze(1) + window
    key = torch.arange(2 * window, device=q.device)
    mask = (key <= row) & (key > row - window)  # [W, 2W]
    first = mask & (key >= window)
    mask = torch.stack([first] + [mask] * (blocks - 1)).repeat(b, 1, 1).unsqueeze(1)

    def two_blocks(x: Tensor) -> Tensor:
        x = F.pad(x, (0, 0, 0, 0, window, 0)).unflatten(1, (blocks + 1, window))
        return torch.cat((x[:, :-1], x[:, 1:]), dim=2).flatten(0, 1)

    out = _sdpa(q.reshape(b * blocks, window, heads, d), two_blocks(k), two_blocks(v), mask)
    return out.reshape(b, n, heads, d)


def _sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool = False) -> Tensor:
    """q [B, T, H, D], k and v [B, S, K, D] -> [B, T, H, D], with gradients."""
    share = q.shape[2] // k.shape[2]
    if share > 1:
        k, v = k.repeat_interleave(share, 2), v.repeat_interleave(share, 2)
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=1.0)
    return out.transpose(1, 2)
