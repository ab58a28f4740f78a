"""Scaled dot-product attention with grouped query heads."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def read(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Attention of q [B, T, H, D] over k, v [B, S, K, D]; bias: of `folded`, or None: all is seen.

    q comes scaled, and is read in the precision of the keys. Query heads that share a key head are
    folded into rows, so that no key is ever copied.
    """
    b, t, h, d = q.shape
    kv_heads = k.shape[2]
    rows = q.reshape(b, t, kv_heads, h // kv_heads, d).permute(0, 2, 3, 1, 4).flatten(2, 3)
    out = F.scaled_dot_product_attention(
        rows.to(k.dtype), k.transpose(1, 2), v.transpose(1, 2), attn_mask=bias, scale=1.0
    )
    return out.unflatten(2, (h // kv_heads, t)).permute(0, 3, 1, 2, 4).flatten(2, 3).to(q.dtype)


def folded(mask: Tensor, groups: int, dtype: torch.dtype) -> Tensor:
    """What `read` adds to the scores: mask bool [T, S] (True = seen), for so many query heads of
    each key head -> [groups * T, S]. Made once for all layers of a pass."""
    bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return bias.masked_fill_(~mask, float("-inf")).repeat(groups, 1)


def read_masked(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """`read` with a mask bool [T, S], for whoever needs it once."""
    return read(q, k, v, folded(mask, q.shape[2] // k.shape[2], k.dtype))
