"""Checkpoints on disk: whole ones load, broken ones say so in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.backbones.config import ModelConfig, parse_config
from engine.backbones.diffusion_gemma import DiffusionGemma
from engine.engine import InfillEngine
from engine.errors import ModelError
from engine.weights import loader
from engine.weights.check import check
from engine.weights.loader import load_model, pick_device, pick_dtype, to_reference_state
from tests.engine.tiny import random_model, save_tokenizer, tiny_config

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole checkpoint."""
    config = tiny_config()
    (tmp_path / "config.json").write_text(json.dumps(config))
    write(tmp_path, to_reference_state(random_model(parse_config(config), seed=1)))
    save_tokenizer(tmp_path)
    return tmp_path


def write(folder: Path, state: dict[str, Tensor], name: str = "model.safetensors") -> None:
    save_file({k: v.contiguous() for k, v in state.items()}, folder / name)


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def refusal(folder: Path) -> str:
    """What loading it is refused with."""
    with pytest.raises(ModelError) as error:
        load_model(folder, CPU, torch.float32)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def test_a_checkpoint_loads_and_tells_how_far_it_is(folder: Path) -> None:
    told: list[float] = []
    model = load_model(folder, CPU, torch.float32, lambda what, share: told.append(share))
    expected = random_model(model.config, seed=1).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1.0)
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())


def test_a_checkpoint_loads_as_the_dtype_that_is_asked_for(folder: Path) -> None:
    model = load_model(folder, CPU, torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_shards_load_like_one_file(folder: Path) -> None:
    whole = load_model(folder, CPU, torch.float32).state_dict()
    state = weights(folder)
    names = sorted(state)
    where: dict[str, str] = {}
    for part in range(3):
        file = f"model-{part}.safetensors"
        write(folder, {name: state[name] for name in names[part::3]}, file)
        where |= dict.fromkeys(names[part::3], file)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))

    sharded = load_model(folder, CPU, torch.float32).state_dict()
    assert all(torch.equal(value, whole[name]) for name, value in sharded.items())

    (folder / "model-1.safetensors").unlink()
    assert "model-1.safetensors is missing" in refusal(folder)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 1}}']
)
def test_a_broken_index_is_refused(folder: Path, content: str) -> None:
    (folder / "model.safetensors.index.json").write_text(content)
    assert "index.json" in refusal(folder)


def test_a_missing_file_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "model.safetensors is missing" in refusal(folder)


@pytest.mark.parametrize("keep", [0, 4, 100, -1, -1000])
def test_a_truncated_file_is_refused(folder: Path, keep: int) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    assert str(folder) in refusal(folder)


def test_bytes_that_are_no_safetensors_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"PK\x03\x04" * 100)
    assert str(folder) in refusal(folder)


def test_a_weight_of_another_shape_is_refused(folder: Path) -> None:
    state = weights(folder)
    state["model.decoder.norm.weight"] = torch.ones(7)
    write(folder, state)
    assert "model.decoder.norm.weight" in refusal(folder)


def test_missing_weights_are_refused(folder: Path) -> None:
    state = weights(folder)
    del state["model.decoder.layers.1.router.scale"]
    write(folder, state)
    assert "1 weights are missing" in refusal(folder)


def test_a_checkpoint_of_another_model_is_refused(folder: Path) -> None:
    write(folder, {"model.layers.0.weight": torch.ones(3)})
    assert "weights are missing" in refusal(folder)


def test_biases_that_differ_between_encoder_and_decoder_are_refused(folder: Path) -> None:
    config = tiny_config(attention_bias=True)
    (folder / "config.json").write_text(json.dumps(config))
    state = to_reference_state(random_model(parse_config(config), seed=1))
    write(folder, state)
    load_model(folder, CPU, torch.float32)
    name = "model.encoder.language_model.layers.0.self_attn.q_proj.bias"
    write(folder, {**state, name: state[name] + 1})
    assert "differs between encoder and decoder" in refusal(folder)


@pytest.mark.parametrize("name", ["banana", "", "xla", "meta", "cpu:x", "vulkan"])
def test_what_is_no_device_is_said_before_anything_is_loaded(name: str) -> None:
    with pytest.raises(ModelError, match=f"^{name!r} is no device: name cuda, mps or cpu"):
        pick_device(name)


def test_a_device_that_is_not_there_is_a_line_that_says_what_to_do() -> None:
    with pytest.raises(ModelError, match=r"^this machine has no cuda:99 .*: leave the device out"):
        pick_device("cuda:99")


def test_the_best_device_is_taken_when_none_is_named() -> None:
    device = pick_device(None)
    assert torch.zeros(1, device=device).device.type == device.type
    assert pick_dtype(device) in (torch.float32, torch.bfloat16)
    assert pick_device("cpu") == CPU


@pytest.mark.parametrize(("native", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_card_that_only_emulates_bfloat16_does_not_get_it(
    native: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return including_emulation or native

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    assert pick_dtype(torch.device("cuda:1")) == dtype


def test_one_model_is_built_to_load_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[bool] = []
    model = loader.DiffusionGemma

    def build(config: ModelConfig) -> DiffusionGemma:
        built.append(True)
        return model(config)

    monkeypatch.setattr(loader, "DiffusionGemma", build)
    load_model(folder, CPU, torch.float32)
    assert built == [True]


def test_a_whole_folder_passes_the_check(folder: Path) -> None:
    checked = check(folder)
    assert checked.profile.name == folder.name
    assert len(checked.tokenizer) <= checked.config.vocab_size
    assert (checked.chat, checked.no_chat) == (None, None)
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert check(folder).chat is not None


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("tokenizer.json", None, "tokenizer.json is missing"),
        ("tokenizer.json", "{", "tokenizer.json can't be read"),
        ("infill.json", "{", "infill.json is broken"),
        ("generation_config.json", "{", "generation_config.json is broken"),
        ("config.json", "{", "config.json is not JSON"),
        ("config.json", json.dumps(tiny_config(vocab_size=100)), "has 282 tokens, its model 100"),
        ("config.json", json.dumps(tiny_config(hidden_size=64)), "the config asks for"),
        ("model.safetensors", None, "model.safetensors is missing"),
    ],
)
def test_what_is_wrong_is_told_before_any_weight_is_read(
    folder: Path, file: str, content: str | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*arguments: object) -> dict[str, Tensor]:
        raise AssertionError("the weights are read")

    monkeypatch.setattr(loader, "_read", read)
    (folder / file).unlink(missing_ok=True)
    if content is not None:
        (folder / file).write_text(content)
    with pytest.raises(ModelError) as error:
        check(folder)
    assert words in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_shape_is_looked_at_before_any_weight_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "_read", lambda *arguments: pytest.fail("the weights are read"))
    state = weights(folder)
    state["model.decoder.norm.weight"] = torch.ones(7)
    write(folder, state)
    assert "model.decoder.norm.weight" in refusal(folder)


def test_a_chat_template_that_cannot_be_used_is_no_reason_not_to_load(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{% for %}")
    checked = check(folder)
    assert checked.chat is None
    assert checked.no_chat is not None
    assert "chat template" in checked.no_chat
    engine = InfillEngine.load(str(folder), device="cpu", dtype=torch.float32)
    assert engine.info.can == ("fill",)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(folder: Path) -> None:
    config = tiny_config(vocab_size=100)
    (folder / "config.json").write_text(json.dumps(config))
    write(folder, to_reference_state(random_model(parse_config(config), seed=1)))
    with pytest.raises(ModelError, match="tokenizer"):
        InfillEngine.load(str(folder), device="cpu")


def test_an_engine_loads_from_a_folder(folder: Path) -> None:
    engine = InfillEngine.load(str(folder), device="cpu", dtype=torch.float32)
    assert engine.info.model == folder.name
    assert engine.info.dtype == "float32"
    assert engine.info.parameters == sum(p.numel() for p in engine.model.parameters())


def test_loading_needs_no_compiler(folder: Path) -> None:
    program = (
        "import sys; from engine.engine import InfillEngine; "
        f"InfillEngine.load({str(folder)!r}, 'cpu'); "
        "print([name for name in sys.modules if name in ('torch._dynamo', 'sympy')])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "[]", "it takes a second and 70 MiB to import"
