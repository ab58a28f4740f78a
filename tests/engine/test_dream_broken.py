"""Ways to break a folder of Dream's family: each is told in one line, before a weight is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.errors import ModelError
from engine.weights.check import check
from tests.engine import dream_folders

FIRST = "model-00001-of-00004.safetensors"
INDEX = "model.safetensors.index.json"


def edit(name: str, **changes: Any) -> Callable[[Path], None]:
    def broken(folder: Path) -> None:
        data = json.loads((folder / name).read_text(encoding="utf-8"))
        data |= changes
        kept = {key: value for key, value in data.items() if value is not ...}
        (folder / name).write_text(json.dumps(kept), encoding="utf-8")

    return broken


def lose(*names: str) -> Callable[[Path], None]:
    def broken(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return broken


def hold(name: str, text: str) -> Callable[[Path], None]:
    def broken(folder: Path) -> None:
        (folder / name).unlink()  # it may be a link
        (folder / name).write_text(text, encoding="utf-8")

    return broken


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def broken(folder: Path) -> None:
        state = load_file(folder / FIRST)
        change(state)
        (folder / FIRST).unlink()
        save_file(state, folder / FIRST)

    return broken


def no_mask(folder: Path) -> None:
    edit("config.json", mask_token_id=...)(folder)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        edit(name, mask_token=...)(folder)


def hole_in_added_tokens(folder: Path) -> None:
    data = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    del data["added_tokens_decoder"]["151650"]
    (folder / "tokenizer_config.json").write_text(json.dumps(data), encoding="utf-8")


def short_vocabulary(folder: Path) -> None:
    vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    vocab.popitem()
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")


def no_end(folder: Path) -> None:
    edit("config.json", eos_token_id=None)(folder)
    edit("generation_config.json", eos_token_id=None)(folder)


WAYS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no config": (lose("config.json"), r"config\.json can't be read"),
    "config is no JSON": (hold("config.json", '{"model_type": "Dre'), "is not JSON"),
    "config is a list": (hold("config.json", "[]"), "holds no JSON object"),
    "another family": (edit("config.json", model_type="LLaDA"), "'LLaDA' model; known are .*Dream"),
    "no hidden size": (edit("config.json", hidden_size=...), "hidden_size"),
    "no layers": (edit("config.json", num_hidden_layers=0), "num_hidden_layers must be"),
    "heads that don't share": (edit("config.json", num_key_value_heads=3), "4 heads over 3"),
    "another activation": (edit("config.json", hidden_act="gelu"), "gelu is not supported"),
    "scaled rope": (edit("config.json", rope_scaling={"type": "yarn"}), "rope .* is not supported"),
    "sliding windows": (edit("config.json", use_sliding_window=True), "sliding windows"),
    "quantized": (edit("config.json", quantization_config={"bits": 4}), "quantized weights"),
    "a mask nobody has": (
        edit("config.json", mask_token_id=7),
        "token 7, which its tokenizer lacks",
    ),
    "two masks": (edit("config.json", mask_token_id=151_667), "two masks"),
    "no mask": (no_mask, "names no mask"),
    "a mask without an id": (
        edit("tokenizer_config.json", mask_token="<|hole|>"),
        "<|hole|>, which its tokenizer has no id for",
    ),
    "no end": (no_end, "does not know the model's eos_token_id"),
    "no tokenizer": (lose("vocab.json", "merges.txt"), "tokenizer.json is missing"),
    "no merges": (lose("merges.txt"), r"vocab\.json can't be read.*merges\.txt"),
    "merges of three": (hold("merges.txt", "a b c\n"), "'a b c', which is no pair"),
    "a vocabulary that is cut off": (hold("vocab.json", '{"a": 0, '), r"vocab\.json can't be read"),
    "another vocabulary": (hold("vocab.json", '{"a": 0}'), r"vocab\.json can't be read.*`p`"),
    "a short vocabulary": (short_vocabulary, "has no place for it there"),
    "a hole in the added tokens": (hole_in_added_tokens, "has no place for it there"),
    "added tokens of no known form": (
        edit("tokenizer_config.json", added_tokens_decoder={"151643": "<|endoftext|>"}),
        "added tokens in no known way",
    ),
    "a tokenizer config that is cut off": (
        hold("tokenizer_config.json", "{"),
        "tokenizer in .* broken",
    ),
    "more tokens than rows": (edit("config.json", vocab_size=151_650), "151668 tokens, its model"),
    "a sampler's setting that is no number": (
        edit("generation_config.json", alg="entropy", temperature="warm"),
        r"generation_config\.json is broken",
    ),
    "a share above one": (
        edit("generation_config.json", alg="entropy", top_p=1.5),
        "top_p must lie above 0",
    ),
    "an index that is cut off": (hold(INDEX, '{"weight_map"'), "index.json is broken"),
    "an index without a map": (hold(INDEX, "{}"), "index.json is broken"),
    "a shard is missing": (lose(FIRST), f"{FIRST} is missing"),
    "a shard is empty": (hold(FIRST, ""), "broken file of weights"),
    "a shard that was cut off": (hold(FIRST, "\x10\0\0\0\0\0\0\0{"), "broken file of weights"),
    "a tensor is missing": (
        tensors(lambda state: state.pop("model.embed_tokens.weight")),
        "1 weights are missing from .*, model.embed_tokens.weight first",
    ),
    "a tensor of another shape": (
        tensors(lambda state: state.update({"model.embed_tokens.weight": torch.zeros(9, 32)})),
        r"has shape \(9, 32\), the config asks for \(152064, 32\)",
    ),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = dream_folders.write(tmp_path_factory.mktemp("dream") / "dreamon", "dreamon")
    assert check(folder).profile.slack == "<|endoftext|>"
    return folder


@pytest.mark.parametrize("way", WAYS)
def test_a_broken_folder_is_one_clear_line(way: str, whole: Path, tmp_path: Path) -> None:
    broken, said = WAYS[way]
    folder = dream_folders.linked(whole, tmp_path / "dreamon")
    broken(folder)
    with pytest.raises(ModelError, match=said) as error:
        check(folder)
    assert len(str(error.value).splitlines()) == 1
    assert str(folder) in str(error.value) or "dreamon" in str(error.value)


def test_a_language_model_that_fills_nothing_is_refused(tmp_path: Path) -> None:
    folder = dream_folders.write(tmp_path / "plain", "open-dcoder")
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        edit(name, mask_token=...)(folder)
    with pytest.raises(ModelError, match="writes from left to right"):
        check(folder)


def test_settings_that_generation_config_names_count(whole: Path, tmp_path: Path) -> None:
    assert check(whole).profile.sampling.t_max == 0.2
    folder = dream_folders.linked(whole, tmp_path / "dreamon")
    edit("generation_config.json", alg="entropy", temperature=0.0, top_p=0.5)(folder)
    sampling = check(folder).profile.sampling
    assert (sampling.t_max, sampling.t_min, sampling.top_p) == (1e-3, 1e-3, 0.5)
