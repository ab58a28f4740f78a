"""Our forward pass against transformers' DiffusionGemmaForBlockDiffusion, in float32.

Every checkpoint goes through transformers' `save_pretrained` and our `load_model`. Weights are
random and large, so that logits differ by many units and a wrong mask, norm, scalar or rotation
moves them by far more than the tolerance.

A router picks experts by their scores: where two are equal to the last bit, a difference in the
order of additions would send a row to another expert and its logits would be quite different. With
random weights scores are apart by about 1e-4 at least in the few thousand choices made here, and
rounding moves them by 1e-6; seeds are fixed, so a lucky tie can't come and go.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.attention.prefix_cache import PrefixCache
from engine.backbones.diffusion_gemma import DiffusionGemma, Experts
from engine.weights.loader import load_model, to_reference_state
from tests.engine.tiny import reference_model, tiny_config

CPU = torch.device("cpu")
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Case:
    """One random model and what it is asked."""

    config: dict[str, Any]
    prefix: int
    canvas: int
    chunk: int


def case(seed: int) -> Case:
    """A random case; what must be covered for sure goes by the seed's remainders."""
    rng = random.Random(seed)
    experts = 1 + seed % 8
    kinds = [rng.choice(["sliding_attention", "full_attention"]) for _ in range(rng.choice([2, 3]))]
    window = rng.choice([8, 24, 40])
    canvas = [16, 33, 64, 100, 256][seed % 5]
    heads, kv_heads, full_kv_heads = rng.choice([(4, 2, 1), (4, 4, 2), (8, 2, 4), (6, 3, 2)])
    config = tiny_config(
        vocab_size=rng.choice([97, 301]),
        layer_types=["sliding_attention", *kinds, "full_attention"],
        num_hidden_layers=len(kinds) + 2,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        num_global_key_value_heads=full_kv_heads,
        head_dim=rng.choice([8, 16]),
        global_head_dim=rng.choice([16, 32]),
        num_experts=experts,
        top_k_experts=rng.randint(1, experts),
        sliding_window=window,
        attention_bias=seed % 4 == 3,
        final_logit_softcapping=rng.choice([15.0, 30.0, 60.0]),
        rms_norm_eps=rng.choice([1e-6, 1e-5]),
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
            "full_attention": {
                "rope_type": "proportional",
                "partial_rotary_factor": [0.25, 0.5, 1.0][seed % 3],
                "rope_theta": 1_000_000.0,
            },
        },
        canvas_length=canvas,
    )
    prefix = [1, window - 1, window, window + 1, 2 * window + 5, 3 * window][seed % 6]
    return Case(config, prefix, canvas, chunk=rng.choice([1, 7, 16, 512]))


def extend(cache: PrefixCache, ids: list[int], chunk: int) -> Tensor:
    return torch.cat([cache.extend(ids[at : at + chunk]) for at in range(0, len(ids), chunk)])


def difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


@torch.inference_mode()
@pytest.mark.parametrize("seed", range(24))
def test_logits_are_those_of_the_reference(seed: int, tmp_path: Path) -> None:
    it = case(seed)
    reference = reference_model(it.config, seed)
    reference.save_pretrained(tmp_path, max_shard_size="40KB" if seed % 2 else "1GB")
    assert (tmp_path / "model.safetensors.index.json").is_file() == bool(seed % 2)
    model = load_model(tmp_path, CPU, torch.float32)

    vocab_size = model.config.vocab_size
    prefix = torch.randint(0, vocab_size, (it.prefix,))
    canvas = torch.randint(0, vocab_size, (it.canvas,))
    believed = torch.randn(it.canvas, vocab_size) * 3
    first = reference(input_ids=prefix[None], decoder_input_ids=canvas[None])
    second = reference(
        past_key_values=first.past_key_values,
        decoder_input_ids=canvas[None],
        self_conditioning_logits=believed[None],
    )
    causal = reference.lm_head(first.encoder_last_hidden_state[0])
    cap = model.config.softcap
    assert cap is not None

    cache = PrefixCache(model)
    hidden = extend(cache, prefix.tolist(), it.chunk)
    plain = model.logits(cache.canvas(canvas))
    soft = model.soft_embed(believed.softmax(-1))
    conditioned = model.logits(cache.canvas(canvas, soft))

    assert difference(hidden, first.encoder_last_hidden_state[0]) < TOLERANCE
    assert difference(model.logits(hidden), (causal / cap).tanh() * cap) < TOLERANCE
    assert difference(plain, first.logits[0]) < TOLERANCE
    assert difference(conditioned, second.logits[0]) < TOLERANCE
    # So that the above can fail: logits are far apart, and conditioning moves them.
    assert float(plain.std()) > 1.0
    assert float(plain.max() - plain.min()) > 6.0
    assert difference(plain, conditioned) > 0.5


def test_the_cases_cover_what_they_should() -> None:
    cases = [case(seed) for seed in range(24)]
    texts = [it.config["text_config"] for it in cases]
    over = [it.prefix > text["sliding_window"] for it, text in zip(cases, texts, strict=True)]
    assert {True, False} == set(over)
    assert min(it.prefix for it in cases) == 1
    assert {text["num_experts"] for text in texts} == set(range(1, 9))
    # Both ways of running experts, each with all and with some of them chosen.
    few = {
        (t["num_experts"] <= Experts.DENSE_UP_TO, t["num_experts"] == t["top_k_experts"])
        for t in texts
    }
    assert len(few) == 4
    assert {it.canvas for it in cases} >= {16, 256}
    assert {text["attention_bias"] for text in texts} == {True, False}
    assert any(t["num_global_key_value_heads"] > t["num_key_value_heads"] for t in texts)
    assert any(t["num_global_key_value_heads"] < t["num_key_value_heads"] for t in texts)
    assert any(t["global_head_dim"] != t["head_dim"] for t in texts)


@torch.inference_mode()
@pytest.mark.parametrize("top_k", [1, 2, 5, 6])
def test_both_ways_of_running_experts_agree(top_k: int) -> None:
    from engine.backbones.config import parse_config
    from tests.engine.tiny import random_model

    config = parse_config(tiny_config(num_experts=6, top_k_experts=top_k))
    layer = random_model(config, seed=top_k).layers[0]
    rows = torch.randn(50, config.hidden_size)
    weights, chosen = layer.router(rows)
    dense = layer.experts.dense(rows, weights, chosen)
    grouped = layer.experts.grouped(rows, weights, chosen)
    assert difference(dense, grouped) < 1e-5 * max(1.0, float(dense.abs().max()))
    assert float(dense.std()) > 0.1


@torch.inference_mode()
@pytest.mark.parametrize("seed", [1, 3])  # 3: with biases
def test_our_state_goes_back_into_the_reference(seed: int, tmp_path: Path) -> None:
    it = case(seed)
    reference = reference_model(it.config, seed)
    reference.save_pretrained(tmp_path)
    model = load_model(tmp_path, CPU, torch.float32)

    other = reference_model(it.config, seed + 1000)
    result = other.load_state_dict(to_reference_state(model), strict=False)
    other.tie_weights()

    assert not result.unexpected_keys
    ids = {
        "input_ids": torch.randint(0, model.config.vocab_size, (1, it.prefix)),
        "decoder_input_ids": torch.randint(0, model.config.vocab_size, (1, it.canvas)),
    }
    assert torch.equal(reference(**ids).logits, other(**ids).logits)


@torch.inference_mode()
def test_masks_of_batches_keep_their_own_positions() -> None:
    """The stack takes positions per row, which training and batches need."""
    from engine.attention.sdpa import read
    from engine.backbones.config import parse_config
    from tests.engine.tiny import random_model

    model: DiffusionGemma = random_model(parse_config(tiny_config()), seed=5)
    ids = torch.randint(0, model.config.vocab_size, (2, 9))

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return read(q, k, v)

    positions = torch.stack((torch.arange(9), torch.arange(9) + 40))
    both = model.decode(ids, positions, attend)
    for row in range(2):
        alone = model.decode(ids[row : row + 1], positions[row], attend)
        assert difference(both[row], alone[0]) < 1e-5
