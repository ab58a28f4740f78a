"""From templates to canvases and back: nothing outside the holes is ever lost or changed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import BadRequest
from engine.text.layout import Gap, Sheet
from engine.types import Fixed, Hole, Template
from tests.cases import cases
from tests.engine.tiny import EOS, SLACK, any_hole, tiny_profile, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
BANNED = torch.zeros(282)

texts = st.one_of(
    st.text(max_size=30),
    st.lists(
        st.sampled_from(
            ["print", "x = ", "\n", "\r\n", "<slack>", "<eos>", "🙂", "e\u0301", "\u2028", "a" * 90]
        ),
        max_size=6,
    ).map("".join),
)
holes = any_hole(texts, most=40, little=0.2)
templates = st.lists(st.one_of(texts.map(Fixed), holes), min_size=1, max_size=7).map(tuple)


def sheet(template: Template, **profile: object) -> Sheet:
    return Sheet(template, TOKENIZER, tiny_profile(**profile))


def run(it: Sheet, guess: list[int], most: int = 32) -> list[int]:
    """Fills every canvas by repeating `guess`; returns all ids that ended up in the prefix."""
    prefix = it.leading()
    while it.pending:
        layout = it.lay_out(most, BANNED)
        slots = int(layout.canvas.free.sum())
        best = (guess * slots)[:slots]
        prefix += it.commit(layout, best, [0.5] * slots) + it.leading()
    return prefix


@cases(600)
@given(template=templates, guess=st.lists(st.integers(3, 281), min_size=1, max_size=4))
def test_all_text_outside_the_holes_is_kept(template: Template, guess: list[int]) -> None:
    it = sheet(template)
    run(it, guess)
    found = it.texts()
    assert len(found) == sum(isinstance(segment, Hole) for segment in template)
    fills = iter(found)
    first = next((i for i, s in enumerate(template) if isinstance(s, Hole)), len(template))
    last = max((i for i, s in enumerate(template) if isinstance(s, Hole)), default=-1)
    expected = "".join(
        segment.text if isinstance(segment, Fixed) else next(fills)
        for segment in template[first : last + 1]
    )
    assert it.assembled() == expected


@cases(600)
@given(
    template=templates,
    guess=st.lists(st.integers(3, 281), min_size=1, max_size=4),
    most=st.integers(1, 40),
    slack=st.sampled_from(["<slack>", None]),
)
def test_canvases_follow_the_text(
    template: Template, guess: list[int], most: int, slack: str | None
) -> None:
    """What is clamped on a canvas is what stands in the text there, and canvases come to an end."""
    it = sheet(template, slack=slack, end=None)
    it.leading()
    tokens = sum(gap.cap for gap in it.gaps)
    for _ in range(tokens + 1):
        if not it.pending:
            break
        work = list(it.work)
        layout = it.lay_out(most, BANNED)
        canvas = layout.canvas
        assert 1 <= len(canvas.ids) <= most
        assert [gap for gap, _ in layout.spans] == [
            g for g in work[: layout.items] if type(g) is Gap
        ]
        free = torch.zeros(len(canvas.ids), dtype=torch.bool)
        at = 0
        flat: list[int] = []
        spans = iter(layout.spans)
        for item in work:
            if isinstance(item, Gap):
                gap, span = next(spans, (None, slice(0, 0)))
                if gap is not item:
                    break
                assert span.start == at
                assert span.stop > span.start
                free[span] = True
                flat += canvas.ids[span].tolist()
            else:
                flat += item
            at = len(flat)
        assert torch.equal(free, canvas.free)
        assert canvas.ids.tolist() == flat[: len(canvas.ids)]
        assert not bool((canvas.held & ~canvas.free).any())
        slots = int(canvas.free.sum())
        it.commit(layout, (guess * slots)[:slots], [0.5] * slots)
        it.leading()
    assert not it.pending
    assert all(len(gap.done) <= gap.cap for gap in it.gaps)


def test_fixed_texts_in_a_row_are_one() -> None:
    ends = (Fixed("e"), Fixed("f"))
    it = sheet((Fixed("a"), Fixed("("), Hole(), Fixed("c"), Fixed("("), Hole(), *ends))
    assert it.prefix_text == "a("
    run(it, [*TOKENIZER.encode("x"), SLACK])
    assert it.assembled() == "xc(x"


@pytest.mark.parametrize("length", [3, 40, 200])
def test_a_long_hole_slides_on_with_the_suffix_in_every_canvas(length: int) -> None:
    """A guess without slack: half is kept each time, until the cap ends it."""
    it = sheet((Fixed("x = ("), Hole(max_tokens=length), Fixed(")\nprint(x)\n")))
    prefix = it.leading()
    suffix = TOKENIZER.encode(")\nprint(x)\n")
    while it.pending:
        layout = it.lay_out(32, BANNED)
        slots = int(layout.canvas.free.sum())
        clamped = layout.canvas.ids[~layout.canvas.free].tolist()
        assert len(clamped) >= 6
        assert clamped[:6] == suffix[:6]
        assert layout.spans[0][1].start == 0
        prefix += it.commit(layout, TOKENIZER.encode("y") * slots, [0.5] * slots) + it.leading()
    assert it.texts() == ("y" * length,)
    assert it.gaps[0].capped
    assert prefix[:length] == TOKENIZER.encode("y") * length


@pytest.mark.parametrize("slack", ["<slack>", None])
def test_a_draft_longer_than_a_canvas_is_rewritten_as_a_whole(slack: str | None) -> None:
    draft = "".join(f"x{i} = {i}\n" for i in range(40))
    it = sheet((Fixed(""), Hole(draft=draft, strength=0.3), Fixed("end")), slack=slack)
    it.leading()
    while it.pending:
        layout = it.lay_out(32, BANNED)
        best = layout.canvas.ids[layout.canvas.free].tolist()  # a model that changes nothing
        it.commit(layout, best, [1.0] * len(best))
        it.leading()
    assert it.texts() == (draft,)


def test_holes_farther_apart_than_a_canvas_take_consecutive_canvases() -> None:
    far = "(far = 1)\n" * 40 + "("
    it = sheet((Fixed("a = ("), Hole(), Fixed(far), Hole(), Fixed("\n")))
    it.leading()
    canvases: list[int] = []
    while it.pending:
        layout = it.lay_out(32, BANNED)
        canvases.append(len(layout.spans))
        slots = int(layout.canvas.free.sum())
        it.commit(layout, ([*TOKENIZER.encode("1"), SLACK] * slots)[:slots], [0.5] * slots)
        it.leading()
    assert canvases == [1, 1]
    assert it.assembled() == "1" + far + "1"


def test_holes_that_lie_close_share_a_canvas() -> None:
    it = sheet((Fixed("a"), Hole(max_tokens=4), Fixed(", "), Hole(max_tokens=4), Fixed(")")))
    it.leading()
    assert len(it.lay_out(32, BANNED).spans) == 2


def test_behind_a_hole_is_the_text_between_the_next_ones_too() -> None:
    it = sheet((Fixed("a"), Hole(), Fixed(", b"), Hole(), Fixed(", c)"), Hole(), Fixed("\nd")))
    it.leading()
    gap = it.next_gap
    assert TOKENIZER.text_of(it.behind(gap, 64)) == ", b"
    assert TOKENIZER.text_of(it.behind(gap, 8, over=True)) == ", b, c)\nd"[:8]
    assert TOKENIZER.text_of(it.behind(gap, 64, over=True)) == ", b, c)\nd"
    assert TOKENIZER.text_of(it.behind(it.gaps[-1], 64)) == "\nd"


def test_behind_the_end_of_the_text_stands_the_end_token() -> None:
    it = sheet((Fixed("a = "), Hole(max_tokens=4), Fixed("b")))
    it.leading()
    canvas = it.lay_out(32, BANNED).canvas
    clamped = canvas.ids[~canvas.free].tolist()
    assert clamped[:2] == [*TOKENIZER.encode("b"), EOS]
    assert set(clamped[1:]) == {EOS}


@cases(300)
@given(
    lines=st.lists(st.sampled_from(["a", "", "x = 1"]), min_size=2, max_size=5),
    newline=st.sampled_from(["\n", "\r\n"]),
)
def test_a_filling_has_the_line_ends_of_the_document(lines: list[str], newline: str) -> None:
    it = sheet((Fixed(newline.join(lines) + " ("), Hole(), Fixed(")" + newline)))
    run(it, [*TOKENIZER.encode("1\n2"), SLACK, SLACK])
    assert it.texts()[0].replace(newline, "|") == "1|2"


def test_a_draft_keeps_its_own_line_ends() -> None:
    """Also where they are not the document's, as long as the model changes nothing."""
    it = sheet((Fixed("a\r\n\r\n"), Hole(draft="b\r\n c\n", strength=0.5), Fixed("\r\nd")))
    it.leading()
    layout = it.lay_out(32, BANNED)
    best = layout.canvas.ids[layout.canvas.free].tolist()
    it.commit(layout, best, [1.0] * len(best))
    assert it.texts() == ("b\r\n c\n",)


@cases(500)
@given(
    head=texts,
    word=st.sampled_from(["p", "pri", " pri", "ret", "sel", "x", " ", "ä", "qz", ""]),
    draft=st.sampled_from([None, "nt", "nt(x)", "", " y", "🙂"]),
    guess=st.integers(4, 281),
)
def test_a_word_that_was_begun_is_gone_on_with(
    head: str, word: str, draft: str | None, guess: int
) -> None:
    """The typed part is in front of the hole or in its first token, never lost, never twice."""
    hole = Hole() if draft is None else Hole(draft=draft, strength=0.5)
    it = sheet((Fixed(head + word), hole, Fixed("\n")))
    gap = it.gaps[0]
    before = (head + word).replace("\r\n", "\n")
    assert it.prefix_text + gap.typed.decode() == before
    it.leading()
    canvas = it.lay_out(32, BANNED).canvas
    if gap.typed:
        allowed = canvas.first[0].tolist()
        assert all(TOKENIZER.bytes_of([i]).startswith(gap.typed) for i in allowed)
        assert allowed
        if draft is not None:
            assert int(canvas.ids[0]) in allowed
        chosen = allowed[guess % len(allowed)]
        it.commit(it.lay_out(32, BANNED), [chosen] + [SLACK] * 11, [1.0] * 12)
        assert gap.typed + it.texts()[0].encode() in (
            TOKENIZER.bytes_of([chosen]),
            # What is not whole UTF-8 is left out.
            gap.typed
            + TOKENIZER.bytes_of([chosen])[len(gap.typed) :].decode(errors="ignore").encode(),
        )
    else:
        assert not canvas.first


def test_given_up_holes_keep_their_draft() -> None:
    it = sheet((Fixed("a"), Hole(draft="b c", strength=0.5), Fixed("d" * 90), Hole(), Fixed("")))
    it.give_up()
    assert it.texts() == ("b c", "")
    assert not it.pending


def test_the_last_canvas_takes_over_all_it_has() -> None:
    it = sheet((Fixed("x ("), Hole(), Fixed(")")))
    it.leading()
    layout = it.lay_out(32, BANNED)
    slots = int(layout.canvas.free.sum())
    it.commit(layout, TOKENIZER.encode("y") * slots, [0.5] * slots, last=True)
    assert it.texts() == ("y" * slots,)
    assert not it.pending


@pytest.mark.parametrize("length", [1, 5, 14, 29])
@pytest.mark.parametrize("slack", ["<slack>", None])
def test_a_hole_of_fixed_length_has_that_many_tokens(length: int, slack: str | None) -> None:
    hole = Hole(max_tokens=length, fixed_length=True)
    it = sheet((Fixed("x = "), hole, Fixed("\n"), hole, Fixed(")")), slack=slack, hole=4)
    run(it, [5], most=12)  # canvases too short for the longer ones
    assert [gap.done for gap in it.gaps] == [[5] * length] * 2
    assert not any(gap.capped for gap in it.gaps)


def test_only_holes_of_fixed_length_are_closed_to_slack() -> None:
    it = sheet((Hole(max_tokens=3, fixed_length=True), Fixed(")"), Hole(max_tokens=4)))
    it.leading()
    canvas = it.lay_out(24, BANNED).canvas
    assert (canvas.fixed, canvas.holes) == ([slice(0, 3)], [slice(0, 3), slice(4, 8)])


def test_a_fixed_length_has_to_be_said_and_takes_no_draft() -> None:
    for hole in ({"max_tokens": None}, {"max_tokens": 3, "draft": "x"}):
        with pytest.raises(BadRequest, match="fixed length"):
            Hole(fixed_length=True, **hole)
