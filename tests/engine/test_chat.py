"""What an instruction model is told, and that nobody can say anything else in its place."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from engine.engine import InfillEngine
from engine.errors import BadRequest, ModelError
from engine.text.chat import Chat
from engine.types import Fixed, Hole, InfillRequest
from tests.engine.tiny import tiny_engine, tiny_tokenizer

TEMPLATE = "<bos>{% for m in messages %}{{ m.role }}: {{ m.content }}<slack>{% endfor %}model: "


def chat_in(folder: Path, template: str = TEMPLATE) -> Chat | None:
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return Chat.load(folder, tiny_tokenizer())


def test_the_template_comes_from_either_file(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    assert Chat.load(tmp_path, tokenizer) is None
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    found = Chat.load(tmp_path, tokenizer)
    assert found is not None
    other = chat_in(tmp_path)
    assert other is not None
    assert found.ids("do it", [], 99) == other.ids("do it", [], 99)


def test_only_the_template_speaks_special_tokens(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    chat = chat_in(tmp_path)
    assert chat is not None
    ids = chat.ids("say <slack>", ["x = '<bos>'"], 999)
    special = [i for i in ids if i in tokenizer.special]
    assert special == [tokenizer.id_of("<bos>"), tokenizer.id_of("<slack>")]
    text = tokenizer.text_of(ids)
    assert text.startswith("user: ")
    assert "x = '<bos>'" in text
    assert text.index("say <slack>") < text.index("model: ")
    assert text.endswith("model: ```\n")


def test_long_parts_are_cut(tmp_path: Path) -> None:
    chat = chat_in(tmp_path)
    assert chat is not None
    assert len(chat.ids("do it", ["word " * 500], 60)) <= 64
    assert len(chat.ids("do it", ["word " * 500], 0)) < 30


@pytest.mark.parametrize("template", ["{% for %}", "{{ raise_exception('no') }}", "no content"])
def test_a_template_that_cannot_be_used_is_named(tmp_path: Path, template: str) -> None:
    with pytest.raises(ModelError, match="chat template in"):
        chat_in(tmp_path, template)


def test_an_instruction_changes_what_the_model_sees(tmp_path: Path) -> None:
    plain = tiny_engine()
    engine = InfillEngine(
        plain.model,
        plain.tokenizer,
        replace(plain.profile, can=("fill", "instruct"), context=600),
        chat_in(tmp_path),
    )
    template = (Fixed("a = 1\n"), Hole(max_tokens=4), Fixed("\nb = 2\n"))
    assert "instruct" in engine.info.can
    without = engine.fill(InfillRequest(template))
    told = engine.fill(InfillRequest(template, instruction="please count"))
    assert told.timings.keys() == without.timings.keys()
    prefixes = [cache.ids for cache in engine.store.caches]
    assert any("please count" in plain.tokenizer.text_of(ids) for ids in prefixes)


def test_a_model_that_follows_none_says_so(tmp_path: Path) -> None:
    engine = tiny_engine()
    assert "instruct" not in engine.info.can
    with pytest.raises(BadRequest, match="does not follow instructions"):
        engine.fill(InfillRequest((Hole(max_tokens=2),), instruction="count"))
