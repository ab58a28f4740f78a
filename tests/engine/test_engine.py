"""The whole engine: on a fake model for what it must never do, on a tiny real one for the rest."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from engine.config import parse_config
from engine.engine import CACHES, InfillEngine
from engine.errors import BadRequest, Cancelled, DeadlineExceeded, ModelError
from engine.model import DiffusionGemma
from engine.models.profile import EMBEDDED, Calibration, Sampling, load_profile
from engine.tokenizer import TextTokenizer
from engine.types import (
    Fixed,
    Frame,
    Hole,
    Infill,
    InfillRequest,
    SamplingParams,
    Segment,
    Template,
    fill_in_the_middle,
    rewrite,
)
from tests.engine.tiny import (
    SLACK,
    SPECIAL,
    Script,
    always,
    cases,
    fake_engine,
    random_script,
    tiny_config,
    tiny_engine,
    tiny_tokenizer,
)

TINY = tiny_tokenizer()
NANO = TextTokenizer.load(EMBEDDED)
VOCAB = 282

snippets = [*SPECIAL, "pri", "x = ", "\n", "\r\n", "\r\u2028\f", "🙂", "e\u0301", "a" * 60]
texts = st.one_of(st.text(max_size=8), st.lists(st.sampled_from(snippets), max_size=3).map("".join))
holes = st.one_of(
    st.builds(Hole, max_tokens=st.one_of(st.none(), st.integers(1, 12))),
    st.builds(Hole, max_tokens=st.integers(1, 12), fixed_length=st.just(True)),
    st.builds(
        Hole,
        draft=texts,
        strength=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
        max_tokens=st.one_of(st.none(), st.integers(1, 12)),
    ),
)
params = st.builds(
    SamplingParams,
    max_steps=st.integers(1, 3),
    entropy_bound=st.sampled_from([None, 1e-3, 5.0, 1e3]),
    t_max=st.sampled_from([None, 0.1, 3.0]),
    t_min=st.sampled_from([None, 0.05, 2.0]),
    stability=st.sampled_from([None, 0, 2]),
    confidence=st.sampled_from([None, 0.0, 100.0]),
)


@st.composite
def templates(draw: st.DrawFn) -> Template:
    """Any order of texts and holes, with a hole in it somewhere."""
    segments: list[Segment] = draw(st.lists(st.one_of(texts.map(Fixed), holes), max_size=4))
    segments.insert(draw(st.integers(0, len(segments))), draw(holes))
    return tuple(segments)


requests = st.builds(InfillRequest, templates(), params, seed=st.integers(0, 2**63 - 1))


def around_holes(template: Template, fills: tuple[str, ...]) -> str:
    """The template's own text between its first and its last hole, and `fills` in the holes."""
    at = [i for i, segment in enumerate(template) if isinstance(segment, Hole)]
    rest = iter(fills)
    return "".join(
        segment.text if isinstance(segment, Fixed) else next(rest)
        for segment in template[at[0] : at[-1] + 1]
    )


def drain(events: Iterator[Frame | Infill | None]) -> tuple[list[Frame], Infill]:
    frames: list[Frame] = []
    for event in events:
        if isinstance(event, Infill):
            return frames, event
        if event is not None:
            frames.append(event)
    raise AssertionError("a stream ends with its result")


def outcome(result: Infill) -> tuple[Any, ...]:
    """All of a result but its timings."""
    return (
        result.text,
        result.holes,
        result.steps,
        result.forward_passes,
        result.stop_reason,
        result.confidence,
    )


@cases(500)
@given(
    request=requests,
    tokenizer=st.sampled_from([TINY, TINY, NANO]),
    slack=st.sampled_from(["<slack>", "<slack>", None]),
    sharpness=st.sampled_from([0.5, 6.0, 40.0]),
    canvas_length=st.integers(8, 40),
)
def test_whatever_the_model_says_the_text_outside_the_holes_stays(
    request: InfillRequest,
    tokenizer: TextTokenizer,
    slack: str | None,
    sharpness: float,
    canvas_length: int,
) -> None:
    size = len(tokenizer)
    script = random_script(size, request.seed % 1000, sharpness)
    engine, model = fake_engine(
        script, tokenizer, canvas_length, vocab_size=size, slack=slack, longest=16
    )
    frames, result = drain(engine.stream(request))

    holes = [segment for segment in request.template if isinstance(segment, Hole)]
    assert result.text == around_holes(request.template, result.holes)
    assert len(result.holes) == len(holes)
    assert result.steps == len(model.calls)
    assert result.forward_passes == len(model.calls) + model.encoded
    assert 0 <= result.confidence <= 1

    for hole, text in zip(holes, result.holes, strict=True):
        text.encode()  # whole characters
        if hole.strength == 0:
            assert text == hole.draft
        elif text != hole.draft:
            most = hole.max_tokens or 10**9
            assert len(tokenizer.encode(text.replace("\r\n", "\n"))) <= most * 8
    for frame in frames:
        assert len(frame.holes) == len(holes)
        assert frame.texts == tuple("".join(p.text for p in hole) for hole in frame.holes)
        assert all(0 <= piece.certainty <= 1 for hole in frame.holes for piece in hole)
        assert all(piece.text for hole in frame.holes for piece in hole)
    assert [frame.step for frame in frames if frame.step] == list(range(1, result.steps + 1))
    assert all(len(call.ids) <= canvas_length for call in model.calls)


@cases(150)
@given(request=requests, token=st.sampled_from([0, 1, 2]))
def test_special_tokens_never_come_out(request: InfillRequest, token: int) -> None:
    """The model wants nothing but one of them."""
    engine, _ = fake_engine(always(VOCAB, token))
    frames, result = drain(engine.stream(request))
    texts = [text for frame in frames for text in frame.texts] + list(result.holes)
    drafts = "".join(s.draft or "" for s in request.template if isinstance(s, Hole))
    for name in SPECIAL:
        assert name in drafts or not any(name in text for text in texts)


class Watched:
    """A script that writes down what was clamped in each pass: where, and which tokens."""

    def __init__(self, script: Script) -> None:
        self.script, self.clamped = script, list[tuple[list[int], list[int]]]()

    def __call__(self, call: int, ids: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        free = set(slots.tolist())
        places = [i for i in range(len(ids)) if i not in free]
        self.clamped.append((places, [int(ids[i]) for i in places]))
        return self.script(call, ids, slots)


@cases(150)
@given(request=requests, sharpness=st.sampled_from([0.5, 6.0]))
def test_clamps_stand_in_the_text_in_every_pass(request: InfillRequest, sharpness: float) -> None:
    watched = Watched(random_script(VOCAB, request.seed % 1000, sharpness))
    engine, model = fake_engine(watched)
    drain(engine.stream(request))
    for call, (places, _) in zip(model.calls, watched.clamped, strict=True):
        if call.soft is not None:  # the fake embeds a token as its number
            assert call.soft[places].squeeze(-1).tolist() == call.ids[places].tolist()
    for i, call in enumerate(model.calls):
        if call.soft is not None:  # a further pass on the same canvas
            assert watched.clamped[i] == watched.clamped[i - 1]
    fixed = [
        TINY.encode(s.text.replace("\r\n", "\n")) if isinstance(s, Fixed) else []
        for s in request.template
    ]
    known = {i for ids in fixed for i in ids} | {1}
    known |= {
        i
        for s in request.template
        if isinstance(s, Hole) and s.strength == 0
        for i in TINY.encode((s.draft or "").replace("\r\n", "\n"))
    }
    bytes_known = {b for i in known for b in TINY.bytes_of([i])}
    for _, ids in watched.clamped:
        # Merges may differ where a cursor cut the text; the bytes are the document's own.
        assert {b for i in ids for b in TINY.bytes_of([i])} <= bytes_known
        assert not set(ids) & {0, 2, 3}


def test_a_middle_longer_than_a_canvas_slides_on_with_the_suffix_clamped() -> None:
    """A model that never emits slack: half of each canvas is kept, up to the cap."""
    letter = TINY.encode("y")[0]
    watched = Watched(always(VOCAB, letter))
    engine, model = fake_engine(watched, canvas_length=24)
    suffix = ")\nprint(x)\n"
    frames, result = drain(engine.stream(InfillRequest(fill_in_the_middle("x = (", suffix, 50))))
    assert result.holes == ("y" * 50,)
    assert result.stop_reason == "max_tokens"
    head = TINY.encode(suffix)[:6]
    assert all(ids[:6] == head for _, ids in watched.clamped)
    prefixes = sorted({call.prefix for call in model.calls})
    assert len(prefixes) > 3  # several canvases, each behind what was kept
    lengths = [len(frame.texts[0]) for frame in frames]
    assert lengths == sorted(lengths)


def test_a_draft_at_strength_0_comes_back_without_a_pass() -> None:
    engine, model = fake_engine()
    draft = "tab\there\r\nand <slack> <eos> e\u0301 🙂\n"
    result = engine.fill(InfillRequest(rewrite("a\n", draft, "\nb", 0.0)))
    assert (result.text, result.holes) == (draft, (draft,))
    assert (result.steps, result.forward_passes) == (0, 0)
    assert result.stop_reason == "unchanged"
    assert not model.calls


def test_a_draft_is_shown_before_the_first_pass_and_noise_never() -> None:
    engine, _ = fake_engine()
    frames, _ = drain(engine.stream(InfillRequest(rewrite("a(", "one two", ")b", 0.5))))
    assert frames[0].step == 0
    assert frames[0].texts == ("one two",)
    frames, _ = drain(engine.stream(InfillRequest(fill_in_the_middle("a(", ")b"))))
    assert frames[0].step == 1


def test_text_that_spells_a_special_token_is_ordinary_text() -> None:
    watched = Watched(always(VOCAB, SLACK))
    engine, _ = fake_engine(watched, canvas=60, canvas_length=64)
    suffix = " <slack><eos> <bos>"
    result = engine.fill(InfillRequest(fill_in_the_middle("<bos> (", suffix)))
    assert result.holes == ("",)
    seen = watched.clamped[0][1]
    spelled = TINY.encode(suffix)
    assert seen[: len(spelled)] == spelled
    assert not set(spelled) & TINY.special


@cases(100)
@given(
    prefix=st.sampled_from(["x = pri", "ret", " sel", "(", "qzp", "x ", "ä", "import pr"]),
    suffix=st.sampled_from(["", "nt(x)\n", ")\n", "urn 1"]),
    seed=st.integers(0, 1000),
)
def test_a_word_that_was_begun_is_never_shown_twice(prefix: str, suffix: str, seed: int) -> None:
    engine, _ = fake_engine(random_script(VOCAB, seed))
    typed = TINY.heal(prefix)[1]
    allowed = [TINY.text_of([i], len(typed)) for i in TINY.starting_with(typed)]
    frames, result = drain(engine.stream(InfillRequest(fill_in_the_middle(prefix, suffix))))
    for text in [*(frame.texts[0] for frame in frames), result.holes[0]]:
        if typed:
            assert any(text.startswith(more) for more in allowed)
    if typed and seed % 2:
        engine, _ = fake_engine(always(VOCAB, TINY.starting_with(typed)[0]))
        first = engine.fill(InfillRequest(fill_in_the_middle(prefix, suffix, 1))).holes[0]
        assert first == allowed[0]


@pytest.mark.parametrize("cap", [1, 2, 5, 17, 70])
def test_a_hole_has_at_most_the_tokens_that_it_may(cap: int) -> None:
    letter = TINY.encode("y")[0]
    engine, _ = fake_engine(always(VOCAB, letter))
    result = engine.fill(InfillRequest(fill_in_the_middle("(", ")", cap)))
    assert result.holes == ("y" * cap,)
    assert result.stop_reason == "max_tokens"


def test_without_a_number_the_profile_says_how_long_a_hole_gets() -> None:
    engine, _ = fake_engine(always(VOCAB, TINY.encode("y")[0]), longest=29)
    assert engine.fill(InfillRequest(fill_in_the_middle("(", ")"))).holes == ("y" * 29,)


# --- Cancel and deadline ------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_cancel_ends_within_one_pass(after: int) -> None:
    engine, model = fake_engine(random_script(VOCAB, 1, 0.5), sampling=Sampling(max_steps=10))
    request = InfillRequest(fill_in_the_middle("(", ")"))
    with pytest.raises(Cancelled):
        engine.fill(request, lambda: len(model.calls) >= after)
    assert len(model.calls) == after
    assert engine.fill(request).steps  # the engine goes on


def test_a_cancel_ends_between_chunks_of_the_prefix() -> None:
    engine, model = fake_engine(context=10_000)
    with pytest.raises(Cancelled):
        engine.fill(InfillRequest(fill_in_the_middle("xy(" * 500, ")")), lambda: model.encoded >= 3)
    assert model.encoded == 3
    assert not model.calls


class Clock:
    """Time that passes only when the model works."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, model: Any, chunk: float = 0.0) -> None:
        self.now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        decode, encode = type(model).decode, type(model).encode

        def slow_decode(*args: Any, **more: Any) -> Any:
            self.now += 1.0
            return decode(model, *args, **more)

        def slow_encode(*args: Any, **more: Any) -> Any:
            self.now += chunk
            return encode(model, *args, **more)

        model.decode, model.encode = slow_decode, slow_encode


LONG = Sampling(max_steps=10, confidence=0.0)


@pytest.mark.parametrize("budget", [1.5, 3.5, 7.5])
def test_a_deadline_ends_within_one_pass_with_the_best_guess(
    budget: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    letter = TINY.encode("y")[0]
    engine, model = fake_engine(always(VOCAB, letter), sampling=LONG)
    clock = Clock(monkeypatch, model)
    began = clock.now
    result = engine.fill(InfillRequest(fill_in_the_middle("(", ")", 5), budget_s=budget))
    assert clock.now - began <= budget
    assert len(model.calls) == int(budget)
    assert result.holes == ("y" * 5,)
    assert result.stop_reason == "deadline"


def test_the_number_of_passes_is_fitted_to_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, model = fake_engine(random_script(VOCAB, 1), sampling=LONG)
    Clock(monkeypatch, model)
    request = InfillRequest(fill_in_the_middle("(", ")", 5), budget_s=4.5)
    frames, _ = drain(engine.stream(request))
    assert frames[-1].planned == 10  # nothing is known of its speed yet
    frames, result = drain(engine.stream(request))
    assert frames[-1].planned == 4
    assert result.steps == 4


@pytest.mark.parametrize("draft", [None, "y"])
def test_without_any_time_there_is_nothing_to_show(draft: str | None) -> None:
    engine, model = fake_engine()
    hole = Hole() if draft is None else Hole(draft=draft, strength=0.5)
    with pytest.raises(DeadlineExceeded):
        engine.fill(InfillRequest((Fixed("("), hole, Fixed(")")), budget_s=0.0))
    assert not model.calls


def test_a_deadline_that_comes_while_the_prefix_is_read_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine, model = fake_engine(context=10_000)
    clock = Clock(monkeypatch, model, chunk=1.0)
    with pytest.raises(DeadlineExceeded):
        engine.fill(InfillRequest(fill_in_the_middle("xy(" * 500, ")"), budget_s=3.0))
    assert clock.now <= 103.0
    assert not model.calls


def test_a_deadline_between_canvases_gives_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second hole is never reached: it keeps its draft, and no text between them is lost."""
    letter = TINY.encode("y")[0]
    engine, model = fake_engine(always(VOCAB, letter), sampling=LONG)
    clock = Clock(monkeypatch, model, chunk=0.25)
    far = "(far)\n" * 60
    template = (
        Fixed("("),
        Hole(max_tokens=3),
        Fixed(far),
        Hole(draft="old", strength=0.5),
        Fixed(""),
    )
    began = clock.now
    result = engine.fill(InfillRequest(template, budget_s=11.5))
    assert clock.now - began <= 11.5
    assert result.stop_reason == "deadline"
    assert result.holes == ("yyy", "old")
    assert result.text == "yyy" + far + "old"


# --- A tiny real model --------------------------------------------------------------------------

REAL = tiny_engine()


def fresh(engine: InfillEngine = REAL) -> InfillEngine:
    """An engine on the same model that has seen nothing yet."""
    return InfillEngine(engine.model, engine.tokenizer, engine.profile)


real_requests = st.builds(
    InfillRequest,
    templates(),
    st.builds(SamplingParams, max_steps=st.integers(1, 2)),
    seed=st.integers(0, 2**63 - 1),
)


@cases(25)
@given(batch=st.lists(real_requests, min_size=2, max_size=4), order=st.randoms())
def test_a_request_gives_the_same_alone_and_beside_others(
    batch: list[InfillRequest], order: random.Random
) -> None:
    alone = [outcome(fresh().fill(request)) for request in batch]
    engine = fresh()
    running = {i: engine.stream(request) for i, request in enumerate(batch)}
    together: dict[int, Infill] = {}
    while running:
        i = order.choice(sorted(running))
        event = next(running[i])
        if isinstance(event, Infill):
            together[i] = event
            running.pop(i).close()
    assert [outcome(together[i]) for i in range(len(batch))] == alone


@cases(25)
@given(
    prefix=st.text(alphabet="ab(\n", min_size=20, max_size=120),
    edits=st.lists(st.tuples(st.integers(0, 120), st.sampled_from(["x", "(b\n"])), max_size=3),
    seed=st.integers(0, 1000),
)
def test_a_warm_cache_changes_nothing(prefix: str, edits: list[tuple[int, str]], seed: int) -> None:
    engine = fresh()
    for at, new in [(0, ""), *edits]:
        prefix = prefix[:at] + new + prefix[at + len(new) :]
        few = SamplingParams(max_steps=2)
        request = InfillRequest(fill_in_the_middle(prefix, ")\n", 8), few, seed=seed)
        warm, cold = engine.fill(request), fresh().fill(request)
        assert (warm.text, warm.confidence, warm.steps) == (cold.text, cold.confidence, cold.steps)


@cases(25)
@given(request=real_requests)
def test_a_real_model_keeps_the_text_outside_the_holes_too(request: InfillRequest) -> None:
    frames, result = drain(REAL.stream(request))
    assert result.text == around_holes(request.template, result.holes)
    for frame in frames:
        for text in frame.texts:
            text.encode()


def test_a_seed_changes_the_draws() -> None:
    request = fill_in_the_middle("x = (", ")\n")
    assert len({REAL.fill(InfillRequest(request, seed=seed)).text for seed in range(5)}) > 1


def test_hundreds_of_requests_do_not_fill_the_memory() -> None:
    engine = fresh()
    sizes: list[int] = []
    for i in range(150):
        prefix = f"def f{i}(" + "x, " * (i % 60)
        params = SamplingParams(max_steps=1)
        engine.fill(InfillRequest(fill_in_the_middle(prefix, ")", 2), params, seed=i))
        sizes.append(sum(cache.bytes for cache in engine._idle))
        assert len(engine._idle) <= CACHES
    assert sizes[-1] <= max(sizes[:20]) * 1.5


def test_a_prefix_that_outgrows_the_context_is_cut() -> None:
    """Long text between holes joins the prefix; the model reads as much of it as it may."""
    engine, model = fake_engine(always(VOCAB, SLACK))
    far = "(far = 1)\n" * 100
    holes: tuple[Segment, ...] = (Hole(), Fixed(far), Hole(), Fixed(far), Hole())
    result = engine.fill(InfillRequest((Fixed("("), *holes, Fixed(")"))))
    assert result.text == far + far
    assert max(call.prefix for call in model.calls) <= engine.profile.context


def test_the_engine_says_what_it_is() -> None:
    info = REAL.info
    assert (info.model, info.device, info.dtype) == ("tiny", "cpu", "float32")
    assert info.canvas_length == 32
    assert info.can == ("fill",)
    assert isinstance(REAL.model, DiffusionGemma)


@pytest.mark.parametrize(
    "make",
    [
        lambda: InfillRequest(()),
        lambda: InfillRequest((Fixed("a"),)),
        lambda: InfillRequest((Hole(),), seed=-1),
        lambda: InfillRequest((Hole(),), seed=2**63),
        lambda: Hole(strength=0.5),
        lambda: Hole(draft="a", strength=1.5),
        lambda: Hole(max_tokens=0),
        lambda: SamplingParams(max_steps=0),
        lambda: SamplingParams(t_max=0.0),
        lambda: SamplingParams(entropy_bound=float("nan")),
        lambda: SamplingParams(stability=-1),
    ],
)
def test_what_makes_no_sense_is_a_bad_request(make: Any) -> None:
    with pytest.raises(BadRequest) as error:
        make()
    assert len(str(error.value).splitlines()) == 1


# ---- fixed lengths, and how sure it is ----


@pytest.mark.parametrize("sampling", [Sampling(max_steps=3), Sampling(3, from_left=True)])
@pytest.mark.parametrize("length", [1, 7, 25])
def test_a_hole_of_fixed_length_is_full_however_much_the_model_wants_slack(
    sampling: Sampling, length: int
) -> None:
    word = TINY.encode("print")[0]

    def script(call: int, ids: Tensor, slots: Tensor) -> Tensor:
        logits = torch.full((len(slots), len(TINY)), -20.0)
        logits[:, SLACK], logits[:, word] = 20.0, 10.0
        return logits

    engine, _ = fake_engine(script, sampling=sampling)
    fixed = Hole(max_tokens=length, fixed_length=True)
    result = engine.fill(InfillRequest((Fixed("("), fixed, Fixed(")"), Hole(), Fixed(")"))))
    assert result.holes == ("print" * length, "")
    assert result.stop_reason in ("settled", "steps")


def test_a_calibration_maps_what_results_and_frames_report_and_nothing_else() -> None:
    calibration = Calibration(scale=0.5, shift=-1.0)
    request = InfillRequest(fill_in_the_middle("x = ", "\n"))
    plain, mapped = (
        fake_engine(random_script(len(TINY), 5), **profile)[0].stream(request)
        for profile in ({}, {"calibration": calibration})
    )
    frames, result = drain(plain)
    mapped_frames, mapped_result = drain(mapped)
    assert mapped_result.text == result.text
    assert mapped_result.confidence == pytest.approx(calibration(result.confidence))
    assert mapped_result.confidence != pytest.approx(result.confidence, abs=1e-3)
    for frame, other in zip(frames, mapped_frames, strict=True):
        assert other.holes == frame.holes
        assert other.confidence == (frame.confidence and calibration(frame.confidence))


def test_the_last_frame_is_as_sure_as_the_result() -> None:
    word = TINY.encode("x")[0]
    ends = dict.fromkeys(range(5, 99), SLACK)

    def script(call: int, ids: Tensor, slots: Tensor) -> Tensor:
        logits = torch.zeros(len(slots), len(TINY))
        for row, slot in enumerate(slots.tolist()):
            logits[row, ends.get(slot, word)] = 6.0 + call
        return logits

    engine, _ = fake_engine(script)
    # The space before the cursor belongs to the first token, and counts on both sides.
    frames, result = drain(engine.stream(InfillRequest(fill_in_the_middle("x = ", "\n"))))
    assert frames[-1].confidence == pytest.approx(result.confidence)
    assert result.confidence < 0.9


def test_a_calibration_is_monotone_and_stays_between_0_and_1() -> None:
    calibration = Calibration(scale=1.5, shift=-0.7)
    values = [calibration(share / 100) for share in range(101)]
    assert values == sorted(values)
    assert 0 <= values[0] < values[-1] <= 1
    assert Calibration(1.0, 0.0)(0.3) == pytest.approx(0.3)


@pytest.mark.parametrize("broken", [{"scale": 0, "shift": 0}, {"scale": 1}, 3, {"shift": "x"}])
def test_a_broken_calibration_is_named(tmp_path: Path, broken: object) -> None:
    profile = {"name": "m", "calibration": broken}
    (tmp_path / "infill.json").write_text(json.dumps(profile))
    with pytest.raises(ModelError, match=r"infill\.json is broken"):
        load_profile(tmp_path, parse_config(tiny_config()))
    (tmp_path / "infill.json").write_text(
        json.dumps({"name": "m", "calibration": {"scale": 2.0, "shift": -1.0}})
    )
    loaded = load_profile(tmp_path, parse_config(tiny_config()))
    assert loaded.calibration == Calibration(2.0, -1.0)
