"""A GGUF file becomes the folder that transformers and the engine read."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Quant
from tiny_gguf import MERGES, PADDING, SPECIAL, TEMPLATE, logits, random_model, tokens, write
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Tokenizer

import engine.weights.gguf
from engine.errors import ModelError
from engine.text.chat import Chat
from engine.text.tokenizer import TextTokenizer
from engine.weights.gguf import convert, spare

CASES = [
    ("llama", Quant.Q4_1, True),
    ("llama", Quant.Q8_0, False),
    ("llama", Quant.F32, True),
    ("qwen2", Quant.Q8_0, True),
    ("qwen3", Quant.F16, False),
]


@pytest.mark.parametrize(("architecture", "quant", "tied"), CASES)
def test_the_logits_are_those_of_the_original(
    architecture: str, quant: Quant, tied: bool, tmp_path: Path
) -> None:
    model = random_model(architecture, tied=tied)
    words = "smollm" if architecture == "llama" else "qwen2"
    write(tmp_path / "a.gguf", model, quant, words)
    told: list[float] = []
    convert(tmp_path / "a.gguf", tmp_path / "made", told.append)
    made = AutoModelForCausalLM.from_pretrained(tmp_path / "made", dtype=torch.float32)
    assert type(made) is type(model)
    assert told == sorted(told)
    assert told[-1] == 1
    np.testing.assert_allclose(logits(made), logits(model), rtol=0, atol=1e-5)
    assert logits(model).std() > 0.1  # so that the line above says something


def test_a_head_that_is_the_embedding_but_for_rounding_is_tied(tmp_path: Path) -> None:
    model = random_model("qwen2", tied=False)
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    head.data.copy_(embedding.data)
    write(tmp_path / "a.gguf", model, Quant.Q5_0, "qwen2", head=Quant.Q8_0)
    assert not torch.equal(head, embedding)
    convert(tmp_path / "a.gguf", tmp_path / "made")
    made = AutoModelForCausalLM.from_pretrained(tmp_path / "made", dtype=torch.float32)
    assert made.config.tie_word_embeddings
    # The head's rounding is the finer one.
    embedding.data.copy_(head.data)
    np.testing.assert_allclose(logits(made), logits(model), rtol=0, atol=1e-5)


def test_of_an_embedding_that_the_head_stands_for_little_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.weights.gguf, "_COMPARED", 20)
    model = random_model("qwen2", tied=False)
    model.get_output_embeddings().weight.data.copy_(model.get_input_embeddings().weight.data)
    write(tmp_path / "whole.gguf", model, Quant.Q5_0, "qwen2", head=Quant.Q8_0)
    unread = spare(tmp_path / "whole.gguf")
    row = 64 // 32 * 22  # bytes of a row of the embedding, in blocks of 32
    assert len(unread) == (len(tokens()) - 20) * row
    data = bytearray((tmp_path / "whole.gguf").read_bytes())
    assert any(data[unread.start : unread.stop])
    data[unread.start : unread.stop] = bytes(len(unread))
    (tmp_path / "less.gguf").write_bytes(data)
    for name in ("whole", "less"):
        convert(tmp_path / f"{name}.gguf", tmp_path / name)
    made = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "less")]
    assert made[0] == made[1]
    write(tmp_path / "once.gguf", random_model("qwen2", tied=True))
    assert len(spare(tmp_path / "once.gguf")) == 0


def test_the_config_says_what_the_weights_do_not(tmp_path: Path) -> None:
    write(tmp_path / "a.gguf", random_model("llama", tied=True))
    convert(tmp_path / "a.gguf", tmp_path / "made")
    config = json.loads((tmp_path / "made" / "config.json").read_text())
    wanted = {
        "model_type": "llama",
        "rope_theta": 50_000.0,
        "rms_norm_eps": 1e-5,
        "head_dim": 16,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "max_position_embeddings": 128,
    }
    assert {key: config[key] for key in wanted} == wanted
    names = {path.name for path in (tmp_path / "made").iterdir()}
    assert names == {
        *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
        "chat_template.jinja",
    }
    assert (tmp_path / "made" / "chat_template.jinja").read_text() == TEMPLATE
    modes = {path.stat().st_mode for path in (tmp_path / "made").iterdir()}
    assert len(modes) == 1


def test_the_tokenizer_reads_and_writes_text(tmp_path: Path) -> None:
    write(tmp_path / "a.gguf", random_model("llama", tied=True))
    convert(tmp_path / "a.gguf", tmp_path / "made")
    raw = Tokenizer.from_file(str(tmp_path / "made" / "tokenizer.json"))
    assert raw.encode("def x12").tokens == ["def", "Ġx", "1", "2"], "digits stay alone"
    assert raw.encode("<|im_end|>").ids == [2]
    own = TextTokenizer.load(tmp_path / "made")
    # What pads the vocabulary never stands for text, either.
    assert own.special == {tokens().index(token) for token in (*SPECIAL, *PADDING)}
    text = "def été(x):\n\treturn '<|im_end|>[PAD1]' * 12  # 🙂\n"
    assert own.text_of(own.encode(text)) == text
    assert not own.special & set(own.encode(text))
    assert Chat.load(tmp_path / "made", own) is not None
    theirs = AutoTokenizer.from_pretrained(tmp_path / "made")
    assert theirs("def x12")["input_ids"] == raw.encode("def x12").ids
    assert theirs.eos_token == "<|im_end|>"


def test_the_words_of_qwen_are_those_of_transformers(tmp_path: Path) -> None:
    write(tmp_path / "a.gguf", random_model("qwen2", tied=True), words="qwen2")
    convert(tmp_path / "a.gguf", tmp_path / "made")
    raw = Tokenizer.from_file(str(tmp_path / "made" / "tokenizer.json"))
    vocabulary = {token: i for i, token in enumerate(tokens())}
    merges = [tuple(merge.split(" ")) for merge in MERGES]
    theirs = Qwen2Tokenizer(vocab=vocabulary, merges=merges)
    text = "def x12():\n    return I'm  x , e\u0301 def\r\n\n  x"
    assert raw.encode(text).ids == theirs(text)["input_ids"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"llama.expert_count": 8}, "experts"),
        ({"llama.rope.scaling.type": "yarn"}, "scaled"),
        ({"llama.rope.dimension_count": 8}, "rotated in part"),
    ],
)
def test_what_is_not_known_is_refused_in_one_line(
    more: dict[str, str | int], said: str, tmp_path: Path
) -> None:
    write(tmp_path / "a.gguf", random_model("llama", tied=True), **more)
    refused(tmp_path, said)


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.gguf", random_model("llama", tied=True), words="llama-bpe")
    refused(tmp_path, "(gpt2, llama-bpe) is not one of smollm, qwen2")


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "mamba")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    refused(tmp_path, "mamba is not one of llama, qwen2, qwen3")


def test_a_broken_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "whole.gguf", random_model("llama", tied=True))
    whole = (tmp_path / "whole.gguf").read_bytes()
    for broken in (b"", b"not a model at all", whole[:5000], whole[: len(whole) // 2]):
        (tmp_path / "a.gguf").write_bytes(broken)
        refused(tmp_path, "is not a whole GGUF file")


def refused(folder: Path, said: str) -> None:
    with pytest.raises(ModelError) as error:
        convert(folder / "a.gguf", folder / "made")
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert {path.suffix for path in folder.iterdir()} == {".gguf"}, "nothing half is left"


def test_what_was_there_stays_until_the_new_is_whole(tmp_path: Path) -> None:
    write(tmp_path / "a.gguf", random_model("llama", tied=True))
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "old").touch()

    def no_room(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(ModelError, match="No space left on device"):
        convert(tmp_path / "a.gguf", tmp_path / "made", finish=no_room)
    assert {path.name for path in tmp_path.iterdir()} == {"a.gguf", "made"}
    assert (tmp_path / "made" / "old").exists()
    convert(tmp_path / "a.gguf", tmp_path / "made")
    assert {path.name for path in tmp_path.iterdir()} == {"a.gguf", "made"}
    assert not (tmp_path / "made" / "old").exists()
