"""Text to ids and back: never special, never half a character, words healed at the cursor."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from engine.errors import ModelError
from engine.models import WEIGHTS
from engine.text.tokenizer import TextTokenizer
from engine.weights.profile import EMBEDDED
from tests.cases import cases
from tests.engine.tiny import SPECIAL, save_tokenizer, tiny_tokenizer

TINY = tiny_tokenizer()
NANO = TextTokenizer.load(EMBEDDED)
BOTH = st.sampled_from([TINY, NANO])
TEXT = st.one_of(
    st.text(max_size=40),
    st.lists(
        st.sampled_from([*SPECIAL, "print", " return", "\r\n", "\n", "\t", "ä", "🙂", "e\u0301"]),
        max_size=8,
    ).map("".join),
)


@cases(800)
@given(tokenizer=BOTH, text=TEXT)
def test_text_comes_back_and_is_never_special(tokenizer: TextTokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert not set(ids) & tokenizer.special
    assert tokenizer.text_of(ids) == text
    assert tokenizer.bytes_of(ids) == text.encode()


@cases(800)
@given(data=st.data(), tokenizer=BOTH, skip=st.integers(0, 5))
def test_pieces_joined_are_the_text_whatever_the_tokens(
    data: st.DataObject, tokenizer: TextTokenizer, skip: int
) -> None:
    ids = data.draw(st.lists(st.integers(0, len(tokenizer) - 1), max_size=20))
    pieces = tokenizer.pieces_of(ids, skip)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == tokenizer.text_of(ids, skip)
    "".join(pieces).encode()  # whole characters only


def test_half_a_character_is_not_shown() -> None:
    smile = TINY.encode("🙂")
    assert len(smile) == 4
    assert TINY.text_of(smile[:3]) == ""
    assert TINY.pieces_of(smile) == ["", "", "", "🙂"]
    assert TINY.pieces_of([*smile[:2], *TINY.encode("a")]) == ["", "", "a"]


def test_the_bytes_of_a_token_are_those_of_the_text_it_stands_for() -> None:
    assert {bytes([byte]) for byte in range(256)} <= {NANO.bytes_of([i]) for i in range(len(NANO))}
    added = Tokenizer.from_file(str(EMBEDDED / "tokenizer.json"))
    odd = ["\u00a0\u00ad", "\u007f\u0080", "é\u4e00", "\u0120\u010a"]
    added.add_tokens([AddedToken(text, normalized=False) for text in odd])
    tokenizer = TextTokenizer(added)
    got = [tokenizer.bytes_of([len(NANO) + i]) for i in range(len(odd))]
    assert got[:2] == [text.encode() for text in odd[:2]]  # they stand for no byte in the alphabet
    assert got[2:] == [b"\xe9\xe4\xb8\x80", b" \n"]


def test_special_tokens_stand_for_no_text() -> None:
    assert sorted(TINY.special) == [0, 1, 2, 3]
    assert TINY.text_of([2, *TINY.encode("a"), 3, 3, 1]) == "a"
    assert [TINY.id_of(name) for name in SPECIAL] == [0, 1, 2, 3]
    assert TINY.id_of("<nothing>") is None


def test_a_lone_surrogate_does_no_harm() -> None:
    assert TINY.encode("a\ud800b") == TINY.encode("a?b")


@cases(300)
@given(tokenizer=BOTH, start=st.sampled_from(["p", "pr", " ", " pri", "ä", "\xff", "", "zzzz"]))
def test_all_tokens_with_a_beginning_are_found(tokenizer: TextTokenizer, start: str) -> None:
    found = tokenizer.starting_with(start.encode())
    expected = {
        i for i in range(len(tokenizer)) if tokenizer.bytes_of([i]).startswith(start.encode())
    }
    assert set(found) == expected
    assert len(found) == len(expected)


@cases(800)
@given(tokenizer=BOTH, text=TEXT, word=st.sampled_from(["", "p", "pri", " ret", "sel", "ä", "_x"]))
def test_healing_splits_the_text_between_characters(
    tokenizer: TextTokenizer, text: str, word: str
) -> None:
    stays, typed = tokenizer.heal(text + word)
    assert stays + typed.decode() == text + word
    if typed:
        assert tokenizer.starting_with(typed)
        assert not typed.decode().strip(" ").strip("_") or typed.decode().strip(" ").isidentifier()


@pytest.mark.parametrize(
    ("text", "typed"),
    [
        ("x = pri", b" pri"),
        ("pri", b"pri"),
        ("x.pri", b"pri"),
        ("x = ", b" "),
        ("x = (", b""),
        ("", b""),
        ("\n", b""),
    ],
)
def test_what_was_typed_of_a_word_is_split_off(text: str, typed: bytes) -> None:
    assert TINY.heal(text)[1] == typed


def test_a_word_that_no_token_begins_with_keeps_its_head() -> None:
    """ "qzpri": there is no token with all of it, but some go on from "pri"."""
    assert TINY.heal("qzpri") == ("qz", b"pri")


def test_a_missing_tokenizer_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="missing"):
        TextTokenizer.load(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"model": {"type": "BPE"}}', "\n\n\0"])
def test_a_broken_tokenizer_is_a_model_error_of_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ModelError) as error:
        TextTokenizer.load(tmp_path)
    assert len(str(error.value).splitlines()) == 1


def test_a_saved_tokenizer_is_the_same(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    again = TextTokenizer.load(tmp_path)
    text = "print(self) # <eos> ä 🙂"
    assert again.encode(text) == TINY.encode(text)
    assert again.special == TINY.special


def test_the_last_of_several_blanks_belongs_to_the_word_where_the_vocabulary_says_so() -> None:
    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    made = Tokenizer(models.BPE({"Ġ": 0, "ĠĠĠ": 1, "a": 2, "Ġa": 3, "b": 4, "ĠĠ": 5}, [("Ġ", "a")]))
    made.pre_tokenizer = words
    made.decoder = decoders.ByteLevel()
    known = TextTokenizer(made)
    assert known.heal("b    ") == ("b   ", b" ")
    assert known.heal("b") == ("b", b"")


def test_a_vocabulary_without_letters_heals_nothing() -> None:
    digits = TextTokenizer.load(WEIGHTS / "sudoku")
    assert digits.heal("1 ") == ("1 ", b"")
