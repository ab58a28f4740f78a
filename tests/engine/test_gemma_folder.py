"""DiffusionGemma in its published layout: read as transformers reads the same folder, with logits
equal to its own, its template in both revisions, its ends, its sampling and its vocabulary."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine.attention.prefix_cache import PrefixCache
from engine.backbones.diffusion_gemma import DiffusionGemma
from engine.errors import ModelError
from engine.text.tokenizer import TextTokenizer
from engine.weights.check import check
from engine.weights.loader import load_model
from tests.engine import gemma_folder
from tests.engine.gemma_folder import CHANNEL, CHANNEL_END, ENDS, NEWLINE, TURN, TURN_END, VOCAB

CPU = torch.device("cpu")
PREFIX, CANVAS = 41, 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("gemma") / "diffusiongemma"
    gemma_folder.write(place)
    return place


def test_the_layout_is_the_published_one(folder: Path) -> None:
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    names = index["weight_map"]
    assert (len(names), len(set(names.values()))) == (1_047, 11)
    kept = [name for name in names if name.startswith("model.encoder.language_model.")]
    assert len(kept) == 30
    assert all(name.endswith(".layer_scalar") for name in kept), "the rest is the decoder's"
    assert "lm_head.weight" not in names
    assert len([name for name in names if name.endswith("v_proj.weight")]) == 25
    found = check(folder)
    full = [i for i, layer in enumerate(found.config.layers) if not layer.sliding]
    assert full == [5, 11, 17, 23, 29]
    assert {layer.head_dim for layer in found.config.layers} == {256, 512}


def ours(model: DiffusionGemma, prefix: Tensor, canvas: Tensor, believed: Tensor) -> Tensor:
    cache = PrefixCache(model)
    cache.extend(prefix.tolist())
    soft = model.soft_embed(believed.softmax(-1, dtype=torch.float32))
    return model.logits(cache.canvas(canvas, soft))


def theirs(folder: Path, dtype: torch.dtype, *given: Tensor) -> Tensor:
    """transformers' logits, of the folder as it is."""
    from transformers import DiffusionGemmaForBlockDiffusion

    reference = DiffusionGemmaForBlockDiffusion.from_pretrained(folder, dtype=dtype).eval()
    prefix, canvas, believed = given
    return reference(
        input_ids=prefix[None],
        decoder_input_ids=canvas[None],
        self_conditioning_logits=believed[None].to(dtype),
    ).logits[0]


@torch.inference_mode()
def test_logits_are_those_of_transformers_reading_the_same_folder(folder: Path) -> None:
    draw = torch.Generator().manual_seed(1)
    prefix = torch.randint(0, VOCAB, (PREFIX,), generator=draw)
    canvas = torch.randint(0, VOCAB, (CANVAS,), generator=draw)
    believed = torch.randn(CANVAS, VOCAB, generator=draw) * 3
    exact = theirs(folder, torch.float32, prefix, canvas, believed)
    own = ours(load_model(folder, CPU, torch.float32), prefix, canvas, believed)
    assert float(exact.std()) > 1.0
    assert float((own - exact).abs().max()) < 1e-3, "its own two attentions differ by 3e-4"

    # Where two experts are nearly equal, bfloat16 chooses another: ours no more than theirs.
    low = theirs(folder, torch.bfloat16, prefix, canvas, believed)
    own = ours(load_model(folder, CPU, torch.bfloat16), prefix, canvas, believed)

    def error(logits: Tensor) -> float:
        return float((logits.float() - exact).pow(2).mean().sqrt() / exact.std())

    assert error(own) < 1.25 * error(low)


@pytest.mark.parametrize("revision", gemma_folder.REVISIONS)
def test_both_revisions_of_the_template_make_the_same_prompt(
    revision: str, folder: Path, tmp_path: Path
) -> None:
    copy = gemma_folder.linked(folder, tmp_path / "copy")
    gemma_folder.write_template(copy, gemma_folder.REVISIONS[revision])
    found = check(copy)
    assert found.chat is not None
    assert found.no_chat is None
    text = found.tokenizer.encode
    ids = found.chat.ids("shorter", ["a = 1"], 500)
    task = ids[ids.index(NEWLINE) + 1 : ids.index(TURN_END)]
    assert ids == [
        *(TURN, *text("user"), NEWLINE, *task, TURN_END, NEWLINE),
        *(TURN, *text("model"), NEWLINE, CHANNEL, *text("thought"), NEWLINE, CHANNEL_END),
        *text("```\n"),
    ]
    # Where nothing is said it is told to fill, in the same turns.
    fill = found.chat.fill_ids("\nprint(1)\n", 500)
    answer = ids[ids.index(TURN_END) :]
    assert fill[-len(answer) :] == answer
    assert fill[:3] == ids[: ids.index(NEWLINE)][:3]
    asked = found.tokenizer.text_of(fill[: -len(answer)])
    assert "```\n\nprint(1)\n\n```" in asked


def test_what_its_files_say_is_heeded(folder: Path) -> None:
    found = check(folder)
    assert found.profile.name == "diffusiongemma"
    assert list(found.profile.eos_ids) == ENDS
    sampling = found.profile.sampling
    assert (sampling.max_steps, sampling.entropy_bound, sampling.stability) == (48, 0.1, 1)
    assert (sampling.t_max, sampling.t_min, sampling.confidence) == (0.8, 0.4, 0.005)
    assert found.config.bos_id == 2
    assert found.tokenizer.id_of(str(found.profile.slack)) == TURN_END


def test_special_and_untrained_tokens_are_never_written(folder: Path) -> None:
    tokenizer = TextTokenizer.load(folder)
    assert len(tokenizer) == VOCAB
    assert tokenizer.special == set(gemma_folder.SPECIAL)
    assert tokenizer.unwritable - tokenizer.special == {5, *gemma_folder.UNUSED}
    text = "def f(x):\n    print 'é', 5 <unused3><turn|>\n"
    ids = tokenizer.encode(text)
    assert tokenizer.text_of(ids) == text
    assert not set(ids) & tokenizer.special
    assert tokenizer.heal("x = pri")[1] == b" pri"


def lose(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def edit(name: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    def broken(folder: Path) -> None:
        path = folder / name
        path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")

    return broken


def hold(name: str, data: bytes) -> Callable[[Path], None]:
    def broken(folder: Path) -> None:
        (folder / name).unlink()  # it is a link
        (folder / name).write_bytes(data)

    return broken


def swap(old: str, new: str, name: str = "config.json") -> Callable[[Path], None]:
    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new)

    return edit(name, change)


INDEX, THIRD = "model.safetensors.index.json", "model-00003-of-00011.safetensors"
SECOND = THIRD.replace("3", "2")
GENERATION, BIDIRECTIONAL = "generation_config.json", '"use_bidirectional_attention": '
BROKEN: list[tuple[Callable[[Path], None], str]] = [
    (lose("config.json"), "config.json can't be read"),
    (edit("config.json", lambda text: text[:40]), "config.json is not JSON"),
    (edit("config.json", lambda _: "[]"), "holds no JSON object"),
    (swap("diffusion_gemma", "gem"), "holds a 'gem' model"),
    (swap('"hidden_size": 32', '"hidden_size": 64'), "has shape"),
    (swap('"num_experts": 128', '"num_experts": 64'), "has shape"),
    (swap('"num_experts": 128', '"num_experts": 0'), "above 0"),
    (swap('"top_k_experts": 8', '"top_k_experts": 999'), "larger"),
    (swap('"num_hidden_layers": 30', '"num_hidden_layers": 29'), "30 layer types for 29"),
    (swap('"head_dim": 256', '"head_dim": 128'), "has shape"),
    (swap('"head_dim": 256', '"head_dim": 7'), "key heads of size 7"),
    (swap("gelu_pytorch_tanh", "relu"), "activation relu"),
    (swap('"proportional"', '"yarn"'), "rope"),
    (swap('"vocab_size": 262144', '"vocab_size": 99'), "tokens, its model 99"),
    (swap('"canvas_length"', '"quantization_config": {"bits": 4}, "canvas_length"'), "quantized"),
    (swap('"tie_word_embeddings": true', '"tie_word_embeddings": false'), "untied"),
    (swap(f'{BIDIRECTIONAL}"vision"', f'{BIDIRECTIONAL}"all"'), "bidirectional encoder"),
    (lose("tokenizer.json"), "tokenizer.json is missing"),
    (edit("tokenizer.json", lambda text: text[:1000]), "tokenizer.json can't be read"),
    (swap("48", '"many"', GENERATION), f"{GENERATION} is broken"),
    (swap("0.1", "-1", GENERATION), f"{GENERATION} is broken"),
    (lose(THIRD), f"{THIRD} is missing; download the model again"),
    (hold(THIRD, b""), "can't be read"),
    (hold(THIRD, b"\x80\x04pickle" * 99), "can't be read"),
    (edit(INDEX, lambda text: text[:99]), "is broken; download the model again"),
    (swap("weight_map", "map", INDEX), "is broken; download the model again"),
    (swap(THIRD, SECOND, INDEX), "weights are missing"),
]


@pytest.mark.parametrize("number", range(len(BROKEN)))
def test_a_broken_folder_is_one_line(number: int, folder: Path, tmp_path: Path) -> None:
    broken, said = BROKEN[number]
    copy = gemma_folder.linked(folder, tmp_path / "copy")
    broken(copy)
    with pytest.raises(ModelError) as error:
        check(copy)
    assert said in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert len(str(error.value)) < 400
