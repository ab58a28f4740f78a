"""Tokenizers of vocab.json and merges.txt hold to transformers' Qwen2Tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.text.byte_level import added_tokens, mask_token
from engine.text.tokenizer import TextTokenizer
from tests.cases import cases
from tests.engine import dream_folders


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[TextTokenizer, TextTokenizer]:
    """Ours, and the same folder as transformers makes a tokenizer.json of it."""
    from transformers import Qwen2Tokenizer

    place = tmp_path_factory.mktemp("tokenizers")
    folder = dream_folders.write(place / "dreamon", "dreamon")
    vocab, merges = str(folder / "vocab.json"), str(folder / "merges.txt")
    Qwen2Tokenizer(vocab=vocab, merges=merges).save_pretrained(place / "theirs")
    return TextTokenizer.load(folder), TextTokenizer.load(place / "theirs")


pieces = st.sampled_from(
    ["print", "return", "self", "\n", "\r\n", "  ", "\t", "):", "'ll", "12", "ä"]
)


@cases(300)
@given(text=st.lists(st.one_of(pieces, st.text(max_size=6)), max_size=12).map("".join))
@example(text="def f(x):\n    return self.print(x)  # ü\r\n\r\n")
def test_text_is_cut_as_transformers_cuts_it(
    text: str, pair: tuple[TextTokenizer, TextTokenizer]
) -> None:
    ours, theirs = pair
    assert ours.encode(text) == theirs.encode(text)


def test_added_tokens_have_their_ids(tmp_path: Path) -> None:
    folder = dream_folders.write(tmp_path / "dreamon", "dreamon")
    tokenizer = TextTokenizer.load(folder)
    for name, (i, special) in dream_folders.added("dreamon").items():
        assert tokenizer.id_of(name) == i
        assert (i in tokenizer.special) == special
        assert tokenizer.encode(name) != [i] or not special, "text is no markup"
    assert mask_token(folder) == "<|mask|>"
    by_config = added_tokens(folder)
    (folder / "tokenizer_config.json").unlink()
    assert added_tokens(folder).keys() == by_config.keys()
