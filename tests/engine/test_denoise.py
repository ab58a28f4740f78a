"""The denoising loop: clamps, drafts, the stop rule, and one step as transformers takes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers.models.diffusion_gemma.generation_diffusion_gemma import (
    EntropyBoundSampler,
    EntropyBoundSamplerConfig,
    StableAndConfidentStoppingCriteria,
)

from engine.diffusion.denoiser import Known
from engine.diffusion.loop import Pass, Schedule, denoise
from engine.diffusion.process import Absorbing, Process, Uniform
from engine.diffusion.rng import Draws
from engine.diffusion.samplers import Holes, accept, entropies, sample
from engine.profile import Sampling
from engine.text.canvas import Canvas
from tests.cases import cases
from tests.engine.tiny import FakeDenoiser, Script, always, random_script

CPU = torch.device("cpu")
VOCAB = 40
SLACK = 3
UNIFORM, ABSORBING = Uniform(VOCAB), Absorbing(VOCAB)  # the mask is behind the vocabulary
FINAL = Absorbing(VOCAB, final=True)
PROCESSES = [UNIFORM, ABSORBING, FINAL]


def canvas(
    length: int,
    holes: list[slice],
    ids: list[int] | None = None,
    held: list[int] | None = None,
    strength: float = 1.0,
    slack: int | None = None,
    banned: tuple[int, ...] = (),
) -> Canvas:
    """A canvas of `length` slots; what stands in it counts up unless `ids` says otherwise."""
    free = torch.zeros(length, dtype=torch.bool)
    for hole in holes:
        free[hole] = True
    kept = torch.zeros(length, dtype=torch.bool)
    kept[held or []] = True
    bias = torch.zeros(VOCAB)
    bias[list(banned)] = -torch.inf
    start = torch.tensor(ids) if ids else torch.arange(length) % VOCAB
    return Canvas(start, free, holes, kept, torch.full((length,), strength), bias, slack)


@st.composite
def layouts(draw: st.DrawFn) -> tuple[int, list[slice]]:
    """A canvas' length and at least one hole in it; holes may touch."""
    edges = sorted(draw(st.lists(st.integers(0, 24), min_size=2, max_size=8, unique=True)))
    spans = [slice(a, b) for a, b in pairwise(edges)]
    holes = [span for span in spans if draw(st.booleans())] or spans[:1]
    return edges[-1] + draw(st.integers(0, 6)), holes


samplings = st.builds(
    Sampling,
    max_steps=st.just(48),
    entropy_bound=st.sampled_from([1e-4, 0.1, 2.0, 100.0]),
    t_max=st.sampled_from([0.3, 0.8, 2.0]),
    t_min=st.sampled_from([0.1, 0.4, 1.0]),
    stability=st.integers(0, 3),
    confidence=st.sampled_from([0.0, 0.005, 0.5, 9.0]),
    accepted_as_tokens=st.booleans(),
    from_left=st.booleans(),
    top_p=st.sampled_from([0.5, 1.0]),
)


def drained(passes: Iterator[Pass | None]) -> list[Pass]:
    """The passes; each was asked for before it came."""
    events = list(passes)
    assert [one is None for one in events] == [True, False] * (len(events) // 2)
    return [one for one in events if one is not None]


def run(
    model: FakeDenoiser,
    it: Canvas,
    sampling: Sampling,
    planned: int,
    seed: int = 0,
    process: Process = UNIFORM,
    **more: float,
) -> list[Pass]:
    final = isinstance(process, Absorbing) and process.final
    schedule = Schedule(replace(sampling, final=final), planned, **more)
    return drained(denoise(model, process, it, schedule, Draws(seed, CPU)))


@cases(1000)
@given(
    layout=layouts(),
    sampling=samplings,
    planned=st.integers(1, 6),
    seed=st.integers(0, 2**40),
    strength=st.sampled_from([0.1, 0.5, 1.0]),
    drafted=st.booleans(),
    slack=st.sampled_from([None, SLACK]),
    sharpness=st.sampled_from([0.5, 5.0, 50.0]),
    process=st.sampled_from(PROCESSES),
)
def test_clamped_slots_are_what_the_model_sees_in_every_pass(
    layout: tuple[int, list[slice]],
    sampling: Sampling,
    planned: int,
    seed: int,
    strength: float,
    drafted: bool,
    slack: int | None,
    sharpness: float,
    process: Process,
) -> None:
    length, holes = layout
    held = [i for hole in holes for i in range(hole.start, hole.stop)] if drafted else []
    it = canvas(length, holes, held=held, strength=strength, slack=slack, banned=(0, 1, 2))
    clamped = ~it.free
    before = it.ids.clone()
    model = FakeDenoiser(VOCAB, random_script(VOCAB, seed % 1000, sharpness))

    passes = run(model, it, sampling, planned, seed, process, strength=strength)

    assert 1 <= len(passes) == len(model.ids) <= planned
    assert [p.settled is not None for p in passes] == [False] * (len(passes) - 1) + [True]
    assert model.soft[0] is None
    if process != UNIFORM:  # a mask stands where nothing is decided, and no pass believes in it
        assert model.soft == [None] * len(passes)
        assert not any(VOCAB in one.best for one in passes)
        if not drafted:
            assert bool((model.ids[0][it.free] == VOCAB).all())
    for ids, soft in zip(model.ids, model.soft, strict=True):
        assert torch.equal(ids[clamped], before[clamped])
        if soft is not None:  # a clamp conditions as its own token
            assert torch.equal(soft[clamped].argmax(-1), before[clamped])
            assert torch.equal(soft[clamped].sum(-1), torch.ones(int(clamped.sum())))
    for one in passes:
        assert len(one.best) == len(one.certainty) == int(it.free.sum())
        kept = set(before[it.free].tolist()) if drafted else set[int]()
        assert not (set(one.best) - kept) & {0, 1, 2}
        assert all(0 <= certainty <= 1.0001 for certainty in one.certainty)
        assert one.entropy >= 0


def not_its_own_noise(script: Script) -> Script:
    """A model that never predicts the token that it is shown: so no evidence has to be removed."""

    def shown(call: int, ids: Tensor, slots: Tensor) -> Tensor:
        return script(call, ids, slots).scatter(1, ids[slots].unsqueeze(1), -1e9)

    return shown


class InjectedSampler(EntropyBoundSampler):
    """The reference's sampler with noise from outside."""

    noise: Tensor

    def initialize_canvas(self, batch_size: int, device: torch.device) -> Tensor:
        return self.noise[None]


@cases(600)
@given(
    seed=st.integers(0, 2**40),
    length=st.integers(1, 40),
    sampling=samplings,
    sharpness=st.sampled_from([0.5, 3.0, 12.0]),
)
def test_a_step_without_clamps_is_that_of_the_reference(
    seed: int, length: int, sampling: Sampling, sharpness: float
) -> None:
    """Two passes of the loop; the second one sees what the reference makes of the first."""
    script = not_its_own_noise(random_script(VOCAB, seed % 1000, sharpness))
    model = FakeDenoiser(VOCAB, script)
    never = Sampling(48, sampling.entropy_bound, sampling.t_max, sampling.t_min, 1, 0.0)
    run(model, canvas(length, [slice(0, length)]), never, 2, seed)

    draws, slots = Draws(seed, CPU), torch.arange(length)
    assert torch.equal(model.ids[0], draws.tokens(0, range(length), VOCAB))

    config = EntropyBoundSamplerConfig(sampling.entropy_bound)
    reference = InjectedSampler(config, length, VOCAB, 2)
    reference.noise = draws.tokens(1, range(length), VOCAB)
    logits = script(1, model.ids[0], slots) / sampling.t_max
    guess = sample(logits.softmax(-1), draws.uniform(1, range(length), Draws.TOKEN))
    entropy = entropies(logits.softmax(-1))
    spent = entropy.sort().values.cumsum(0) - entropy.sort().values
    if bool(((spent - sampling.entropy_bound).abs() < 1e-5).any()):
        return  # on the bound but for rounding
    accepted = reference.accept_canvas(model.ids[0][None], guess[None], logits[None], 2)
    mask = reference.accepted_token_mask
    assert mask is not None
    whole = Holes([slice(0, length)], CPU)
    ours, _ = accept(entropy, guess, None, whole, sampling.entropy_bound)
    assert torch.equal(mask[0], ours)
    assert torch.equal(model.ids[1], reference.renoise_canvas(accepted, 2)[0])


@cases(400)
@given(
    choices=st.lists(st.integers(0, 2), min_size=1, max_size=14),
    stability=st.integers(0, 3),
    confidence=st.sampled_from([1e-4, 0.05, 0.4]),
    noise=st.integers(0, 10_000),
)
def test_the_loop_stops_where_the_reference_stops(
    choices: list[int], stability: int, confidence: float, noise: int
) -> None:
    """Each pass believes in one of three canvases, more or less strongly."""
    generator = torch.Generator().manual_seed(noise)
    canvases = torch.randint(0, VOCAB - 1, (3, 6), generator=generator)
    strengths = torch.rand(len(choices), generator=generator) * 16
    script_logits = [
        torch.nn.functional.one_hot(canvases[c], VOCAB) * s
        for c, s in zip(choices, strengths, strict=True)
    ]
    script = not_its_own_noise(lambda call, ids, slots: script_logits[call - 1][slots])
    model = FakeDenoiser(VOCAB, script)
    sampling = Sampling(48, 0.1, 0.8, 0.4, stability, confidence)
    passes = run(model, canvas(6, [slice(0, 6)]), sampling, len(choices))

    criteria = StableAndConfidentStoppingCriteria(stability, confidence)
    slots = torch.arange(6)
    for step, one in enumerate(passes):
        heat = 0.4 + 0.4 * (len(choices) - step) / len(choices)
        logits = script(step + 1, model.ids[step], slots) / heat
        stop = bool(criteria(logits.argmax(-1)[None], logits[None]))
        assert one.best == logits.argmax(-1).tolist()
        assert stop == (one.settled == "settled")
        if not stop:
            assert (one.settled == "steps") == (step + 1 == len(choices))


@pytest.mark.parametrize("process", PROCESSES)
def test_the_stop_rule_does_not_see_clamps(process: Process) -> None:
    """The model disagrees with every clamp, loudly; the hole is settled all the same."""
    model = FakeDenoiser(VOCAB, always(VOCAB, 7))
    passes = run(model, canvas(30, [slice(4, 9)]), Sampling(), 48, process=process)
    assert [p.settled for p in passes] == [None, "settled"]
    assert passes[-1].best == [7] * 5


@cases(300)
@given(
    seed=st.integers(0, 2**40),
    planned=st.integers(1, 6),
    length=st.integers(1, 20),
    process=st.sampled_from(PROCESSES),
)
def test_the_same_seed_gives_the_same_passes(
    seed: int, planned: int, length: int, process: Process
) -> None:
    def once() -> list[tuple[list[int], float]]:
        model = FakeDenoiser(VOCAB, random_script(VOCAB, 1))
        passes = run(model, canvas(length, [slice(0, length)]), Sampling(), planned, seed, process)
        return [(p.best, p.entropy) for p in passes]

    assert once() == once()


@pytest.mark.parametrize("strength", [0.1, 0.4, 0.7])
@pytest.mark.parametrize("process", PROCESSES)
def test_a_draft_survives_by_its_strength(strength: float, process: Process) -> None:
    """A model that is unsure everywhere: only noise and the schedule take tokens of the draft."""
    model = FakeDenoiser(VOCAB, random_script(VOCAB, 1, 0.1))
    it = canvas(400, [slice(0, 400)], held=list(range(400)), strength=strength)
    before = it.ids.clone()
    run(model, it, Sampling(entropy_bound=1e-6), 4, process=process, strength=strength)
    survived = [float((ids == before).float().mean()) for ids in model.ids]
    by_chance = strength / VOCAB if process == UNIFORM else 0.0
    assert abs(survived[0] - (1 - strength) - by_chance) < 0.08
    for old, new in pairwise(survived):
        assert new < old + 0.05  # nothing that was given up comes back, but by chance
    assert survived[-1] > (1 - strength) ** 4


def test_a_draft_of_strength_1_starts_from_noise() -> None:
    model = FakeDenoiser(VOCAB, random_script(VOCAB, 3))
    it = canvas(30, [slice(0, 30)], ids=[5] * 30, held=list(range(30)), strength=1.0)
    run(model, it, Sampling(), 1)
    assert torch.equal(model.ids[0], Draws(0, CPU).tokens(0, range(30), VOCAB))


@pytest.mark.parametrize("process", PROCESSES)
def test_the_first_slot_takes_only_what_it_may(process: Process) -> None:
    model = FakeDenoiser(VOCAB, always(VOCAB, 9))
    it = canvas(10, [slice(2, 8)])
    it.first = {2: torch.tensor([11, 12])}
    passes = run(model, it, Sampling(), 6, process=process)
    for one in passes:
        assert one.best[0] in (11, 12)
        assert one.best[1:] == [9] * 5


def test_consecutive_canvases_get_draws_of_their_own() -> None:
    seen: list[Tensor] = []
    for first_step in (0, 5):
        model = FakeDenoiser(VOCAB, random_script(VOCAB, 3))
        schedule = Schedule(Sampling(), 1)
        it = canvas(30, [slice(0, 30)])
        drained(denoise(model, UNIFORM, it, schedule, Draws(0, CPU), first_step))
        seen.append(model.ids[0])
    assert float((seen[0] == seen[1]).float().mean()) < 0.3


@pytest.mark.parametrize("taken", [0, 1, 3])
@pytest.mark.parametrize("process", PROCESSES)
def test_it_can_be_left_after_any_pass(taken: int, process: Process) -> None:
    model = FakeDenoiser(VOCAB, random_script(VOCAB, 3, 0.1))
    it, schedule = canvas(30, [slice(0, 30)]), Schedule(Sampling(), 10)
    passes = denoise(model, process, it, schedule, Draws(0, CPU))
    for _ in range(2 * taken):
        next(passes)
    passes.close()  # type: ignore[attr-defined]
    assert len(model.ids) == taken


@cases(300)
@given(
    seed=st.integers(0, 2**40),
    length=st.integers(1, 30),
    bound=st.sampled_from([1e-4, 0.1, 2.0, 20.0]),
    sharpness=st.sampled_from([0.5, 3.0, 12.0]),
)
def test_a_pass_over_masks_is_that_of_ten_lines(
    seed: int, length: int, bound: float, sharpness: float
) -> None:
    script = random_script(VOCAB, seed % 1000, sharpness)
    model = FakeDenoiser(VOCAB, script)
    sampling = Sampling(entropy_bound=bound, confidence=0.0)
    run(model, canvas(length, [slice(0, length)]), sampling, 2, seed, ABSORBING)

    masks, slots = torch.full((length,), VOCAB), torch.arange(length)
    probs = (script(1, masks, slots) / sampling.t_max).softmax(-1)
    drawn = sample(probs, Draws(seed, CPU).uniform(1, range(length), Draws.TOKEN))
    doubt = -(probs * probs.clamp(min=1e-30).log()).sum(-1)
    written, spent = masks.clone(), 0.0
    for slot in doubt.argsort().tolist():
        if abs(spent - bound) < 1e-5:
            return  # on the bound but for rounding
        if spent <= bound:
            written[slot] = drawn[slot]
        spent += float(doubt[slot])
    assert torch.equal(model.ids[0], masks)
    assert torch.equal(model.ids[1], written)


def leaning(favourites: list[int], by: float) -> Script:
    """Logits that lean towards one token in each slot by `by`, always the same."""

    def script(call: int, ids: Tensor, slots: Tensor) -> Tensor:
        logits = torch.zeros(len(slots), VOCAB)
        logits[torch.arange(len(slots)), torch.tensor(favourites)[slots]] = by
        return logits

    return script


DECIDED = Sampling(
    entropy_bound=1e-4, t_max=0.5, t_min=0.5, confidence=0.0, accepted_as_tokens=True
)


def test_what_is_decided_stays_and_a_decided_canvas_is_settled() -> None:
    """A model that is never sure decides one slot a pass, and stops when all are decided."""
    favourites = [5, 9, 9, 12, 7, 30]
    model = FakeDenoiser(VOCAB, leaning(favourites, 3.0))
    passes = run(model, canvas(6, [slice(0, 6)]), DECIDED, planned=200)
    assert passes[-1].settled == "settled"
    assert passes[-1].best == favourites
    # Once the favourite stands in a slot, no later pass takes it away.
    for slot, favourite in enumerate(favourites):
        stands = [int(ids[slot]) == favourite for ids in model.ids[1:]]
        assert stands == sorted(stands)

    plain = Sampling(entropy_bound=1e-4, t_max=0.5, t_min=0.5, confidence=0.0)
    assert (
        run(FakeDenoiser(VOCAB, leaning(favourites, 3.0)), canvas(6, [slice(0, 6)]), plain, 200)[
            -1
        ].settled
        == "steps"
    )


def test_from_the_left_a_hole_is_decided_in_reading_order() -> None:
    favourites = [5, 9, 9, 12, SLACK, 30]
    model = FakeDenoiser(VOCAB, leaning(favourites, 9.0))
    it = canvas(6, [slice(0, 6)], slack=SLACK)
    passes = run(model, it, replace(DECIDED, from_left=True), planned=50)
    assert passes[-1].settled == "settled"
    assert passes[-1].best == [5, 9, 9, 12, SLACK, SLACK]
    assert len(passes) <= 8
    for number, ids in enumerate(model.ids[1:5], start=1):
        assert ids[:number].tolist() == favourites[:number]


class TwoReadings(FakeDenoiser):
    """A canvas reading that leans one way, and a causal one that leans another, more strongly."""

    def __init__(self, causal: list[int], *rest: Any) -> None:
        super().__init__(*rest)
        self.causal = causal
        self.read: list[list[int]] = []

    def logits(self, ids: Tensor, slots: Tensor, known: Known) -> tuple[Tensor, Tensor | None]:
        logits, _ = super().logits(ids, slots, known)
        if known is None:
            return logits, None
        assert ids[: len(known)].tolist() == list(known)
        self.read.append(list(known))
        expected = torch.zeros(len(known) + 1, VOCAB)
        for row in range(len(known) + 1):
            expected[row, self.causal[row]] = 20.0
        return logits, expected


def test_a_causal_reading_has_a_say_where_all_before_is_decided() -> None:
    """Also on where a hole ends: there it expects what stands behind the hole."""
    sampling = replace(DECIDED, from_left=True, causal_share=1.0)
    start = [0, 0, 0, 0, 7, 8]
    it = canvas(6, [slice(0, 4)], ids=start, slack=SLACK)
    model = TwoReadings([5, 9, 7, 7, 7, 7], VOCAB, leaning([11, 12, 13, 14, 0, 0], 2.0))
    passes = run(model, it, sampling, planned=50)
    assert passes[-1].settled == "settled"
    assert passes[-1].best == [5, 9, SLACK, SLACK]
    assert model.read[0] == []
    assert model.read[1] == [5]
    assert all(0 not in ids for ids in model.read)  # noise is never read

    alone = TwoReadings([5, 9, 7, 7, 7, 7], VOCAB, leaning([11, 12, 13, 14, 0, 0], 9.0))
    it = canvas(6, [slice(0, 4)], ids=start, slack=SLACK)
    last = run(alone, it, replace(sampling, causal_share=0.0), planned=50)[-1]
    assert last.best == [11, 12, 13, 14]
    assert alone.read == []


def test_only_noise_conditions_as_a_belief() -> None:
    """At every pass, a slot's signal is its token, or else the slot holds noise."""
    model = FakeDenoiser(VOCAB, leaning([5, 9, 9, 12, 7, 30], 3.0))
    run(model, canvas(6, [slice(1, 5)]), DECIDED, planned=40)
    decided = 0
    for ids, soft in zip(model.ids[1:], model.soft[1:], strict=True):
        assert soft is not None
        sharp = soft.max(-1).values == 1.0
        assert torch.equal(soft.argmax(-1)[sharp], ids[sharp])
        assert bool(sharp[0])
        assert bool(sharp[5])
        decided += int(sharp[1:5].sum())
    assert decided > 0


def test_a_holes_end_is_one_decision() -> None:
    """Behind the first slack the hole is slack, even where the model leans towards text."""
    favourites = [5, 9, SLACK, 12, 7, 30]
    model = FakeDenoiser(VOCAB, leaning(favourites, 8.0))
    passes = run(model, canvas(6, [slice(0, 6)], slack=SLACK), DECIDED, planned=200)
    assert passes[-1].settled == "settled"
    assert passes[-1].best == [5, 9, SLACK, SLACK, SLACK, SLACK]
