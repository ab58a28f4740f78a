"""Pre-norm transformers with dense layers: Llama, Qwen2, Qwen3 under their own tensor names.

RMS norm, grouped query heads, rotary positions, a gated MLP; optional biases on q, k and v
(Qwen2), optional norms of queries and keys (Qwen3), a tied head or one of its own. The encoder is
the checkpoint as it is. A decoder may have low-rank adapters that only its rows go through, the
embeddings of tokens that the checkpoint does not know (a mask), and rows of the head for them (the
end of a hole).

Reference: transformers' modeling_llama, modeling_qwen2, modeling_qwen3 (tests/engine/test_dense.py
holds them together).
Shapes: B batch, T rows, H query heads, K key/value heads, D head_dim, d hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.backbones.base import Attend
from engine.backbones.dense_config import DenseConfig, DenseLayer
from engine.backbones.linear import Format, Linear

PROJECTIONS = {
    "self_attn.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attn.o": ("self_attn.o_proj",),
    "mlp.gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.down": ("mlp.down_proj",),
}
"""The products of a layer, and the matrices of a checkpoint that are multiplied in one."""

ROWS = 8
"""On a CPU rows run in multiples of so many: the matrix library keeps a kernel for every number of
rows that it meets, and a service that lives for days would meet them all."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """What a decoder has beside the checkpoint.

    low_rank: for a matrix by its name in a layer ("3.mlp.up_proj"), A [r, in] and B [out, r]: it
    multiplies by W + scale * B A. embeddings: [E, d] of the ids from V on. head: [h, d], rows of
    the head for the first h of those.
    """

    low_rank: Mapping[str, tuple[Tensor, Tensor]]
    scale: float
    embeddings: Tensor
    head: Tensor


@dataclass(frozen=True, slots=True)
class Block:
    """A layer's products by their names in PROJECTIONS, and its norms' weights."""

    products: Mapping[str, Callable[[Tensor], Tensor]]
    input_norm: Tensor
    mlp_norm: Tensor
    q_norm: Tensor | None
    k_norm: Tensor | None


class Dense:
    """A dense backbone. `encode` reads with the checkpoint's weights, `decode` with the adapter's.

    state: the checkpoint's tensors by transformers' names, all of one precision on one device.
    format: how products of few rows are multiplied (engine.backbones.linear).
    """

    sliding_window = 1 << 30

    def __init__(
        self,
        config: DenseConfig,
        state: Mapping[str, Tensor],
        adapter: Adapter | None = None,
        format: Format = "plain",
    ) -> None:
        heads = 0 if adapter is None else len(adapter.head)
        self.config = replace(config, vocab_size=config.vocab_size + heads)
        self.format: Format = format
        self.kv: tuple[DenseLayer, ...] = config.layers
        embeddings = state["model.embed_tokens.weight"]
        self.dtype, self.device = embeddings.dtype, embeddings.device
        head = embeddings if config.tied else state["lm_head.weight"]
        if adapter is not None:
            embeddings = torch.cat((embeddings, adapter.embeddings.to(embeddings)))
            head = torch.cat((head, adapter.head.to(head)))
        self._embeddings = embeddings
        # int8 products take and give float32: so is all between them, and nothing is cast.
        self._compute = torch.float32 if format == "int8" else self.dtype
        self._head = Linear(head, format=format)
        self._norm = state["model.norm.weight"].to(self._compute)
        self._encoder = [self._layer(state, i, None) for i in range(len(config.layers))]
        self._decoder = self._encoder
        if adapter is not None:
            self._decoder = [self._layer(state, i, adapter) for i in range(len(config.layers))]
        self._count = sum(t.numel() for t in state.values())
        half = config.head_dim // 2
        steps = torch.arange(half, dtype=torch.float32, device=self.device)
        self._frequencies = 1.0 / config.rope_theta ** (steps / half)

    def parameters(self) -> Iterator[nn.Parameter]:
        """A stand-in with as many elements as the checkpoint: what it holds may be packed."""
        yield nn.Parameter(torch.empty(self._count, device="meta"), requires_grad=False)

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids [...] -> embeddings [..., d]."""
        return F.embedding(ids, self._embeddings).to(self._compute)

    def soft_embed(self, probs: Tensor) -> Tensor:
        """Probabilities [..., V] -> the embedding expected under them, [..., d]."""
        known = self._embeddings[: probs.shape[-1]]
        return (probs.to(self.dtype) @ known).to(self._compute)

    def encode(self, ids: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """Tokens [B, T] at positions [T] or [B, T] -> hidden rows [B, T, d]."""
        return self._run(self.embed(ids), positions, attend, self._encoder)

    def decode(
        self, ids: Tensor, positions: Tensor, attend: Attend, soft: Tensor | None = None
    ) -> Tensor:
        """The same by the decoder. It is not conditioned on what the last pass believed."""
        assert soft is None
        return self._run(self.embed(ids), positions, attend, self._decoder)

    def run(
        self, canvas: Tensor, soft: Tensor | None, ids: Tensor, positions: Tensor, attend: Attend
    ) -> tuple[Tensor, Tensor]:
        """`decode` of canvas [B, T] and `encode` of ids [B, S] side by side: they share attention's
        turn, and no product, since their weights differ."""
        assert soft is None
        if self._decoder is self._encoder:
            both = self.encode(torch.cat((canvas, ids), dim=1), positions, attend)
            return both[:, : canvas.shape[1]], both[:, canvas.shape[1] :]
        t = canvas.shape[1]
        rope = self._rope(positions)
        ropes = [tuple(x[..., part, :, :] for x in rope) for part in (slice(t), slice(t, None))]
        rows = [self.embed(canvas), self.embed(ids)]
        for index, layers in enumerate(zip(self._decoder, self._encoder, strict=True)):
            parts = [
                self._project(layer, x, *turn)
                for layer, x, turn in zip(layers, rows, ropes, strict=True)
            ]
            q, k, v = (torch.cat(pair, dim=1) for pair in zip(*parts, strict=True))
            read = attend(index, q, k, v).split([t, ids.shape[1]], dim=1)
            rows = [
                self._rest(layer, x, part)
                for layer, x, part in zip(layers, rows, read, strict=True)
            ]
        decoded, encoded = (self._normed(x, self._norm) for x in rows)
        return decoded, encoded

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden rows [..., d] -> logits [..., V and the adapter's rows] in float32."""
        rows = hidden.reshape(-1, hidden.shape[-1])
        out = self._head(F.pad(rows, (0, 0, 0, _spare(rows))))[: len(rows)]
        return out.float().view(*hidden.shape[:-1], -1)

    def _layer(self, state: Mapping[str, Tensor], index: int, adapter: Adapter | None) -> Block:
        prefix = f"model.layers.{index}."

        # The scale of attention's scores is part of what makes the queries.
        scale = self.config.head_dim**-0.5
        scaled_by_norm = f"{prefix}self_attn.q_norm.weight" in state

        def product(names: tuple[str, ...]) -> Linear:
            weights = [self._adapted(state, index, name, adapter) for name in names]
            biases = [state.get(f"{prefix}{name}.bias") for name in names]
            if names[0] == "self_attn.q_proj" and not scaled_by_norm:
                weights[0] = weights[0] * scale
                biases[0] = None if biases[0] is None else biases[0] * scale
            bias = None
            if any(one is not None for one in biases):
                bias = torch.cat([b for b in biases if b is not None])
            # What reads a prefix has many rows at a time; what writes has few.
            return Linear(torch.cat(weights), bias, self.format, many=adapter is None)

        def norm(name: str) -> Tensor | None:
            weight = state.get(f"{prefix}{name}.weight")
            return None if weight is None else weight.to(self._compute)

        q_norm = norm("self_attn.q_norm")
        q_norm = None if q_norm is None else q_norm * scale
        return Block(
            {product_name: product(names) for product_name, names in PROJECTIONS.items()},
            state[f"{prefix}input_layernorm.weight"].to(self._compute),
            state[f"{prefix}post_attention_layernorm.weight"].to(self._compute),
            q_norm,
            norm("self_attn.k_norm"),
        )

    def _adapted(
        self, state: Mapping[str, Tensor], index: int, name: str, adapter: Adapter | None
    ) -> Tensor:
        weight = state[f"model.layers.{index}.{name}.weight"]
        pair = None if adapter is None else adapter.low_rank.get(f"{index}.{name}")
        if adapter is None or pair is None:
            return weight
        down, up = (t.to(device=weight.device, dtype=torch.float32) for t in pair)
        return (weight.float() + adapter.scale * (up @ down)).to(weight.dtype)

    def _run(self, x: Tensor, positions: Tensor, attend: Attend, layers: list[Block]) -> Tensor:
        rows, spare = x.shape[1], _spare(x)
        if spare:
            x, positions = F.pad(x, (0, 0, 0, spare)), F.pad(positions, (0, spare))
        rope = self._rope(positions)
        for index, layer in enumerate(layers):
            q, k, v = self._project(layer, x, *rope)
            read = attend(index, q[:, :rows], k[:, :rows], v[:, :rows])
            x = self._rest(layer, x, F.pad(read, (0, 0, 0, 0, 0, spare)) if spare else read)
        return self._normed(x[:, :rows], self._norm)

    def _project(
        self, layer: Block, x: Tensor, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x [B, T, d] -> q [B, T, H, D] (rotated and scaled), k and v [B, T, K, D]."""
        config = self.config
        heads = config.heads + 2 * config.kv_heads
        rows = layer.products["self_attn.qkv"](self._normed(x, layer.input_norm))
        rows = rows.unflatten(-1, (heads, config.head_dim))
        both, v = rows.split((config.heads + config.kv_heads, config.kv_heads), dim=-2)
        if layer.q_norm is not None and layer.k_norm is not None:
            q, k = both.split((config.heads, config.kv_heads), dim=-2)
            both = torch.cat((self._normed(q, layer.q_norm), self._normed(k, layer.k_norm)), -2)
        q, k = _rotate(both, cos, sin).split((config.heads, config.kv_heads), dim=-2)
        return q, k, v

    def _rest(self, layer: Block, x: Tensor, read: Tensor) -> Tensor:
        """All that comes after attention: x [B, T, d], read [B, T, H, D] -> [B, T, d]."""
        x = x + layer.products["self_attn.o"](read.flatten(-2))
        both = layer.products["mlp.gate_up"](self._normed(x, layer.mlp_norm))
        gate, up = both.chunk(2, dim=-1)
        return x + layer.products["mlp.down"](F.silu(gate) * up)

    def _normed(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), weight, self.config.norm_eps)

    def _rope(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and signed sines [..., T, 1, D] of positions [..., T] (arXiv 2104.09864)."""
        angles = positions.unsqueeze(-1).float() * self._frequencies
        cos, sin = angles.cos(), angles.sin()
        cos, sin = torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)
        return cos.to(self._compute).unsqueeze(-2), sin.to(self._compute).unsqueeze(-2)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((second, first), dim=-1) * sin


def _spare(x: Tensor) -> int:
    """How many empty rows are to stand behind x [..., T, d]."""
    return -x.shape[-2] % ROWS if x.device.type == "cpu" else 0
