"""The whole engine on a fake model: what it must never do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from engine.errors import BadRequest
from engine.profile import Sampling
from engine.text.tokenizer import TextTokenizer
from engine.types import (
    Fixed,
    Hole,
    InfillRequest,
    SamplingParams,
    Segment,
    fill_in_the_middle,
    rewrite,
)
from tests.cases import cases
from tests.engine.asking import (
    NANO,
    TINY,
    VOCAB,
    around_holes,
    drain,
    requests,
)
from tests.engine.tiny import (
    SLACK,
    SPECIAL,
    Script,
    always,
    fake_engine,
    random_script,
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
    assert result.confidence is None or 0 <= result.confidence <= 1

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
    if not fixed[-1]:
        known |= set(TINY.encode("\n"))  # a last line has an end, too
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


def test_a_prefix_that_outgrows_the_context_is_cut() -> None:
    """Long text between holes joins the prefix; the model reads as much of it as it may."""
    engine, model = fake_engine(always(VOCAB, SLACK))
    far = "(far = 1)\n" * 100
    holes: tuple[Segment, ...] = (Hole(), Fixed(far), Hole(), Fixed(far), Hole())
    result = engine.fill(InfillRequest((Fixed("("), *holes, Fixed(")"))))
    assert result.text == far + far
    assert max(call.prefix for call in model.calls) <= engine.profile.context


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
