"""Scaled dot-product attention with grouped query heads."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def read(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention of q [B, T, H, D] over k, v [B, S, K, D] with mask [T, S] (True = seen).

    q comes scaled. Query heads that share a key head are folded into rows, so that no key is ever
    copied.
    """
    b, t, h, d = q.shape
    kv_heads = k.shape[2]
    q = q.reshape(b, t, kv_heads, h // kv_heads, d).permute(0, 2, 3, 1, 4).flatten(2, 3)
    if mask is not None:
        mask = mask.repeat(h // kv_heads, 1)
    out = F.scaled_dot_product_attention(
        q, k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask, scale=1.0
    )
    return out.unflatten(2, (h // kv_heads, t)).permute(0, 3, 1, 2, 4).flatten(2, 3)
