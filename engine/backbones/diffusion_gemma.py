"""The forward pass of DiffusionGemma: one stack of layers that serves as encoder and as decoder.

The encoder reads the prefix causally; the decoder sees the prefix and the whole canvas in both
directions. They share all weights but each layer's scalar. Who sees whom is not decided here: the
caller hands in an `Attend`, which gets a layer's queries, keys and values and returns what was read
(the prefix cache, the canvas, or training's block mask).

It knows nothing of sampling, tokenizers or files. Parameter names follow transformers'
`DiffusionGemmaForBlockDiffusion`, so that the same state dict loads in both
(reference: transformers.models.diffusion_gemma; tests/engine/test_parity.py holds them together).

Shapes: B batch, T rows, H query heads, K key/value heads, D head_dim, d hidden size, V vocabulary.
"""

from __future__ import annotations

from functools import cache
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.backbones.base import Attend
from engine.backbones.config import LayerConfig, ModelConfig
from engine.backbones.experts import Experts, Router
from engine.backbones.linear import Product, Stacked
from engine.backbones.parts import Norm, gelu, rope_table, rotate
from engine.backbones.quantized import Format

ROWS = 8
"""On a CPU rows are run in multiples of so many: the matrix library keeps a kernel for every number
of rows that it meets, and a service that lives for days would meet them all."""


class Attention(nn.Module):
    """Projections, norms and rotation of one layer; the reading itself is the caller's."""

    def __init__(self, config: ModelConfig, layer: LayerConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = config.heads, layer.kv_heads, layer.head_dim
        d, bias = config.hidden_size, config.attention_bias
        self.q_proj = nn.Linear(d, self.heads * self.head_dim, bias=bias)
        self.k_proj = nn.Linear(d, self.kv_heads * self.head_dim, bias=bias)
        # Full layers take their values from k_proj, before its norm and rotation.
        self.v_proj = (
            nn.Linear(d, self.kv_heads * self.head_dim, bias=bias) if layer.sliding else None
        )
        self.o_proj = nn.Linear(self.heads * self.head_dim, d, bias=bias)
        self.q_norm = Norm(self.head_dim, config.norm_eps)
        self.k_norm = Norm(self.head_dim, config.norm_eps)
        self.v_norm = Norm(self.head_dim, config.norm_eps, scaled=False)

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [B, T, d] -> q [B, T, H, D], k and v [B, T, K, D], normed and rotated."""
        q = self.q_proj(x).unflatten(-1, (self.heads, self.head_dim))
        k = self.k_proj(x).unflatten(-1, (self.kv_heads, self.head_dim))
        v = k if self.v_proj is None else self.v_proj(x).unflatten(-1, k.shape[-2:])
        both = torch.cat((self.q_norm(q), self.k_norm(k)), dim=-2)
        q, k = rotate(both, cos, sin).split((self.heads, self.kv_heads), dim=-2)
        return q, k, self.v_norm(v)


class GatedMLP(nn.Module):
    """down(gelu(gate(x)) * up(x))."""

    def __init__(self, size: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(size, inner, bias=False)
        self.up_proj = nn.Linear(size, inner, bias=False)
        self.down_proj = nn.Linear(inner, size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(gelu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """Attention, then a dense MLP beside a mixture of experts; every branch is normed twice."""

    layer_scalar: Tensor
    encoder_layer_scalar: Tensor

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        size, eps = config.hidden_size, config.norm_eps
        self.index = index
        self.self_attn = Attention(config, config.layers[index])
        self.mlp = GatedMLP(size, config.intermediate_size)
        self.router = Router(config)
        self.experts = Experts(config)
        self.input_layernorm = Norm(size, eps)
        self.post_attention_layernorm = Norm(size, eps)
        self.pre_feedforward_layernorm = Norm(size, eps)
        self.pre_feedforward_layernorm_2 = Norm(size, eps)
        self.post_feedforward_layernorm = Norm(size, eps)
        self.post_feedforward_layernorm_1 = Norm(size, eps)
        self.post_feedforward_layernorm_2 = Norm(size, eps)
        self.register_buffer("layer_scalar", torch.ones(1))
        self.register_buffer("encoder_layer_scalar", torch.ones(1))

    def forward(
        self, x: Tensor, rope: tuple[Tensor, Tensor], attend: Attend, decoded: int
    ) -> Tensor:
        """x [B, T, d] -> [B, T, d]. The first `decoded` rows are the decoder's, the others the
        encoder's."""
        q, k, v = self.before(x, *rope)
        x = self.after(x, attend(self.index, q, k, v))
        return x * self._scalar(decoded, x.shape[1] - decoded)

    def before(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All that comes before attention. Training compiles this and `after`."""
        return self.self_attn.project(self.input_layernorm(x), cos, sin)

    def after(self, x: Tensor, read: Tensor) -> Tensor:
        """All that comes after attention: x [B, T, d], read [B, T, H, D] -> [B, T, d]."""
        x = x + self.post_attention_layernorm(self.self_attn.o_proj(read.flatten(-2)))
        rows = x.flatten(0, 1)  # [N, d]
        dense = self.post_feedforward_layernorm_1(self.mlp(self.pre_feedforward_layernorm(rows)))
        sparse = self.experts(self.pre_feedforward_layernorm_2(rows), *self.router(rows))
        sparse = self.post_feedforward_layernorm_2(sparse)
        return (rows + self.post_feedforward_layernorm(dense + sparse)).view_as(x)

    def _scalar(self, decoded: int, encoded: int) -> Tensor:
        if not decoded:
            return self.encoder_layer_scalar
        if not encoded:
            return self.layer_scalar
        both = (self.layer_scalar.expand(decoded), self.encoder_layer_scalar.expand(encoded))
        return torch.cat(both).unsqueeze(-1)


class SelfConditioning(GatedMLP):
    """Mixes what the last pass believed (soft embeddings) into the canvas' embeddings."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config.hidden_size, config.intermediate_size)
        self.pre_norm = Norm(config.hidden_size, config.norm_eps)
        self.post_norm = Norm(config.hidden_size, config.norm_eps, scaled=False)

    def forward(self, x: Tensor, soft: Tensor | None = None) -> Tensor:
        """x, soft [B, T, d]. Without a signal the norm still runs, as in the reference."""
        return self.post_norm(x if soft is None else x + super().forward(self.pre_norm(soft)))


class DiffusionGemma(nn.Module):
    """The text model. `encode` reads the prefix, `decode` the canvas, `run` both side by side; all
    return hidden rows.

    format: what its weights are kept in (engine.backbones.rounding).
    """

    format: Format = "plain"

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, i) for i in range(len(config.layers)))
        self.norm = Norm(config.hidden_size, config.norm_eps)
        self.self_conditioning = SelfConditioning(config)

    @property
    def count(self) -> int:
        """How many numbers its weights have."""
        few = (m for m in self.modules() if isinstance(m, Product | Stacked))
        return sum(p.numel() for p in self.parameters()) + sum(prod(m.shape) for m in few)

    @property
    def kv(self) -> tuple[LayerConfig, ...]:
        """What each layer keeps of a row."""
        return self.config.layers

    @property
    def sliding_window(self) -> int:
        return self.config.sliding_window

    @property
    def dtype(self) -> torch.dtype:
        return self.embed_tokens.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.embed_tokens.weight.device

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids [...] -> embeddings [..., d], scaled by the root of the hidden size."""
        return self.embed_tokens(ids) * _rounded(self.config.hidden_size**0.5, self.dtype)

    def soft_embed(self, probs: Tensor) -> Tensor:
        """Probabilities [..., V] -> the embedding expected under them, [..., d]."""
        scale = _rounded(self.config.hidden_size**0.5, self.dtype)
        return probs.to(self.dtype) @ self.embed_tokens.weight * scale

    def encode(self, ids: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """Prefix tokens [B, T] at positions [T] or [B, T] -> hidden rows [B, T, d]."""
        return self._run(self.embed(ids), positions, attend, decoded=0)

    def decode(
        self, ids: Tensor, positions: Tensor, attend: Attend, soft: Tensor | None = None
    ) -> Tensor:
        """Canvas tokens [B, T], with the last pass' soft embeddings [B, T, d] -> [B, T, d]."""
        x = self.self_conditioning(self.embed(ids), soft)
        return self._run(x, positions, attend, decoded=ids.shape[1])

    def run(
        self,
        canvas: Tensor,
        soft: Tensor | None,
        ids: Tensor,
        positions: Tensor,
        attend: Attend,
    ) -> tuple[Tensor, Tensor]:
        """`decode` of a canvas [B, T] and `encode` of ids [B, S], in one pass over the weights.

        positions [T + S]; `attend` gets the canvas' rows first -> [B, T, d] and [B, S, d].
        """
        decoded = canvas.shape[1]
        x = torch.cat((self.self_conditioning(self.embed(canvas), soft), self.embed(ids)), dim=1)
        hidden = self._run(x, positions, attend, decoded)
        return hidden[:, :decoded], hidden[:, decoded:]

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden rows [..., d] -> softcapped logits [..., V] in float32, through the tied head."""
        rows = hidden.reshape(-1, hidden.shape[-1])
        padded = F.pad(rows, (0, 0, 0, spare_rows(rows)))
        logits = F.linear(padded, self.embed_tokens.weight)[: len(rows)].float()
        logits = logits.view(*hidden.shape[:-1], -1)
        cap = self.config.softcap
        return logits if cap is None else torch.tanh(logits / cap) * cap

    def _run(self, x: Tensor, positions: Tensor, attend: Attend, decoded: int) -> Tensor:
        """Embeddings [B, T, d], of which the first `decoded` are the decoder's -> hidden rows."""
        rows, spare = x.shape[1], spare_rows(x)
        if spare:
            x, positions = F.pad(x, (0, 0, 0, spare)), F.pad(positions, (0, spare))
            decoded = decoded if decoded < rows else rows + spare
        ropes: dict[LayerConfig, tuple[Tensor, Tensor]] = {}

        def attend_rows(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            out = attend(layer, q[:, :rows], k[:, :rows], v[:, :rows])
            return F.pad(out, (0, 0) * (out.dim() - 2) + (0, spare))

        for layer, config in zip(self.layers, self.config.layers, strict=True):
            if config not in ropes:
                ropes[config] = rope_table(config, positions, x.dtype)
            x = layer(x, ropes[config], attend_rows if spare else attend, decoded)
        return self.norm(x[:, :rows])


def spare_rows(x: Tensor) -> int:
    """How many empty rows are to stand behind x [..., T, d]."""
    return -x.shape[-2] % ROWS if x.device.type == "cpu" else 0


@cache
def _rounded(value: float, dtype: torch.dtype) -> float:
    """`value` in the precision of the weights, as the reference has it."""
    return float(torch.tensor(value, dtype=dtype))
