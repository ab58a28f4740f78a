"""Small stand-ins: random checkpoints of the real architecture, a tiny tokenizer, a fake model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

from engine.backbones.config import ModelConfig, parse_config
from engine.backbones.dense import Adapter, Dense
from engine.backbones.dense_config import parse_dense
from engine.backbones.diffusion_gemma import DiffusionGemma
from engine.backbones.quantized import Format
from engine.diffusion.denoiser import Known, Read
from engine.engine import InfillEngine
from engine.profile import Calibration, Profile, Sampling
from engine.text.tokenizer import TextTokenizer
from engine.training.nano import SMALLEST_VISION
from engine.types import Hole


def any_hole(texts: st.SearchStrategy[str], most: int, little: float) -> st.SearchStrategy[Hole]:
    """Holes of every kind, of at most `most` tokens. texts: drafts; little: the least strength, but
    for none, that one has."""
    cap = st.integers(1, most)
    return st.one_of(
        st.builds(Hole, max_tokens=st.one_of(st.none(), cap)),
        st.builds(Hole, max_tokens=cap, fixed_length=st.just(True)),
        st.builds(
            Hole,
            draft=texts,
            strength=st.sampled_from([0.0, little, 0.5, 1.0]),
            max_tokens=st.one_of(st.none(), cap),
        ),
    )


PAD, EOS, BOS, SLACK = range(4)
SPECIAL = ("<pad>", "<eos>", "<bos>", "<slack>")
MERGES = ["p r", "pr i", "i n", "n t", "pri nt", "e r", "Ġ p", "Ġp r", "Ġpr i", "Ġpri nt", "r e"]
MERGES += ["re t", "u r", "ret ur", "retur n", "Ġ Ġ", "ĠĠ ĠĠ", "Ã ¤", "s e", "se l", "sel f", "Ġ ="]


def tiny_tokenizer() -> TextTokenizer:
    """Byte-level BPE with a few merges; 282 tokens, of which the first four are special."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*SPECIAL, *alphabet, *(merge.replace(" ", "") for merge in MERGES)]
    bpe = models.BPE(
        vocab={word: i for i, word in enumerate(words)},
        merges=[tuple(merge.split(" ")) for merge in MERGES],
    )
    tokenizer = Tokenizer(bpe)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in SPECIAL])
    return TextTokenizer(tokenizer)


def tiny_config(**text: Any) -> dict[str, Any]:
    """The config.json of a small DiffusionGemma; `text` overrides fields of its text part."""
    canvas_length = text.pop("canvas_length", 32)
    return {
        "model_type": "diffusion_gemma",
        "text_config": {
            "vocab_size": 4 + 256 + len(MERGES),
            "hidden_size": 32,
            "intermediate_size": 48,
            "moe_intermediate_size": 16,
            "num_hidden_layers": 3,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "global_head_dim": 16,
            "num_experts": 4,
            "top_k_experts": 2,
            "sliding_window": 24,
            "max_position_embeddings": 4096,
            **text,
        },
        "vision_config": dict(SMALLEST_VISION),
        "boi_token_id": 0,
        "eoi_token_id": 0,
        "image_token_id": 0,
        "canvas_length": canvas_length,
    }


def reference_model(config: dict[str, Any], seed: int, spread: float = 0.3) -> Any:
    """transformers' own class with random weights: none is left at a value that hides a mistake."""
    from transformers import DiffusionGemmaConfig, DiffusionGemmaForBlockDiffusion

    torch.manual_seed(seed)
    model = DiffusionGemmaForBlockDiffusion(DiffusionGemmaConfig(**config)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, spread)
            elif name.endswith("bias"):
                parameter.normal_(0.0, 0.1)
            elif "q_norm" in name or "k_norm" in name:
                # Attention has no scaling: larger ones make it so sharp that rounding shows.
                parameter.uniform_(0.3, 0.8)
            else:
                parameter.uniform_(0.7, 1.3)
        for name, buffer in model.named_buffers():
            if name.endswith("layer_scalar"):
                buffer.uniform_(0.6, 1.4)
        # transformers ties the encoder's weights to the decoder's, but forgets the biases.
        for own, other in zip(
            model.model.encoder.language_model.layers, model.model.decoder.layers, strict=True
        ):
            biases = dict(other.named_parameters())
            for name, parameter in own.named_parameters():
                if name.endswith("bias"):
                    parameter.copy_(biases[name])
    return model


def random_model(config: ModelConfig, seed: int, spread: float = 0.3) -> DiffusionGemma:
    """Our own class with random weights."""
    torch.manual_seed(seed)
    model = DiffusionGemma(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.normal_(0.0, spread)
        else:
            parameter.uniform_(0.7, 1.3)
    return model


def tiny_profile(**changes: Any) -> Profile:
    """A profile to go with `tiny_config` and `tiny_tokenizer`."""
    values: dict[str, Any] = {
        "name": "tiny",
        "slack": "<slack>",
        "end": "<eos>",
        "context": 64,
        "canvas": 24,
        "hole": 12,
        "longest": 30,
        "suffix": 6,
        "prefill": 16,
        "sampling": Sampling(max_steps=4),
        "calibration": Calibration(1.0, 0.0),  # as it is
    }
    return Profile(**{**values, **changes})


def tiny_engine(seed: int = 0, **profile: Any) -> InfillEngine:
    """An engine with a random model of the real architecture."""
    model = random_model(parse_config(tiny_config()), seed)
    return InfillEngine(model, tiny_tokenizer(), tiny_profile(**profile))


END, MASK = 4 + 256 + len(MERGES), 5 + 256 + len(MERGES)
"""What a tiny dense model knows beside its checkpoint: the end of a hole, and the mask."""


def tiny_dense(
    seed: int, spread: float = 0.3, layers: int = 2, like: int | None = None, rank: int = 2
) -> Dense:
    """A random Llama with an adapter, for `tiny_tokenizer` with END and MASK behind its tokens.

    like: the token whose embedding the mask begins with, so that it guesses much as that one does.
    """
    size, inner, heads, kv_heads, head_dim = 32, 48, 4, 2, 8
    config = parse_dense(
        {
            "model_type": "llama",
            "vocab_size": END,
            "hidden_size": size,
            "intermediate_size": inner,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "tie_word_embeddings": True,
            "max_position_embeddings": 4096,
            "bos_token_id": BOS,
        }
    )
    draw = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw) * spread

    shapes = {
        "self_attn.q_proj": (heads * head_dim, size),
        "self_attn.k_proj": (kv_heads * head_dim, size),
        "self_attn.v_proj": (kv_heads * head_dim, size),
        "self_attn.o_proj": (size, heads * head_dim),
        "mlp.gate_proj": (inner, size),
        "mlp.up_proj": (inner, size),
        "mlp.down_proj": (size, inner),
    }
    state = {"model.embed_tokens.weight": random(END, size), "model.norm.weight": torch.ones(size)}
    low_rank: dict[str, tuple[Tensor, Tensor]] = {}
    for layer in range(layers):
        for name, (out, into) in shapes.items():
            state[f"model.layers.{layer}.{name}.weight"] = random(out, into)
            low_rank[f"{layer}.{name}"] = (random(rank, into), random(out, rank))
        for name in ("input_layernorm", "post_attention_layernorm"):
            state[f"model.layers.{layer}.{name}.weight"] = 1.0 + random(size)
    extra = random(2, size)
    if like is not None:
        extra[1] = state["model.embed_tokens.weight"][like]
    return Dense(config, state, Adapter(low_rank, 1.0, extra, extra[:1]))


def tiny_dense_tokenizer() -> TextTokenizer:
    """`tiny_tokenizer`, and behind its tokens <end> and <mask>."""
    tokenizer = tiny_tokenizer()._tokenizer
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in ("<end>", "<mask>")])
    return TextTokenizer(tokenizer)


def tiny_dense_engine(seed: int = 0, **profile: Any) -> InfillEngine:
    """An engine on `tiny_dense`, which decides from the left."""
    values: dict[str, Any] = {"slack": "<end>", "end": None, "mask": "<mask>", "blanks": True}
    return InfillEngine(
        tiny_dense(seed), tiny_dense_tokenizer(), tiny_profile(**{**values, **profile})
    )


Script = Callable[[int, Tensor, Tensor], Tensor]
"""(number of the call, canvas ids [T], slots that are asked for [n]) -> logits [n, V]."""


@cache
def _pool(vocab_size: int) -> Tensor:
    return torch.randn(257, vocab_size, generator=torch.Generator().manual_seed(vocab_size))


def random_script(vocab_size: int, seed: int = 0, sharpness: float = 4.0) -> Script:
    """Other random logits in every call and at every slot, from a pool: drawing them is slow."""
    pool = _pool(vocab_size)

    def script(call: int, ids: Tensor, slots: Tensor) -> Tensor:
        return pool[(slots * 7 + call * 29 + seed * 11) % len(pool)] * sharpness

    return script


def always(vocab_size: int, token: int) -> Script:
    """The same token with near certainty at every slot."""

    def script(call: int, ids: Tensor, slots: Tensor) -> Tensor:
        logits = torch.full((len(slots), vocab_size), -20.0)
        logits[:, token] = 20.0
        return logits

    return script


@dataclass
class Call:
    """What the fake saw in one decoder pass. prefix: how many tokens stood in front of it."""

    ids: Tensor
    soft: Tensor | None
    prefix: int


@dataclass
class FakeModel:
    """Stands in for DiffusionGemma under the whole engine: no layers, logits from a script.

    Token t embeds as the number t, so that what is conditioned on can be read back.
    """

    config: ModelConfig
    script: Script
    calls: list[Call] = field(default_factory=list[Call])
    encoded: int = 0
    dtype: torch.dtype = torch.float32
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    kv: tuple[()] = ()
    sliding_window: int = 1 << 30

    count: int = 0
    format: Format = "plain"

    def embed(self, ids: Tensor) -> Tensor:
        return ids.unsqueeze(-1).float()

    def soft_embed(self, probs: Tensor) -> Tensor:
        return probs @ torch.arange(probs.shape[-1]).float().unsqueeze(-1)

    def encode(self, ids: Tensor, positions: Tensor, attend: Any) -> Tensor:
        self.encoded += 1
        return self.embed(ids)

    def decode(
        self, ids: Tensor, positions: Tensor, attend: Any, soft: Tensor | None = None
    ) -> Tensor:
        kept = None if soft is None else soft[0].clone()
        self.calls.append(Call(ids[0].clone(), kept, int(positions[0])))
        return torch.arange(ids.shape[1]).unsqueeze(-1).unsqueeze(0)  # each row knows its slot

    def logits(self, hidden: Tensor) -> Tensor:
        call = self.calls[-1]
        return self.script(len(self.calls), call.ids, hidden.squeeze(-1))


def fake_engine(
    script: Script | None = None,
    tokenizer: TextTokenizer | None = None,
    canvas_length: int = 32,
    vocab_size: int | None = None,
    **profile: Any,
) -> tuple[InfillEngine, FakeModel]:
    """An engine on a fake model, and the fake that recorded every pass."""
    config = parse_config(tiny_config(canvas_length=canvas_length))
    bare = replace(config, layers=(), vocab_size=vocab_size or config.vocab_size)
    model = FakeModel(bare, script or random_script(config.vocab_size))
    as_model: Any = model
    return InfillEngine(as_model, tokenizer or tiny_tokenizer(), tiny_profile(**profile)), model


def save_tokenizer(folder: Path) -> None:
    """Writes the tiny tokenizer's tokenizer.json."""
    tiny_tokenizer()._tokenizer.save(str(folder / "tokenizer.json"))


@dataclass
class FakeDenoiser:
    """Stands in for a model behind a prefix (the loop's Denoiser); records what it is given.

    What it conditions on is one row of probabilities for each slot.
    """

    vocab_size: int
    script: Script
    ids: list[Tensor] = field(default_factory=list[Tensor])
    soft: list[Tensor | None] = field(default_factory=list[Tensor | None])

    def ask(self, ids: Tensor, soft: Tensor | None, slots: Tensor, known: Known) -> Read:
        seen = ids.clone()

        def read() -> tuple[Tensor, Tensor | None]:
            assert torch.equal(ids, seen), "a canvas stays as it is until its pass has run"
            self.ids.append(seen)
            self.soft.append(soft)
            return self.logits(seen, slots, known)

        return read

    def logits(self, ids: Tensor, slots: Tensor, known: Known) -> tuple[Tensor, Tensor | None]:
        """What the pass gives. known: what a causal reading reads."""
        return self.script(len(self.ids), ids, slots), None

    def condition(self, ids: Tensor, probs: Tensor, slots: Tensor) -> Tensor:
        soft = torch.nn.functional.one_hot(ids, self.vocab_size).float()
        soft[slots] = probs
        return soft
