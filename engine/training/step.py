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

from engine.config import ModelConfig
from engine.model import Attend, DiffusionGemma

EVEN = 64
"""Sizes that vary from step to step are rounded up to a multiple of this."""

ORDERED_SHARE = 0.75
"""Of the canvases in the middle of a fill, those that are settled from the left."""


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
) -> Losses:
    """Forward pass and losses of one batch; call `.total.backward()` on the result."""
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
    hit = hits(free, weight, conditioned, generator)
    noised = _noise(clean, hit, config.vocab_size, generator)
    positions = start.unsqueeze(1) + torch.arange(c, device=device)

    rows = conditioned.flatten().nonzero().squeeze(-1).to(device)
    soft = torch.zeros(b * k, c, config.hidden_size, dtype=model.dtype, device=device)
    with torch.no_grad():
        # The earlier pass saw the same canvas, or one that was still all noise.
        coin = torch.rand(len(rows), 1, generator=generator).to(device) < 0.5
        blank = _noise(clean[rows], free[rows], config.vocab_size, generator)
        attend = read_prefix(batch.start[:, half.to(device)], c)
        first = model.decode(torch.where(coin, blank, noised[rows]), positions[rows], attend)
        temperature = float(0.4 + 0.6 * torch.rand((), generator=generator))
        taken, count = _evened(free[rows])
        believed = (model.logits(first.flatten(0, 1)[taken]) / temperature).softmax(-1)
        noised[rows] = _mistakes(
            noised[rows], free[rows] & ~hit[rows], free[rows], believed[:count], generator
        )
        # Noise conditions as what was believed of it; what was accepted, and clamps, as themselves.
        signal = model.embed(noised[rows])
        signal[hit[rows]] = model.soft_embed(believed)[:count][hit[rows][free[rows]]]
        soft[rows] = signal

    second = model.decode(noised, positions, read_prefix(batch.start, c), soft)
    taken, count = _evened(free)
    logits = model.logits(second.flatten(0, 1)[taken])[:count]
    nats = F.cross_entropy(logits, clean[free], reduction="none")
    order = rank_in_hole(hit, free)
    nearness = 1.0 + 3.0 * (hit & (order == 0)) + 1.0 * (hit & (order == 1))
    score = (weight * nearness)[free]
    denoise = (nats * score).sum() / score.sum().clamp(min=1)
    with torch.no_grad():
        frontier = nats[(hit & (order == 0))[free]].mean()
    return Losses(denoise + causal, causal.detach(), denoise.detach(), frontier)


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


def _evened(chosen: Tensor) -> tuple[Tensor, int]:
    """The numbers of the rows that are chosen (bool [..]), padded; and their number.

    Their number is another one in each step, and a CPU's matrix library compiles and keeps a
    kernel for each that it meets: time, and gigabytes in some hours. So there are few of them.
    """
    rows = chosen.flatten().nonzero().squeeze(-1)
    count = len(rows)
    missing = -count % EVEN if count else EVEN
    return torch.cat((rows, rows.new_zeros(missing))), count


def _causal_loss(
    model: DiffusionGemma, hidden: Tensor, prefix: Tensor, bos_id: int | None
) -> Tensor:
    """Mean over all tokens but those that begin another document."""
    target = prefix[:, 1:].flatten()
    nats = F.cross_entropy(model.logits(hidden[:, :-1]).flatten(0, 1), target, reduction="none")
    inside = torch.ones_like(nats) if bos_id is None else (target != bos_id).float()
    return (nats * inside).sum() / inside.sum().clamp(min=1)


def rank_in_hole(marked: Tensor, free: Tensor) -> Tensor:
    """How many slots of `marked` come before each slot in its hole; bool [.., C] -> int64 [.., C].

    A hole is a run of free slots; what this says of other slots means nothing.
    """
    before = marked.long().cumsum(-1) - marked.long()
    at_start = torch.where(_begins(free), before, 0).cummax(-1).values
    return before - at_start


def _begins(free: Tensor) -> Tensor:
    return free & ~F.pad(free[..., :-1], (1, 0))


def hits(free: Tensor, weight: Tensor, conditioned: Tensor, generator: torch.Generator) -> Tensor:
    """Which free slots are noised, bool [canvases, C]. `conditioned` is bool [canvases, 1].

    A fill begins with noise throughout and without a signal, so most of what is not conditioned is
    noised throughout. Of the rest, most is noised from some slot of each hole on, since a small
    model settles from the left, and some at random slots with one probability a canvas.
    """
    device = free.device
    free, weight = free.cpu(), weight.cpu()
    shape = conditioned.shape
    level = torch.rand(shape, generator=generator) * 0.999 + 0.001
    level = torch.where(~conditioned & (torch.rand(shape, generator=generator) < 0.7), 1.0, level)
    scattered = torch.rand(free.shape, generator=generator) < level
    # Text and the first slack behind it are what is decided one after the other.
    decided = free & (weight == 1)
    hole = (_begins(free).long().cumsum(-1) - 1).clamp(min=0)
    count = torch.zeros_like(hole).scatter_add(1, hole, decided.long()).gather(1, hole)
    share = torch.rand(free.shape, generator=generator).gather(1, hole)
    from_left = rank_in_hole(decided, free) >= (share * count).floor()
    ordered = conditioned & (torch.rand(shape, generator=generator) < ORDERED_SHARE)
    return (free & torch.where(ordered, from_left, scattered)).to(device)


def _noise(clean: Tensor, hit: Tensor, vocab_size: int, generator: torch.Generator) -> Tensor:
    """Replaces the tokens at `hit` by ones drawn from the whole vocabulary."""
    random = torch.randint(0, vocab_size, clean.shape, generator=generator)
    return torch.where(hit, random.to(clean.device), clean)


def _mistakes(
    noised: Tensor, accepted: Tensor, free: Tensor, believed: Tensor, generator: torch.Generator
) -> Tensor:
    """Replaces a few accepted tokens by what the earlier pass might have taken instead.

    So the model learns to doubt what was accepted: one canvas in two has mistakes, at a tenth of
    its accepted slots. believed: probabilities [free slots, V].
    """
    share = 0.1 * (torch.rand(noised.shape[0], 1, generator=generator) < 0.5)
    wrong = (torch.rand(noised.shape, generator=generator) < share).to(noised.device) & accepted
    seed = int(torch.randint(2**31, (), generator=generator))
    draw = torch.Generator(noised.device).manual_seed(seed)
    out = noised.clone()
    if bool(wrong.any()):
        out[wrong] = torch.multinomial(believed[wrong[free]], 1, generator=draw).squeeze(-1)
    return out


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
