"""The base of mini as it is, where it was pulled."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from engine.text.chat import Chat
from engine.text.tokenizer import TextTokenizer

pytestmark = pytest.mark.timeout(600)


def test_it_writes_what_it_has_learned(mini_base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(mini_base)
    model = AutoModelForCausalLM.from_pretrained(mini_base, dtype=torch.float32)
    for text, rest in (("The capital of France is", " Paris"), ("1, 2, 3, 4, 5,", " 6, 7, 8")):
        ids = tokenizer(text, return_tensors="pt")
        made = model.generate(**ids, max_new_tokens=8, do_sample=False)
        assert tokenizer.decode(made[0]).removeprefix(text).startswith(rest)


def test_its_tokenizer_is_the_engines(mini_base: Path) -> None:
    own = TextTokenizer.load(mini_base)
    config = json.loads((mini_base / "config.json").read_text())
    assert len(own) == config["vocab_size"] == 151_936
    # 20 control tokens, and 271 that pad the vocabulary.
    assert len(own.special) == 291
    text = "def f(x: int) -> int:\n\treturn x * 120  # été 🙂 <|im_end|> [PAD151665]\r\n"
    assert own.text_of(own.encode(text)) == text
    assert not own.special & set(own.encode(text))
    assert own.encode("120") == [own.id_of(digit) for digit in "120"]
    assert Chat.load(mini_base, own) is not None
