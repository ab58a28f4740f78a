"""Training: its one fused forward gives what inference gives, and it learns."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from engine.attention.prefix_cache import PrefixCache
from engine.backbones.config import LayerConfig, ModelConfig
from engine.backbones.diffusion_gemma import DiffusionGemma
from engine.training.loop import learning_rate
from engine.training.middle import EVEN, Canvases, after_a_pass, after_own_passes, evened
from engine.training.muon import MixedOptimizer, orthogonalize
from engine.training.nano import new_model
from engine.training.noise import hits, rank_in_hole
from engine.training.recipe import Objective, Rates
from engine.training.step import TensorBatch, encode, losses

SLIDING = LayerConfig(True, 16, 2, 1e4, 8, 16)
FULL = LayerConfig(False, 16, 2, 1e6, 2, 16)
CONFIG = ModelConfig(
    vocab_size=50,
    hidden_size=32,
    intermediate_size=48,
    heads=4,
    layers=(SLIDING, FULL, SLIDING, FULL),
    sliding_window=16,
    experts=4,
    experts_per_token=2,
    expert_size=16,
    canvas_length=16,
    max_positions=256,
    norm_eps=1e-6,
    softcap=30.0,
    attention_bias=False,
    bos_id=2,
    eos_ids=(1,),
    pad_id=0,
)


def _batch(windows: int, n: int, k: int, c: int, seed: int) -> TensorBatch:
    generator = torch.Generator().manual_seed(seed)

    def ids(*shape: int) -> torch.Tensor:
        return torch.randint(4, CONFIG.vocab_size, shape, generator=generator)

    start = torch.randint(1, n + 1, (windows, k), generator=generator).sort(1).values
    free = torch.rand(windows, k, c, generator=generator) < 0.5
    return TensorBatch(ids(windows, n), ids(windows, k, c), start, free, free.float())


@pytest.mark.parametrize("n", [12, 48, 64, 70])
def test_fused_forward_is_what_inference_computes(n: int) -> None:
    model = new_model(CONFIG, seed=n).eval()
    batch = _batch(windows=2, n=n, k=5, c=8, seed=n)
    with torch.no_grad():
        hidden, reader = encode(model, batch.prefix)
        start = batch.start.flatten()
        positions = start.unsqueeze(1) + torch.arange(8)
        canvas = batch.canvas.flatten(0, 1)
        soft = model.embed(canvas.flip(1))
        fused = model.decode(canvas, positions, reader(batch.start, 8), soft)
        for row in range(10):
            window = row // 5
            cache = PrefixCache(model)
            plain = cache.extend(batch.prefix[window, : int(start[row])].tolist())
            torch.testing.assert_close(hidden[window, : len(plain)], plain, atol=2e-5, rtol=1e-4)
            alone = cache.canvas(canvas[row], soft[row])
            torch.testing.assert_close(fused[row], alone, atol=2e-5, rtol=1e-4)


def test_a_canvas_does_not_see_what_follows_its_start() -> None:
    model = new_model(CONFIG, seed=0).eval()
    batch = _batch(windows=1, n=32, k=2, c=8, seed=1)
    batch = dataclasses.replace(batch, start=torch.tensor([[10, 20]]))
    changed = batch.prefix.clone()
    changed[0, 10:] = 7
    outs: list[torch.Tensor] = []
    for prefix in (batch.prefix, changed):
        _, reader = encode(model, prefix)
        positions = batch.start.flatten().unsqueeze(1) + torch.arange(8)
        canvas = batch.canvas.flatten(0, 1)
        outs.append(model.decode(canvas, positions, reader(batch.start, 8)))
    assert torch.allclose(outs[0][0], outs[1][0], atol=1e-6)
    assert not torch.allclose(outs[0][1], outs[1][1], atol=1e-3)


def test_clamped_slots_are_not_scored() -> None:
    """Nothing that is clamped is a target, so another clamped token there changes no target."""
    model = new_model(CONFIG, seed=3)
    batch = _batch(windows=2, n=32, k=4, c=8, seed=3)
    none_free = dataclasses.replace(batch, free=torch.zeros_like(batch.free))
    none_free.free[0, 0, 0] = True
    weight = none_free.free.float()
    only = dataclasses.replace(none_free, weight=weight)
    result = losses(model, only, torch.Generator().manual_seed(0), bos_id=2)
    assert torch.isfinite(result.total)
    assert 0 < float(result.denoise) < 40


def _middle_parts(model: DiffusionGemma, seed: int) -> tuple[Canvases, torch.Tensor, torch.Tensor]:
    batch = _batch(windows=1, n=32, k=4, c=8, seed=seed)
    _, reader = encode(model, batch.prefix)
    positions = batch.start.flatten().unsqueeze(1) + torch.arange(8)
    clean, free = batch.canvas.flatten(0, 1), batch.free.flatten(0, 1)
    given = Canvases(clean, free, free.float(), positions, reader(batch.start, 8))
    hit = free & (torch.rand(free.shape, generator=torch.Generator().manual_seed(seed)) < 0.5)
    return given, hit, torch.where(hit, 5, clean)


def test_clamps_condition_as_the_objective_says() -> None:
    model = new_model(CONFIG, seed=5)
    given, hit, noised = _middle_parts(model, 5)
    signals = {
        clamps: after_a_pass(
            model, given, noised, hit, Objective(clamps=clamps), torch.Generator().manual_seed(1)
        ).signal
        for clamps in ("token", "own", "zero")
    }
    clamped = ~given.free
    assert torch.equal(signals["token"][clamped], model.embed(given.clean)[clamped])
    assert float(signals["zero"][clamped].abs().max()) == 0.0
    assert not torch.allclose(signals["own"][clamped], signals["token"][clamped], atol=1e-2)
    for other in ("own", "zero"):
        assert torch.equal(signals[other][given.free], signals["token"][given.free])


def test_own_passes_leave_clamps_and_settle_from_the_left() -> None:
    model = new_model(CONFIG, seed=6)
    given, _, _ = _middle_parts(model, 6)
    middle = after_own_passes(model, given, 3, Objective(), torch.Generator().manual_seed(2))
    assert torch.equal(middle.ids[~given.free], given.clean[~given.free])
    assert not bool((middle.hit & ~given.free).any())
    assert bool((given.free & ~middle.hit).any())
    later = rank_in_hole(middle.hit, given.free) > 0
    assert bool(middle.hit[later & given.free].all())  # noise from some slot of a hole on


def test_only_noise_counts_where_the_objective_says_so() -> None:
    model = new_model(CONFIG, seed=7)
    batch = _batch(windows=2, n=32, k=4, c=8, seed=7)
    values = {
        name: float(losses(model, batch, torch.Generator().manual_seed(0), 2, objective).denoise)
        for name, objective in (
            ("free", Objective()),
            ("corrupted", Objective(loss_on="corrupted")),
            ("own passes", Objective()),
        )
    }
    own = losses(model, batch, torch.Generator().manual_seed(0), 2, Objective(), own_passes=2)
    assert values["free"] == values["own passes"]
    assert values["free"] != values["corrupted"]
    assert torch.isfinite(own.total)
    own.total.backward()


@pytest.mark.parametrize("count", [0, 1, 64, 65])
def test_sizes_are_evened_by_rows_that_exist(count: int) -> None:
    chosen = torch.arange(200) < count
    rows, number = evened(chosen)
    assert number == count
    assert len(rows) % EVEN == 0
    assert len(rows) > 0
    assert rows[:count].tolist() == list(range(count))


def test_ranks_count_within_each_hole() -> None:
    free = torch.tensor([[0, 1, 1, 1, 0, 0, 1, 1], [1, 1, 0, 1, 0, 1, 1, 1]]).bool()
    marked = torch.tensor([[1, 0, 1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 0, 0, 1]]).bool()
    ranks = rank_in_hole(marked & free, free)
    assert ranks[0][free[0]].tolist() == [0, 0, 1, 0, 1]
    assert ranks[1][free[1]].tolist() == [0, 1, 0, 0, 0, 0]


def test_most_canvases_in_the_middle_of_a_fill_are_settled_from_the_left() -> None:
    """Behind the first slot of a hole that is noise there is nothing but noise; and the cut falls
    on each of the hole's text tokens and on its first slack alike."""
    free = torch.zeros(4000, 12, dtype=torch.bool)
    free[:, 1:10] = True
    weight = torch.zeros(4000, 12)
    weight[:, 1:5], weight[:, 5:10] = 1.0, 0.08  # three tokens of text, five of slack
    conditioned = torch.ones(4000, 1, dtype=torch.bool)
    hit = hits(free, weight, conditioned, torch.Generator().manual_seed(0))
    assert not bool((hit & ~free).any())
    hole = hit[:, 1:10].int()
    from_left = (hole.diff(dim=1) >= 0).all(1) & hole.any(1)
    assert 0.7 < float(from_left.float().mean()) < 0.95
    first = hole[from_left].argmax(1).bincount(minlength=9) / len(hole)
    assert first[:4].min() > 0.1
    assert float(first[5:].sum()) < 0.1


def test_it_learns() -> None:
    """Twenty steps on one batch bring both losses well below where they began."""
    torch.manual_seed(0)
    model = new_model(CONFIG, seed=4)
    optimizer = MixedOptimizer(model, muon_lr=0.02, adam_lr=0.01)
    batch = _batch(windows=2, n=32, k=4, c=8, seed=4)
    seen: list[tuple[float, float]] = []
    for _ in range(20):
        result = losses(model, batch, torch.Generator().manual_seed(5), bos_id=2)
        result.total.backward()
        optimizer.step(1.0)
        seen.append((float(result.causal), float(result.denoise)))
    assert seen[-1][0] < 0.7 * seen[0][0]
    assert seen[-1][1] < 0.9 * seen[0][1]


@pytest.mark.parametrize("shape", [(16, 16), (32, 8), (8, 32), (3, 8, 24)])
def test_muon_makes_updates_nearly_orthogonal(shape: tuple[int, ...]) -> None:
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    values = torch.linalg.svdvals(orthogonalize(matrix).float())
    assert values.min() > 0.4
    assert values.max() < 1.4


def test_learning_rate_warms_up_holds_and_falls_to_nothing() -> None:
    rates = Rates()
    assert learning_rate(rates, 0, 0.0) < 0.05
    assert learning_rate(rates, 500, 0.15) == 1.0
    assert 0.0 < learning_rate(rates, 500, 0.9) < 0.5
    assert learning_rate(rates, 500, 1.0) == 0.0
    assert learning_rate(rates, 500, 1.3) == 0.0
