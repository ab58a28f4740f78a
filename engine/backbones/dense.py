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

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.backbones.base import Attend
from engine.backbones.dense_config import DenseConfig, DenseLayer
from engine.backbones.linear import Linear, LowRank, cores, multiplies_int8
from engine.backbones.quantized import Format, Quantized

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
    """A layer's products by their names in PROJECTIONS, what a decoder's adapter adds to them, and
    its norms' weights."""

    products: Mapping[str, Callable[[Tensor], Tensor]]
    adapter: Mapping[str, Callable[[Tensor], Tensor]]
    input_norm: Tensor
    mlp_norm: Tensor
    q_norm: Tensor | None
    k_norm: Tensor | None


class Dense:
    """A dense backbone. `encode` reads with the checkpoint's weights, `decode` with the adapter's.

    state: the checkpoint's tensors by transformers' names, all of one precision on one device.
    format: how products are multiplied (engine.backbones.linear). count: the numbers in `state`;
    None reads it for that.
    """

    sliding_window = 1 << 30

    def __init__(
        self,
        config: DenseConfig,
        state: Mapping[str, Tensor],
        adapter: Adapter | None = None,
        format: Format = "plain",
        count: int | None = None,
    ) -> None:
        heads = 0 if adapter is None else len(adapter.head)
        self.config = replace(config, vocab_size=config.vocab_size + heads)
        self.format: Format = format
        self.kv: tuple[DenseLayer, ...] = config.layers
        embeddings = state["model.embed_tokens.weight"]
        self.dtype, self.device = embeddings.dtype, embeddings.device
        kernel = multiplies_int8(self.device)
        # Packed, the head is read once and let go of: only rows that are asked for stay.
        one = config.tied and not (format == "int8" and kernel)
        name = "model.embed_tokens.weight" if config.tied else "lm_head.weight"
        head = embeddings if one else state[name]
        if adapter is not None and len(adapter.embeddings):
            embeddings = torch.cat((embeddings, adapter.embeddings.to(embeddings)))
        if heads and adapter is not None:
            head = torch.cat((head, adapter.head.to(head)))
        # int8 products take and give float32: so is all between them, and nothing is cast.
        self._compute = torch.float32 if format == "int8" and kernel else self.dtype
        self._embeddings, rows = self._ends(embeddings, head, kernel)
        del head
        self._norm = state["model.norm.weight"].to(self._compute)
        # Packing weights takes seconds, and lets go of the interpreter. The head takes longest.
        with ThreadPoolExecutor(cores()) as pool:
            kept: Format = "plain" if format == "plain" else "int8"
            packed = pool.submit(Linear, rows, format=kept)
            made = [pool.submit(self._layer, state, i, adapter) for i in range(len(config.layers))]
            self._layers = [layer.result() for layer in made]
            self._head = packed.result()
        del rows
        self.count = sum(t.numel() for t in state.values()) if count is None else count
        half = config.head_dim // 2
        steps = torch.arange(half, dtype=torch.float32, device=self.device)
        self._frequencies = 1.0 / config.rope_theta ** (steps / half)

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids [...] -> embeddings [..., d]."""
        if isinstance(self._embeddings, Quantized):
            return self._embeddings.rows(ids, self._compute)
        return F.embedding(ids, self._embeddings).to(self._compute)

    def soft_embed(self, probs: Tensor) -> Tensor:
        """Probabilities [..., V] -> the embedding expected under them, [..., d]."""
        known = self._embeddings
        known = known.plain(self.dtype) if isinstance(known, Quantized) else known
        return (probs.to(self.dtype) @ known[: probs.shape[-1]]).to(self._compute)

    def encode(self, ids: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """Tokens [B, T] at positions [T] or [B, T] -> hidden rows [B, T, d]."""
        return self._run(self.embed(ids), positions, attend, 0)

    def decode(
        self, ids: Tensor, positions: Tensor, attend: Attend, soft: Tensor | None = None
    ) -> Tensor:
        """The same by the decoder. It is not conditioned on what the last pass believed."""
        assert soft is None
        return self._run(self.embed(ids), positions, attend, ids.shape[1])

    def run(
        self, canvas: Tensor, soft: Tensor | None, ids: Tensor, positions: Tensor, attend: Attend
    ) -> tuple[Tensor, Tensor]:
        """`decode` of canvas [B, T] and `encode` of ids [B, S] in one pass over the weights."""
        assert soft is None
        t = canvas.shape[1]
        both = self._run(self.embed(torch.cat((canvas, ids), dim=1)), positions, attend, t)
        return both[:, :t], both[:, t:]

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden rows [..., d] -> logits [..., V and the adapter's rows] in float32."""
        rows = hidden.reshape(-1, hidden.shape[-1])
        out = self._head(F.pad(rows, (0, 0, 0, _spare(rows))))[: len(rows)]
        return out.float().view(*hidden.shape[:-1], -1)

    def _ends(
        self, embeddings: Tensor, head: Tensor, kernel: bool
    ) -> tuple[Tensor | Quantized, Tensor | Quantized]:
        """The embeddings and the head's rows, in 8 bits unless the format is plain; one if they are
        the same. Where there is a kernel for 8 bits the head is packed for it, and the embeddings
        stay on the disk but for the rows that are asked for."""
        if self.format == "plain" or kernel:
            return embeddings, head
        first = Quantized(embeddings, 8)
        return first, first if head is embeddings else Quantized(head, 8)

    def _layer(self, state: Mapping[str, Tensor], index: int, adapter: Adapter | None) -> Block:
        prefix = f"model.layers.{index}."

        # The scale of attention's scores is part of what makes the queries.
        scale = self.config.head_dim**-0.5
        scaled_by_norm = f"{prefix}self_attn.q_norm.weight" in state

        def parts(names: tuple[str, ...]) -> list[float]:
            scaled = names[0] == "self_attn.q_proj" and not scaled_by_norm
            return [scale if scaled and not i else 1.0 for i in range(len(names))]

        def product(names: tuple[str, ...]) -> Linear:
            weights = [state[f"{prefix}{name}.weight"] for name in names]
            biases = [state.get(f"{prefix}{name}.bias") for name in names]
            bias = None
            if any(one is not None for one in biases):
                known = zip(biases, parts(names), strict=True)
                bias = torch.cat(
                    [b if part == 1 else b * part for b, part in known if b is not None]
                )
            scaled = zip(weights, parts(names), strict=True)
            weights = [weight if part == 1 else weight * part for weight, part in scaled]
            return Linear(torch.cat(weights), bias, self.format)

        def adapted(names: tuple[str, ...]) -> LowRank | None:
            own = {} if adapter is None else adapter.low_rank
            pairs = [own.get(f"{index}.{name}") for name in names]
            if adapter is None or not any(pairs):
                return None
            sizes = [len(state[f"{prefix}{name}.weight"]) for name in names]
            each = [size if pair is None else pair for pair, size in zip(pairs, sizes, strict=True)]
            scales = [adapter.scale * part for part in parts(names)]
            return LowRank(each, scales, self._compute)

        def norm(name: str) -> Tensor | None:
            weight = state.get(f"{prefix}{name}.weight")
            return None if weight is None else weight.to(self._compute)

        q_norm = norm("self_attn.q_norm")
        q_norm = None if q_norm is None else q_norm * scale
        low_rank = {name: adapted(names) for name, names in PROJECTIONS.items()}
        return Block(
            {name: product(names) for name, names in PROJECTIONS.items()},
            {name: one for name, one in low_rank.items() if one is not None},
            state[f"{prefix}input_layernorm.weight"].to(self._compute),
            state[f"{prefix}post_attention_layernorm.weight"].to(self._compute),
            q_norm,
            norm("self_attn.k_norm"),
        )

    def _run(self, x: Tensor, positions: Tensor, attend: Attend, decoding: int) -> Tensor:
        """Rows x [B, T, d], of which the first `decoding` are the decoder's."""
        rows, spare = x.shape[1], _spare(x)
        if spare:
            x, positions = F.pad(x, (0, 0, 0, spare)), F.pad(positions, (0, spare))
        decoding += spare if decoding == rows else 0
        rope = self._rope(positions)
        for index, layer in enumerate(self._layers):
            q, k, v = self._project(layer, x, decoding, *rope)
            read = attend(index, q[:, :rows], k[:, :rows], v[:, :rows])
            read = F.pad(read, (0, 0, 0, 0, 0, spare)) if spare else read
            x = self._rest(layer, x, decoding, read)
        return self._normed(x[:, :rows], self._norm)

    def _project(
        self, layer: Block, x: Tensor, decoding: int, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x [B, T, d] -> q [B, T, H, D] (rotated and scaled), k and v [B, T, K, D]."""
        config = self.config
        heads = config.heads + 2 * config.kv_heads
        rows = _product(layer, "self_attn.qkv", self._normed(x, layer.input_norm), decoding)
        rows = rows.unflatten(-1, (heads, config.head_dim))
        both, v = rows.split((config.heads + config.kv_heads, config.kv_heads), dim=-2)
        if layer.q_norm is not None and layer.k_norm is not None:
            q, k = both.split((config.heads, config.kv_heads), dim=-2)
            both = torch.cat((self._normed(q, layer.q_norm), self._normed(k, layer.k_norm)), -2)
        q, k = _rotate(both, cos, sin).split((config.heads, config.kv_heads), dim=-2)
        return q, k, v

    def _rest(self, layer: Block, x: Tensor, decoding: int, read: Tensor) -> Tensor:
        """All that comes after attention: x [B, T, d], read [B, T, H, D] -> [B, T, d]."""
        x = x + _product(layer, "self_attn.o", read.flatten(-2), decoding)
        both = _product(layer, "mlp.gate_up", self._normed(x, layer.mlp_norm), decoding)
        gate, up = both.chunk(2, dim=-1)
        return x + _product(layer, "mlp.down", F.silu(gate) * up, decoding)

    def _normed(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), weight, self.config.norm_eps)

    def _rope(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and signed sines [..., T, 1, D] of positions [..., T] (arXiv 2104.09864)."""
        angles = positions.unsqueeze(-1).float() * self._frequencies
        cos, sin = angles.cos(), angles.sin()
        cos, sin = torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)
        return cos.to(self._compute).unsqueeze(-2), sin.to(self._compute).unsqueeze(-2)


def _product(layer: Block, name: str, x: Tensor, decoding: int) -> Tensor:
    """A product of rows x [B, T, in], of which the first `decoding` go through the adapter, too."""
    out, adapter = layer.products[name](x), layer.adapter.get(name)
    if not decoding or adapter is None:
        return out
    if decoding == x.shape[1]:
        return out + adapter(x)
    out[:, :decoding] += adapter(x[:, :decoding])
    return out


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((second, first), dim=-1) * sin


def _spare(x: Tensor) -> int:
    """How many empty rows are to stand behind x [..., T, d]."""
    return -x.shape[-2] % ROWS if x.device.type == "cpu" else 0
