"""The sampler: acceptance as in transformers, draws by counter, slack that can't eat a hole."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor
from transformers.models.diffusion_gemma.generation_diffusion_gemma import (
    EntropyBoundSampler,
    EntropyBoundSamplerConfig,
    LinearTemperatureScheduleLogitsProcessor,
)

from engine.diffusion.rng import Draws
from engine.diffusion.samplers import (
    Beliefs,
    Holes,
    Surest,
    accept,
    accept_from_left,
    entropies,
    nucleus,
    sample,
    temperature,
    within_budget,
)
from tests.cases import cases

CPU = torch.device("cpu")
SLACK = 3


def random_logits(seed: int, rows: int, vocab_size: int, sharpness: float) -> Tensor:
    """Rows from nearly uniform to nearly certain."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, vocab_size, generator=generator)
    return logits * sharpness * torch.rand(rows, 1, generator=generator) * 4


@cases(1500)
@given(
    seed=st.integers(0, 2**31),
    rows=st.integers(1, 40),
    vocab_size=st.integers(2, 60),
    sharpness=st.sampled_from([0.1, 1.0, 5.0, 20.0]),
    bound=st.sampled_from([1e-6, 0.01, 0.1, 1.0, 30.0]),
)
def test_what_is_accepted_is_what_the_reference_accepts(
    seed: int, rows: int, vocab_size: int, sharpness: float, bound: float
) -> None:
    logits = random_logits(seed, rows, vocab_size, sharpness)
    entropy = entropies(logits.softmax(-1))
    ordered = entropy.sort().values
    spent = ordered.cumsum(0) - ordered
    # Where the sum meets the bound but for rounding, either answer is right.
    assume(not bool(((spent - bound).abs() < 1e-5 * max(1.0, bound)).any()))
    # Of equally sure positions, whose order is anybody's, both take all or none.
    near = (ordered[1:] - ordered[:-1]).abs() < 1e-6
    assume(not bool((near & ((spent[1:] <= bound) != (spent[:-1] <= bound))).any()))

    reference = EntropyBoundSampler(EntropyBoundSamplerConfig(bound), rows, vocab_size, 1)
    current, guess = torch.zeros(1, rows).long(), torch.ones(1, rows).long()
    canvas = reference.accept_canvas(current, guess, logits[None], cur_step=1)

    ours, _ = accept(entropy, guess[0] * 0, None, Holes([slice(0, rows)], CPU), bound)
    assert torch.equal(ours, canvas[0].bool())
    assert bool(ours[entropy.argmin()])


@given(
    steps=st.integers(1, 60),
    t_max=st.floats(0.05, 3.0),
    t_min=st.floats(0.01, 3.0),
)
@cases(300)
def test_the_temperature_is_that_of_the_reference(steps: int, t_max: float, t_min: float) -> None:
    reference = LinearTemperatureScheduleLogitsProcessor(t_min, t_max, steps)
    logits = torch.tensor([[1.0, -2.0, 7.0]])
    for step in range(steps):
        scaled = reference(torch.zeros(1, 1).long(), logits, cur_step=steps - step)
        ours = logits / temperature(step, steps, t_max, t_min)
        assert torch.allclose(scaled, ours)


@given(bound=st.floats(0.001, 5), entropy=st.lists(st.floats(0, 8), min_size=1, max_size=30))
@cases(500)
def test_the_budget_goes_to_the_surest_positions(bound: float, entropy: list[float]) -> None:
    values = torch.tensor(entropy)
    accepted = within_budget(values, bound)
    assert bool(accepted.any())
    taken, left = values[accepted], values[~accepted]
    assert float(taken.sum() - taken.max()) <= bound * 1.001 + 1e-5
    if len(left):
        assert float(left.min()) >= float(taken.max()) - 1e-6


@cases(1500)
@given(
    seed=st.integers(0, 2**31),
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    bound=st.sampled_from([1e-4, 0.1, 1.0, 50.0]),
)
def test_slack_is_accepted_only_behind_accepted_text(
    seed: int, lengths: list[int], bound: float
) -> None:
    n = sum(lengths)
    ends = [sum(lengths[:i]) for i in range(len(lengths) + 1)]
    holes = [slice(a, b) for a, b in pairwise(ends)]
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.tensor([SLACK, SLACK, 7, 8])[torch.randint(0, 4, (n,), generator=generator)]
    entropy = torch.rand(n, generator=generator) ** 3 * 4

    accepted, kept = accept(entropy, tokens, SLACK, Holes(holes, CPU), bound)

    text = tokens != SLACK
    limit = math.inf
    if bool(text.any()):
        # Text is accepted as if there were no slack at all.
        chosen = within_budget(entropy[text], bound)
        limit = max(bound, float(entropy[text][chosen].max()))
    for hole in holes:
        ends = [i for i in range(hole.start, hole.stop) if accepted[i] and kept[i] == SLACK]
        first = min(ends, default=hole.stop)
        assert ends == list(range(first, hole.stop))  # one run, to the hole's end
        if ends:
            assert int(tokens[first]) == SLACK  # it was sampled there
            assert float(entropy[first]) <= limit  # as sure as what else is kept
            assert bool(accepted[hole.start : first].all())  # never ahead of the text
            assert bool(text[hole.start : first].all())
        for i in range(hole.start, first):
            assert int(kept[i]) == int(tokens[i])
            if text[i]:
                assert bool(accepted[i]) == bool(chosen[int(text[:i].sum())])


@cases(1500)
@given(
    seed=st.integers(0, 2**31),
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    bound=st.sampled_from([1e-4, 0.1, 1.0, 50.0]),
    slack=st.sampled_from([None, SLACK]),
)
def test_from_the_left_each_hole_goes_on_where_it_is_not_decided(
    seed: int, lengths: list[int], bound: float, slack: int | None
) -> None:
    n = sum(lengths)
    ends = [sum(lengths[:i]) for i in range(len(lengths) + 1)]
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.tensor([SLACK, 6, 7, 8])[torch.randint(0, 4, (n,), generator=generator)]
    entropy = torch.rand(n, generator=generator) ** 3 * 4
    decided = torch.rand(n, generator=generator) < 0.4
    holes = [slice(a, b) for a, b in pairwise(ends)]

    parted = Holes(holes, CPU)
    accepted, kept = accept_from_left(entropy, tokens, slack, parted, bound, decided)

    assert bool(accepted[decided].all())
    for hole in holes:
        size = hole.stop - hole.start
        first = next((i for i in range(size) if not decided[hole][i]), None)
        if first is None:
            assert torch.equal(kept[hole], tokens[hole])
            continue
        assert accepted[hole][first]  # something is decided in every pass
        new = [i for i in range(first, size) if accepted[hole][i] and not decided[hole][i]]
        end = next((i for i in range(first, size) if kept[hole][i] == slack), size)
        spent = sum(float(entropy[hole][i]) for i in new[1:] if i <= end)
        assert spent <= bound * 1.001 + 1e-5
        if slack is not None and end in new:
            assert bool(accepted[hole][end:].all())
            assert set(kept[hole][end:].tolist()) == {SLACK}
        assert torch.equal(kept[hole][:end], tokens[hole][:end])
        # Nothing is skipped but what is decided already.
        assert all(bool(accepted[hole][i]) for i in range(first, new[-1]))


def test_sampling_follows_the_probabilities() -> None:
    probabilities = torch.tensor([0.1, 0.0, 0.6, 0.3])
    uniform = torch.arange(1000) / 1000
    tokens = sample(probabilities.expand(1000, -1), uniform)
    shares = torch.bincount(tokens, minlength=4) / 1000
    assert torch.allclose(shares, probabilities, atol=2e-3)


@cases(300)
@given(
    seed=st.integers(0, 2**31),
    uniform=st.sampled_from([0.0, 0.5, 1 - 2**-24, 1 - 2**-12]),
    allowed=st.lists(st.integers(0, 49), min_size=1, max_size=3),
)
def test_a_banned_token_is_never_drawn(seed: int, uniform: float, allowed: list[int]) -> None:
    logits = torch.full((8, 50), -math.inf)
    logits[:, allowed] = random_logits(seed, 8, len(allowed), 3.0)
    tokens = sample(logits.softmax(-1), torch.full((8,), uniform, dtype=torch.float64))
    assert set(tokens.tolist()) <= set(allowed)


def test_draws_are_uniform() -> None:
    numbers = Draws(5, CPU).uniform(3, range(200_000), Draws.TOKEN)
    assert float(numbers.min()) >= 0
    assert float(numbers.max()) < 1
    assert abs(float(numbers.mean()) - 0.5) < 0.003
    counts = torch.bincount((numbers * 64).long(), minlength=64).double()
    expected = len(numbers) / 64
    assert float(((counts - expected) ** 2 / expected).sum()) < 120  # chi square, 63 degrees


@pytest.mark.parametrize("vocab_size", [1, 7, 4096, 262_144])
def test_drawn_tokens_cover_the_vocabulary_and_no_more(vocab_size: int) -> None:
    tokens = Draws(1, CPU).tokens(2, range(50_000), vocab_size)
    assert int(tokens.min()) >= 0
    assert int(tokens.max()) < vocab_size
    mean = float(tokens.double().mean())
    assert abs(mean - (vocab_size - 1) / 2) < 0.01 * vocab_size


@cases(200)
@given(seed=st.integers(0, 2**63 - 1), step=st.integers(0, 500), slots=st.permutations(range(40)))
def test_a_draw_depends_on_its_own_slot_alone(seed: int, step: int, slots: list[int]) -> None:
    draws = Draws(seed, CPU)
    together = draws.uniform(step, slots, Draws.TOKEN)
    for at, slot in enumerate(slots[:5]):
        alone = draws.uniform(step, [slot], Draws.TOKEN)
        assert float(alone) == float(together[at])


def test_draws_of_other_seeds_passes_and_purposes_have_nothing_in_common() -> None:
    slots = range(4000)
    base = Draws(7, CPU).uniform(1, slots, Draws.TOKEN)
    others = [
        Draws(8, CPU).uniform(1, slots, Draws.TOKEN),
        Draws(7 + 2**32, CPU).uniform(1, slots, Draws.TOKEN),
        Draws(7, CPU).uniform(2, slots, Draws.TOKEN),
        Draws(7, CPU).uniform(1, slots, Draws.NOISE),
        Draws(7, CPU).uniform(1, range(1, 4001), Draws.TOKEN),
    ]
    for other in others:
        correlation = float(torch.corrcoef(torch.stack((base, other)))[0, 1])
        assert abs(correlation) < 0.06
        assert float((base == other).float().mean()) < 0.01


@cases(300)
@given(
    seed=st.integers(0, 2**31),
    sizes=st.lists(st.integers(1, 8), min_size=1, max_size=3),
    slack=st.sampled_from([None, SLACK]),
    sharpness=st.sampled_from([0.5, 5.0]),
    bound=st.sampled_from([0.0, 0.3, 2.0]),
    passes=st.integers(1, 20),
)
def test_the_surest_slots_are_decided_as_a_plain_loop_decides_them(
    seed: int, sizes: list[int], slack: int | None, sharpness: float, bound: float, passes: int
) -> None:
    n, vocab_size, mask = sum(sizes), 7, 7
    draw = torch.Generator().manual_seed(seed)
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    holes = [slice(start, start + size) for start, size in zip(starts, sizes, strict=True)]
    raw = random_logits(seed, n, vocab_size, sharpness)
    probs = raw.softmax(-1)
    drawn = torch.randint(vocab_size, (n,), generator=draw)
    noisy = torch.rand(n, generator=draw) < 0.7
    current = torch.where(noisy, mask, torch.randint(vocab_size, (n,), generator=draw))
    raw[~noisy] = float("-inf")
    raw[torch.arange(n)[~noisy], current[~noisy]] = 0.0
    held = torch.zeros(n, dtype=torch.bool)
    beliefs = Beliefs(
        raw, probs, drawn, current, noisy, held, Holes(holes, CPU), slack, passes=passes
    )
    decision = Surest(bound).decide(beliefs)

    tokens, best = current.tolist(), torch.where(noisy, probs.argmax(-1), current).tolist()
    doubt = entropies(probs).tolist()
    open_slots = [i for i in range(n) if noisy[i]]
    text = list(open_slots)
    for hole in holes if slack is not None else []:
        inside = [i for i in range(hole.start, hole.stop) if i in open_slots]
        ends = [i for i in inside if best[i] == slack]
        for i in [i for i in inside if ends and i >= ends[0]]:
            text.remove(i)
            best[i] = slack
    count = max(1, math.ceil(len(text) / passes))
    chosen = {*sorted(open_slots, key=lambda i: doubt[i])[:count]}
    chosen |= {i for i in open_slots if doubt[i] < bound}
    for i in chosen:
        tokens[i] = int(drawn[i])
    for hole in holes if slack is not None else []:
        ends = [i for i in range(hole.start, hole.stop) if i in chosen and tokens[i] == slack]
        for i in [i for i in open_slots if ends and ends[0] <= i < hole.stop]:
            tokens[i] = slack
            chosen.add(i)
    decided = [i in chosen or i not in open_slots for i in range(n)]
    assert decision.accepted.tolist() == decided
    assert [int(decision.tokens[i]) for i in range(n) if decided[i]] == [
        tokens[i] for i in range(n) if decided[i]
    ]
    assert decision.best.tolist() == [tokens[i] if decided[i] else best[i] for i in range(n)]
    assert bool(decision.confirmed.all()) == all(decided)


@cases(200)
@given(
    seed=st.integers(0, 2**31),
    vocab_size=st.sampled_from([3, 50, 3000]),
    sharpness=st.sampled_from([0.0, 1.0, 5.0]),
    share=st.sampled_from([0.1, 0.5, 0.9, 0.999]),
)
def test_a_nucleus_is_the_fewest_likeliest_tokens_with_that_share(
    seed: int, vocab_size: int, sharpness: float, share: float
) -> None:
    probs = random_logits(seed, 4, vocab_size, sharpness).softmax(-1)
    kept = nucleus(probs, share)
    assert torch.allclose(kept.sum(-1), torch.ones(4), atol=1e-5)
    for row, old in zip(kept, probs, strict=True):
        inside = row > 0
        assert torch.allclose(row[inside] * old[inside].sum(), old[inside], rtol=1e-4)
        assert float(old[inside].sum()) >= share - 1e-5
        least = float(old[inside].min())
        assert float(old[inside].sum()) - least <= share + 1e-5
        assert inside.all() or float(old[~inside].max()) <= least
