"""What was suggested is found again, and never anywhere else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from diffgemma_lsp.session.suggestion_cache import TYPED, Place, Suggestion, SuggestionCache
from tests.cases import cases

URI = "file:///a.py"


def kept(*texts: str) -> tuple[Suggestion, ...]:
    return tuple(Suggestion(text, 0.5) for text in texts)


def test_typing_through() -> None:
    known = SuggestionCache()
    known.keep(Place(URI, "x = ", "\n"), kept("foo(bar)", "fool"))
    assert known.find(Place(URI, "x = ", "\n")) == kept("foo(bar)", "fool")
    assert known.find(Place(URI, "x = foo", "\n")) == kept("(bar)", "l")
    assert known.find(Place(URI, "x = foo(", "\n")) == kept("bar)")
    assert known.find(Place(URI, "x = foo", "\n"), typed=0) == ()
    assert known.find(Place(URI, "x = fob", "\n")) == ()
    assert known.find(Place(URI, "x = fool", "\n")) == ()
    assert known.find(Place(URI, "x = fo", "\ny")) == ()
    assert known.find(Place("file:///b.py", "x = fo", "\n")) == ()


def test_what_the_editor_closed_is_left_to_it() -> None:
    known = SuggestionCache()
    known.keep(Place(URI, "x = ", "\n"), kept('foo(bar["a"])'))
    assert known.find(Place(URI, "x = foo(", ")\n")) == kept('bar["a"]')
    assert known.find(Place(URI, "x = foo(bar[", "])\n")) == kept('"a"')
    assert known.find(Place(URI, 'x = foo(bar["', '"])\n')) == kept("a")
    assert known.find(Place(URI, "x = foo(", "]\n")) == ()
    assert known.find(Place(URI, "x = foo", ")\n")) == ()


def test_the_oldest_are_forgotten() -> None:
    known = SuggestionCache(kept=2)
    for number in range(3):
        known.keep(Place(URI, f"{number} ", ""), kept("one"))
        known.find(Place(URI, "0 ", ""))
    assert len(known) == 2
    assert known.find(Place(URI, "0 o", ""))
    assert not known.find(Place(URI, "1 ", ""))


texts = st.text('ab()\n"é😀', max_size=12)


@cases(1000)
@given(prefix=texts, suffix=texts, suggestion=texts, other=texts, typed=st.integers(0, 12))
def test_what_is_found_completes_what_was_suggested(
    prefix: str, suffix: str, suggestion: str, other: str, typed: int
) -> None:
    known = SuggestionCache()
    known.keep(Place(URI, prefix, suffix), kept(suggestion))
    written = suggestion[:typed]
    found = known.find(Place(URI, prefix + written, suffix))
    if len(written) < len(suggestion):
        # The rest of it, or the rest of an equal beginning where the text repeats itself.
        assert [one.text for one in found] == [suggestion[len(written) :]]
    for one in known.find(Place(URI, other, suffix)):
        assert other + one.text == prefix + suggestion
        assert len(suggestion) - len(one.text) <= TYPED
