"""What stands in front of the canvas: other files, then the text, and how it is cut to fit."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from tiny import BOS, fake_engine, tiny_profile, tiny_tokenizer

from engine.text.prompt import prefix_ids, prompt_ids
from engine.types import InfillRequest, Snippet, fill_in_the_middle
from tests.cases import cases

TOKENIZER = tiny_tokenizer()
TITLED = tiny_profile(context=128)
SEPARATED = tiny_profile(context=128, separator="<bos>")

snippets = st.builds(Snippet, st.text("ab/.", max_size=8), st.text("ab =\n", max_size=200))


def rendered(text: str, *context: Snippet, profile=SEPARATED, bos: int | None = BOS) -> list[int]:
    return prompt_ids(text, context, TOKENIZER, bos, profile)


def test_documents_are_joined_as_in_training() -> None:
    one, two = Snippet("one.py", "a = 1\n"), Snippet("two.py", "b = 2")
    assert rendered("c = 3", one, two, profile=replace(SEPARATED, context=256)) == [
        BOS,
        *TOKENIZER.encode("a = 1\n"),
        BOS,
        *TOKENIZER.encode("b = 2\n"),
        BOS,
        *TOKENIZER.encode("c = 3"),
    ]


def test_without_a_separator_each_piece_has_its_path_above_it() -> None:
    one, two = Snippet("p/one.py", "a = 1\r\n"), Snippet("two.py", "b = 2")
    ids = rendered("c = 3", one, two, profile=replace(TITLED, context=512))
    assert ids[0] == BOS
    assert BOS not in ids[1:]
    text = "# p/one.py\na = 1\n\n# two.py\nb = 2\n\n# The current file:\nc = 3"
    assert TOKENIZER.text_of(ids[1:]) == text


def test_a_separator_that_does_not_begin_texts_stands_behind_what_does() -> None:
    profile = replace(SEPARATED, separator="<eos>")
    eos = TOKENIZER.id_of("<eos>")
    ids = rendered("c = 3", Snippet("one.py", "a = 1\n"), profile=profile)
    assert [i for i in ids if i in (BOS, eos)] == [BOS, eos, eos]


@cases(200)
@given(st.text("ab =\n", max_size=400), st.lists(snippets, max_size=5), st.booleans())
def test_the_context_gets_at_most_half(text: str, context: list[Snippet], separated: bool) -> None:
    profile = SEPARATED if separated else TITLED
    alone = rendered(text, profile=profile)
    ids = rendered(text, *context, profile=profile)
    assert len(ids) <= profile.context
    # The end of the text is always there, as much of it as fits into the other half.
    tail = [i for i in alone if i != BOS][-profile.context // 4 :]
    assert ids[len(ids) - len(tail) :] == tail
    if not context:
        assert ids == alone == prefix_ids(text, TOKENIZER, BOS, profile.context)


@cases(100)
@given(st.text("ab =\n", max_size=600), st.text("ab =\n", max_size=99), st.lists(snippets))
def test_typing_moves_nothing_of_the_context(text: str, typed: str, context: list[Snippet]) -> None:
    fronts = [
        ids[: len(ids) - ids[::-1].index(BOS)]
        for ids in (rendered(text, *context), rendered(text + typed, *context))
    ]
    assert fronts[0] == fronts[1]


def test_what_does_not_fit_ends_with_a_whole_line() -> None:
    long = Snippet("x", "".join(f"a{n} = b\n" for n in range(100)))
    ids = rendered("c", long)
    front = ids[1 : ids.index(BOS, 1)]
    assert len(front) <= SEPARATED.context // 2
    assert TOKENIZER.text_of(front).endswith("\n")
    assert long.text.startswith(TOKENIZER.text_of(front))


def test_the_first_come_first() -> None:
    context = [Snippet(f"{n}", f"{n} = 1234567890\n" * 3) for n in range(9)]
    text = TOKENIZER.text_of(rendered("c", *context))
    assert text.startswith(context[0].text)
    assert context[8].text not in text


def test_a_model_that_makes_nothing_of_it_reads_none() -> None:
    request = InfillRequest(fill_in_the_middle("a = ", "\n"), context=(Snippet("p", "b = 1\n"),))
    for neighbours in (True, False):
        engine, _ = fake_engine(neighbours=neighbours, separator="<bos>", context=128)
        assert engine.info.neighbours == neighbours
        engine.fill(request)
        (cache,) = engine.store.caches
        assert (cache.ids.count(BOS) == 2) == neighbours
