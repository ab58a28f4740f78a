"""config.json, infill.json and where a model is looked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from engine.backbones.config import load_config, parse_config
from engine.errors import ModelError
from engine.models import SHIPPED, WEIGHTS, local_model
from engine.profile import Sampling
from engine.types import SamplingParams
from engine.weights.locate import locate
from engine.weights.profile import EMBEDDED, load_profile
from tests.engine.tiny import tiny_config


def without(name: str) -> dict[str, Any]:
    config = tiny_config()
    del config["text_config"][name]
    return config


def one_line(error: pytest.ExceptionInfo[ModelError]) -> bool:
    return len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    "config",
    [
        None,
        [],
        "diffusion_gemma",
        {},
        {"model_type": "llama"},
        {"model_type": "diffusion_gemma"},
        {"model_type": "diffusion_gemma", "text_config": []},
        {"model_type": "diffusion_gemma", "text_config": {}},
        without("vocab_size"),
        without("num_experts"),
        without("num_hidden_layers"),
        tiny_config(num_experts=None),
        tiny_config(hidden_size="32"),
        tiny_config(num_hidden_layers=0, layer_types=[]),
        tiny_config(layer_types=["full_attention"]),
        tiny_config(top_k_experts=5),
        tiny_config(num_key_value_heads=3),
        tiny_config(head_dim=7),
        tiny_config(hidden_activation="silu"),
        tiny_config(use_bidirectional_attention="all"),
        tiny_config(rope_parameters={"full_attention": {"rope_type": "yarn", "rope_theta": 1.0}}),
        tiny_config(rope_parameters={"full_attention": 3}),
        tiny_config(per_layer_config={"3": {"head_dim": 16}}),
        tiny_config(per_layer_config={"1": {"head_dim": 16}, "01": {"head_dim": 32}}),
        tiny_config(per_layer_config={"first": {"head_dim": 16}}),
        tiny_config(per_layer_config={"1": {"sliding_window": 8}}),
        tiny_config(per_layer_config={"1": 5}),
        {**tiny_config(), "quantization_config": {"quant_method": "fp8"}},
        {**tiny_config(), "tie_word_embeddings": False},
    ],
)
def test_a_config_that_can_not_be_used_is_a_model_error_of_one_line(config: Any) -> None:
    with pytest.raises(ModelError) as error:
        parse_config(config)
    assert one_line(error)


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff\xfe", b"null", b"[1]"])
def test_a_config_file_that_can_not_be_read_is_a_model_error(
    tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ModelError) as error:
        load_config(tmp_path)
    assert one_line(error)


def test_both_spellings_of_a_layers_own_sizes_mean_the_same() -> None:
    old = tiny_config(global_head_dim=32, num_global_key_value_heads=1)
    new = tiny_config(per_layer_config={"1": {"head_dim": 32, "num_key_value_heads": 1}})
    del new["text_config"]["global_head_dim"]
    # The last layer is always a full one.
    new["text_config"]["per_layer_config"]["2"] = {"head_dim": 32, "num_key_value_heads": 1}
    assert parse_config(old) == parse_config(new)
    assert [layer.sliding for layer in parse_config(old).layers] == [True, False, False]


@pytest.mark.parametrize("layers", [6, 12, 30, 102])
def test_what_transformers_writes_of_many_layers_is_understood(layers: int) -> None:
    """It pads the keys of `per_layer_config` with zeros to the same length."""
    from transformers import DiffusionGemmaConfig

    kinds = (["sliding_attention"] * 5 + ["full_attention"]) * (layers // 6)
    old = tiny_config(
        num_hidden_layers=layers,
        layer_types=kinds,
        global_head_dim=32,
        num_global_key_value_heads=1,
    )
    new = json.loads(DiffusionGemmaConfig(**old).to_json_string())
    assert {len(key) for key in new["text_config"]["per_layer_config"]} == {len(str(layers - 1))}
    assert parse_config(new) == parse_config(old)
    full = [layer for layer in parse_config(new).layers if not layer.sliding]
    assert {(layer.head_dim, layer.kv_heads) for layer in full} == {(32, 1)}
    assert len(full) == layers // 6


def test_defaults_are_those_of_transformers() -> None:
    from transformers import DiffusionGemmaConfig

    bare = tiny_config()
    for name in ("layer_types", "head_dim", "global_head_dim", "sliding_window"):
        del bare["text_config"][name]
    bare["text_config"]["num_hidden_layers"] = 7
    written = json.loads(DiffusionGemmaConfig(**bare).to_json_string(use_diff=False))
    assert parse_config(bare) == parse_config(written)


def test_a_checkpoint_without_a_profile_gets_one_that_fits() -> None:
    config = parse_config(tiny_config(canvas_length=64, max_position_embeddings=1000))
    profile = load_profile(Path("/models/some-model"), config)
    assert profile.name == "some-model"
    assert profile.canvas == 64
    assert profile.context + profile.canvas <= 1000
    assert profile.hole + profile.suffix <= profile.canvas


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "null",
        '"x"',
        "{}",
        '{"name": "x", "unknown": 1}',
        '{"name": "x", "can": 5}',
        '{"name": "x", "languages": "python"}',
        '{"name": "x", "languages": [5]}',
        '{"name": "x", "sampling": {"heat": 1}}',
        '{"name": "x", "sampling": []}',
    ],
)
def test_a_broken_profile_is_a_model_error_of_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "infill.json").write_text(content)
    with pytest.raises(ModelError) as error:
        load_profile(tmp_path, parse_config(tiny_config()))
    assert one_line(error)


PUBLISHED = {
    "max_denoising_steps": 40,
    "sampler_config": {"_cls_name": "EntropyBoundSamplerConfig", "entropy_bound": 0.2},
    "t_max": 0.9,
    "t_min": 0.3,
    "stability_threshold": 2,
    "confidence_threshold": 0.01,
    "eos_token_id": [1, 106, 50],
    "bos_token_id": 2,
}


def generation(folder: Path, **fields: Any) -> Path:
    (folder / "generation_config.json").write_text(json.dumps(fields))
    return folder


def test_a_checkpoint_is_sampled_as_its_generation_config_says(tmp_path: Path) -> None:
    profile = load_profile(generation(tmp_path, **PUBLISHED), parse_config(tiny_config()))
    assert profile.sampling == Sampling(40, 0.2, 0.9, 0.3, 2, 0.01)
    assert profile.eos_ids == (1, 106, 50)


def test_what_a_generation_config_leaves_open_is_as_transformers_has_it(tmp_path: Path) -> None:
    from transformers.models.diffusion_gemma.generation_diffusion_gemma import (
        DiffusionGemmaGenerationConfig,
    )

    DiffusionGemmaGenerationConfig(eos_token_id=7).save_pretrained(tmp_path)
    profile = load_profile(tmp_path, parse_config(tiny_config()))
    defaults = DiffusionGemmaGenerationConfig._get_default_generation_params()
    assert profile.sampling == Sampling(
        max_steps=defaults["max_denoising_steps"],
        entropy_bound=defaults["sampler_config"].entropy_bound,
        t_max=defaults["t_max"],
        t_min=defaults["t_min"],
        stability=defaults["stability_threshold"],
        confidence=defaults["confidence_threshold"],
    )
    assert profile.eos_ids == (7,)
    (tmp_path / "generation_config.json").unlink()
    assert load_profile(tmp_path, parse_config(tiny_config())).eos_ids == (1,), "of config.json"


def test_a_profile_of_its_own_goes_before_the_generation_config(tmp_path: Path) -> None:
    (tmp_path / "infill.json").write_text('{"name": "x", "sampling": {"max_steps": 9}}')
    profile = load_profile(generation(tmp_path, **PUBLISHED), parse_config(tiny_config()))
    assert profile.sampling == Sampling(max_steps=9)
    assert profile.eos_ids == (1, 106, 50), "which infill.json does not know"


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[1]",
        '{"max_denoising_steps": 0}',
        '{"t_max": "hot"}',
        '{"eos_token_id": ["x"]}',
        '{"sampler_config": 5}',
    ],
)
def test_a_broken_generation_config_is_a_model_error_of_one_line(
    tmp_path: Path, content: str
) -> None:
    (tmp_path / "generation_config.json").write_text(content)
    with pytest.raises(ModelError, match=r"generation_config.json is broken") as error:
        load_profile(tmp_path, parse_config(tiny_config()))
    assert one_line(error)


def test_a_sampler_that_is_not_known_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    generation(tmp_path, sampler_config={"_cls_name": "Other", "bound": 3}, t_max=0.7)
    profile = load_profile(tmp_path, parse_config(tiny_config()))
    assert profile.sampling == Sampling(t_max=0.7)
    assert "asks for the sampler Other" in caplog.text


@pytest.mark.parametrize(
    ("content", "languages"),
    [
        ('{"name": "x"}', None),
        ('{"name": "x", "languages": []}', ()),
        ('{"name": "x", "languages": ["python", "c"]}', ("python", "c")),
    ],
)
def test_a_profile_may_name_languages(
    tmp_path: Path, content: str, languages: tuple[str, ...] | None
) -> None:
    (tmp_path / "infill.json").write_text(content)
    assert load_profile(tmp_path, parse_config(tiny_config())).languages == languages


@pytest.mark.parametrize(("name", "languages"), [("nano", ("python",)), ("sudoku", ())])
def test_what_ships_says_what_it_has_learned(name: str, languages: tuple[str, ...]) -> None:
    assert load_profile(WEIGHTS / name, load_config(WEIGHTS / name)).languages == languages


def test_what_a_request_says_comes_before_the_profile() -> None:
    sampling = Sampling(max_steps=9, t_max=0.7)
    assert sampling.override(SamplingParams()) == sampling
    changed = sampling.override(SamplingParams(max_steps=3, stability=0))
    assert changed == Sampling(max_steps=3, t_max=0.7, stability=0)


def test_no_name_is_the_embedded_model() -> None:
    assert locate(None) == EMBEDDED


@pytest.mark.parametrize("name", SHIPPED)
def test_what_ships_has_a_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    assert locate(name) == WEIGHTS / name
    # What is whole in the package has a config, what needs a base says which one.
    assert any((locate(name) / file).is_file() for file in ("config.json", "base.json"))
    assert locate(f"./{name}") == Path(name)
    assert local_model(name) == (None if name == "nano" else str(WEIGHTS / name))


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    assert locate(str(tmp_path)) == tmp_path


def test_what_a_training_leaves_is_a_model(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").touch()
    assert locate(str(tmp_path)) == tmp_path / "model"
    (tmp_path / "config.json").touch()
    assert locate(str(tmp_path)) == tmp_path


@pytest.mark.parametrize(
    "name",
    ["nothing-here", "./no/such", "/no/such/folder", "a/b/c", "~nobody-at-all/x", "x" * 5000],
)
def test_what_is_no_model_is_a_model_error_without_network(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(*args: Any, **more: Any) -> str:
        raise AssertionError("nothing of this kind may be looked for on the hub")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    with pytest.raises(ModelError) as error:
        locate(name)
    assert one_line(error)


def test_a_file_is_not_a_model(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    with pytest.raises(ModelError, match="folder"):
        locate(str(file))


def test_a_hub_name_without_network_is_a_model_error_of_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fetch(*args: Any, **more: Any) -> str:
        raise OSError("no route to host\n\nmany more lines")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    with pytest.raises(ModelError, match="owner/name can't be fetched: no route") as error:
        locate("owner/name")
    assert one_line(error)


def test_a_model_on_disk_is_not_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[bool] = []
    for file in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / file).write_text("{}")

    def fetch(name: str, local_files_only: bool = False, **more: Any) -> str:
        asked.append(local_files_only)
        assert not any("py" in pattern for pattern in more["allow_patterns"])
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert locate("owner/name") == tmp_path
    assert asked == [True]
