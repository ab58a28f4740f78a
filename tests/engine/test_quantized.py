"""Weights in 8 and 4 bits: what they take of the published shapes, and how near they stay by each
way of multiplying them."""

from __future__ import annotations

from functools import cache
from math import prod
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from engine.attention.prefix_cache import PrefixCache
from engine.backbones import linear
from engine.backbones.config import parse_config
from engine.backbones.dense import Dense
from engine.backbones.dense_config import parse_dense
from engine.backbones.diffusion_gemma import DiffusionGemma
from engine.backbones.linear import Linear, Product, Stacked, cores
from engine.backbones.quantized import GROUP, Bits, Format, Quantized, bytes_of
from engine.backbones.rounding import bits_of, bytes_in
from engine.engine import InfillEngine
from engine.types import InfillRequest, fill_in_the_middle
from engine.weights import dense, precision
from engine.weights.loader import load_model, to_reference_state
from engine.weights.precision import pick_format
from tests.cases import cases
from tests.engine import dream_folders, gemma_folder
from tests.engine.test_loader import write
from tests.engine.tiny import random_model, save_tokenizer, tiny_config

CPU = torch.device("cpu")
SHARE: dict[Format, float] = {"int8": 0.53, "int4": 0.30}
ERROR: dict[Format, float] = {"int8": 0.02, "int4": 0.15}


@cache
def published_gemma() -> dict[str, tuple[int, ...]]:
    """The weights of the 26B model."""
    config = gemma_folder.config()
    config["text_config"] |= {"hidden_size": 2816, "intermediate_size": 2112}
    config["text_config"]["moe_intermediate_size"] = 704
    with torch.device("meta"):
        model = DiffusionGemma(parse_config(config))
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


@cache
def published_dream() -> dict[str, tuple[int, ...]]:
    """The weights of the models of 7B."""
    shape = dream_folders.config("dreamon")
    shape |= {"hidden_size": 3584, "num_attention_heads": 28, "num_key_value_heads": 4}
    return dense.shapes(parse_dense(shape | {"intermediate_size": 18944, "num_hidden_layers": 28}))


def test_what_the_published_shapes_take() -> None:
    gemma, dream = published_gemma(), published_dream()
    assert sum(map(prod, gemma.values())) == pytest.approx(25.25e9, rel=1e-3)
    assert sum(map(prod, dream.values())) == pytest.approx(7.62e9, rel=1e-3)
    for format, share in SHARE.items():
        assert bytes_in(gemma, format, 2) <= share * bytes_in(gemma, "plain", 2)
        assert dense.bytes_in(dream, format, 2) <= share * dense.bytes_in(dream, "plain", 2)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("shape", [(2816, 704), (4, 96, 128), (64, 48)])
def test_a_weight_takes_what_was_computed(shape: tuple[int, ...], bits: Bits) -> None:
    weight = torch.randn(shape).bfloat16()
    kept = Quantized(weight, bits)
    assert kept.nbytes == bytes_of(shape, bits)
    assert kept.shape == weight.shape
    share = kept.nbytes / weight.nbytes
    assert share < (0.55 if bits == 8 else 0.30)
    error = float((kept.plain(torch.float32) - weight.float()).norm() / weight.float().norm())
    assert error < (0.01 if bits == 8 else 0.11)
    if len(shape) == 2:
        ids = torch.tensor([[3, 0], [5, 3]])
        assert torch.equal(kept.rows(ids, torch.float32), kept.plain(torch.float32)[ids])


@cases(80)
@given(st.integers(0, 10**6), st.sampled_from([8, 4]), st.sampled_from([1e-20, 1e-3, 1.0, 1e4]))
def test_no_weight_is_off_by_more_than_half_a_step(seed: int, bits: Bits, size: float) -> None:
    """In 4 bits by more only at the end of the scale that has one value less."""
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn(3, 2 * GROUP, generator=draw) * size
    weight[0, :GROUP] = 0.0
    weight[1, 5] *= 50
    kept = Quantized(weight, bits)
    off = (kept.plain(torch.float32) - weight).abs()
    steps = kept.scales.float().abs()
    steps = steps.repeat_interleave(GROUP, dim=1) if bits == 4 else steps.unsqueeze(1)
    most = 0.5 if bits == 8 else 1.0
    assert bool((off <= most * steps * 1.05 + 1e-9).all())
    assert bool((kept.plain(torch.float32)[0, :GROUP].abs() <= 1e-9).all())


@torch.inference_mode()
@pytest.mark.parametrize("format", ["int8", "int4"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_stay_close(
    format: Format, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight, bias = torch.randn(192, 128).to(dtype), torch.randn(192).to(dtype)
    x = torch.randn(5, 128).to(dtype)
    x[2] *= 1000  # an outlier in one row costs the others nothing
    plain = F.linear(x.float(), weight.float(), bias.float())

    def errors(product: Linear) -> Tensor:
        out = product(x)
        assert out.dtype == dtype
        return (out.float() - plain).norm(dim=1) / plain.norm(dim=1)

    with_kernel = Linear(weight, bias, format)
    assert bool((errors(with_kernel) < ERROR[format]).all())
    monkeypatch.setattr(linear, "multiplies_int8", lambda device: False)
    widened = Linear(weight, bias, format)
    assert isinstance(widened.weight, Quantized)
    assert bool((errors(widened) < ERROR[format]).all())


@torch.inference_mode()
@pytest.mark.parametrize("format", ["int8", "int4"])
@pytest.mark.parametrize("kernels", [True, False])
def test_a_diffusion_gemma_in_few_bits_is_near_its_own(
    format: Format, kernels: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kernels: as a CPU multiplies; without, as a GPU does."""
    data = tiny_config(hidden_size=128, intermediate_size=192, moe_intermediate_size=64)
    # All are chosen: another choice would hide what is measured.
    data["text_config"] |= {"num_experts": 8, "top_k_experts": 8, "attention_bias": True}
    gemma_folder._json(tmp_path / "config.json", data)
    model = random_model(parse_config(data), seed=2, spread=0.05)
    write(tmp_path, to_reference_state(model))
    monkeypatch.setattr(linear, "multiplies_int8", lambda device: kernels)
    kept = load_model(tmp_path, CPU, torch.float32, format=format)
    assert kept.format == format
    assert kept.count == model.count == sum(p.numel() for p in model.parameters())
    few = {name for name, _ in model.named_parameters() if bits_of(name, format)}
    assert len(few) == 3 * (4 + 3 + 2) - 2 + 3, "full layers have no v_proj"
    modules = [m for m in kept.modules() if isinstance(m, Product | Stacked)]
    assert len(modules) == len(few)
    assert isinstance(kept.layers[0].router.proj, torch.nn.Linear)

    ids, canvas = torch.randint(0, 99, (20,)), torch.randint(0, 99, (9,))

    def logits(one: DiffusionGemma) -> Tensor:
        cache = PrefixCache(one)
        cache.extend(ids.tolist())
        soft = one.soft_embed(torch.ones(9, one.config.vocab_size) / one.config.vocab_size)
        return one.logits(cache.canvas(canvas, soft))

    plain, few_bits = logits(model), logits(kept)
    assert float(plain.std()) > 0.3
    error = float((plain - few_bits).norm() / plain.norm())
    assert 0 < error < (0.05 if format == "int8" else 0.35)


@torch.inference_mode()
@pytest.mark.parametrize("format", ["int8", "int4"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_dense_model_in_few_bits_as_a_gpu_has_it(
    format: Format, tied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "multiplies_int8", lambda device: False)
    monkeypatch.setattr("engine.backbones.dense.multiplies_int8", lambda device: False)
    shape = dream_folders.config("open-dcoder" if tied else "dreamon")
    shape |= {"hidden_size": 128, "intermediate_size": 192, "vocab_size": 320}
    shape |= {name: None for name in shape if name.endswith("_token_id")}
    config, draw = parse_dense(shape), torch.Generator().manual_seed(4)
    state = {
        name: torch.randn(size, generator=draw) * 0.1 + (1.0 if "norm" in name else 0.0)
        for name, size in dense.shapes(config).items()
    }
    plain, kept = Dense(config, state), Dense(config, state, format=format)
    assert kept.count == plain.count
    assert isinstance(kept._embeddings, Quantized)
    assert (kept._head.weight is kept._embeddings) == tied
    ids = torch.randint(0, 320, (1, 12), generator=draw)

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return linear_attention(q, k, v)

    at = torch.arange(12)
    rows = [model.logits(model.encode(ids, at, attend)) for model in (plain, kept)]
    error = float((rows[0] - rows[1]).norm() / rows[0].norm())
    assert 0 < error < (0.05 if format == "int8" else 0.35)
    probs = torch.softmax(torch.randn(3, 320, generator=draw), -1)
    assert torch.allclose(kept.soft_embed(probs), plain.soft_embed(probs), atol=0.02)


def linear_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Something that all of q, k and v have a part in."""
    groups = q.shape[2] // k.shape[2]
    return q * 0.1 + (k * 0.1 + v).repeat_interleave(groups, dim=2)


GB = 10**9


@pytest.mark.parametrize(
    ("device", "dtype", "gigabytes", "dream", "gemma"),
    [
        ("cuda", torch.bfloat16, 80, "plain", "plain"),
        ("cuda", torch.bfloat16, 32, "plain", "int8"),
        ("cuda", torch.bfloat16, 24, "plain", "int4"),
        ("cuda", torch.bfloat16, 16, "int8", "int4"),
        ("cuda", torch.bfloat16, 8, "int4", "int4"),
        ("mps", torch.bfloat16, 64, "plain", "plain"),
        ("cpu", torch.bfloat16, 64, "int8", "int8"),
        ("cpu", torch.float32, 64, "plain", "int8"),
        ("cpu", torch.bfloat16, 8, "int4", "int4"),
    ],
)
def test_what_fits_is_taken(
    device: str,
    dtype: torch.dtype,
    gigabytes: int,
    dream: Format,
    gemma: Format,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(precision, "device_memory", lambda device: gigabytes * 2**30)
    shapes = published_dream(), published_gemma()
    where = torch.device(device)
    found = pick_format(
        where, dtype, lambda f: dense.bytes_in(shapes[0], f, dtype.itemsize), fast=True
    )
    assert found == dream
    assert (
        pick_format(where, dtype, lambda f: bytes_in(shapes[1], f, dtype.itemsize), True) == gemma
    )


@pytest.mark.parametrize("format", ["int8", "int4"])
def test_a_hole_is_filled_by_few_bits(format: Format, tmp_path: Path) -> None:
    data = tiny_config(hidden_size=128, intermediate_size=192, moe_intermediate_size=64)
    data["text_config"]["num_experts"] = 8
    gemma_folder._json(tmp_path / "config.json", data)
    write(tmp_path, to_reference_state(random_model(parse_config(data), seed=3, spread=0.05)))
    save_tokenizer(tmp_path)
    engine = InfillEngine.load(str(tmp_path), "cpu", dtype=torch.bfloat16, format=format)
    assert engine.info.dtype == f"bfloat16, weights in {format}"
    infill = engine.fill(InfillRequest(fill_in_the_middle("x = ", "\n", 6)))
    assert infill.steps > 0
    assert infill.holes == (infill.text,)


@pytest.mark.parametrize(("said", "least"), [("1", 1), ("1,2", 1), ("0", None), ("x", None)])
def test_threads_are_as_many_as_the_environment_says(
    said: str, least: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    every = cores()
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert cores() == (least or every)
