"""Fine-tuning on somebody's own files: what is read, what is trained, and what comes out of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_training import CONFIG, _batch
from torch.nn.utils import parametrize
from training_runs import SOURCES, save_base, small_recipe, write_corpus

from engine.backbones.diffusion_gemma import Experts
from engine.engine import InfillEngine
from engine.errors import TrainingError
from engine.training.checkpoint import load_state
from engine.training.corpus import TokenFile
from engine.training.dataset import CodeBatches
from engine.training.files import Files, _vocabulary, split
from engine.training.loop import Team
from engine.training.lora import adapters, attach, merged
from engine.training.nano import new_model
from engine.training.recipe import Lora, Origin, Recipe
from engine.training.run import Run
from engine.training.step import losses
from engine.types import InfillRequest, fill_in_the_middle
from engine.weights.loader import load_model
from engine.weights.profile import EMBEDDED

ALONE = Team(0, 1)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(write_corpus(tmp_path_factory.mktemp("base")))


def listed(path: Path, files: list[Path]) -> Path:
    path.write_text("\n".join(map(str, files)) + "\n")
    return path


def recipe_of(base: Path, tmp_path: Path, rank: int, steps: int = 2) -> Recipe:
    recipe = small_recipe(tmp_path, tmp_path / "run", steps=steps)
    files = listed(tmp_path / "files.txt", SOURCES)
    return dataclasses.replace(
        recipe, data=Files(files), model=Origin(base), lora=Lora(rank=rank, scale=4.0)
    )


@pytest.mark.parametrize("dense_up_to", [0, 4])
def test_adapters_begin_as_nothing_and_merge_to_the_same(
    monkeypatch: pytest.MonkeyPatch, dense_up_to: int
) -> None:
    monkeypatch.setattr(Experts, "DENSE_UP_TO", dense_up_to)
    model, batch = new_model(CONFIG, seed=1), _batch(windows=2, n=16, k=2, c=8, seed=1)

    def loss() -> torch.Tensor:
        with parametrize.cached():
            return losses(model, batch, torch.Generator().manual_seed(0), 2).total

    plain = {name: p.detach().clone() for name, p in model.named_parameters()}
    before = float(loss().detach())
    attach(model, rank=3, scale=2.0, seed=0)
    assert float(loss().detach()) == before
    loss().backward()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert all(p.grad is not None for p in trained.values())
    assert not [
        n for n, p in model.named_parameters() if not p.requires_grad and p.grad is not None
    ]
    with torch.no_grad():
        for parameter in trained.values():
            parameter.add_(0.1 * torch.randn_like(parameter))
    after = float(loss().detach())
    assert after != before

    own = adapters({n: p.detach() for n, p in trained.items()})
    for kind in ("q_proj.weight", "mlp.up_proj.weight", "experts.gate_up_proj"):
        assert any(name.endswith(f"{kind}.up") for name in own)
    alone = new_model(CONFIG, seed=1)
    alone.load_state_dict({n: merged(n, w, own, 2.0) for n, w in plain.items()}, strict=False)
    result = losses(alone, batch, torch.Generator().manual_seed(0), 2).total
    assert float(result.detach()) == pytest.approx(after, rel=1e-5)


def test_a_tuned_model_is_a_plain_one_that_the_engine_loads(base: Path, tmp_path: Path) -> None:
    recipe = recipe_of(base, tmp_path, rank=4)
    recipe.data.prepare(recipe)
    assert Run(recipe, ALONE).train()
    model = tmp_path / "run" / "model"
    before, after = (load_file(folder / "model.safetensors") for folder in (base, model))
    assert before.keys() == after.keys()
    changed = {n for n, t in before.items() if not torch.equal(t, after[n])}
    assert any("experts" in name for name in changed)
    assert not [n for n in changed if "embed" in n or "norm" in n or "router" in n]
    own = load_file(model / "adapters.safetensors")
    assert {t.shape[-2 if name.endswith("down") else -1] for name, t in own.items()} == {4}
    state = load_state(tmp_path / "run")
    assert state is not None
    assert {n.partition(".")[0] for n in state.tensors} == {"average", "masters", "first", "second"}
    assert not [n for n in state.tensors if "original" in n]
    engine = InfillEngine.load(str(model))
    assert engine.fill(InfillRequest(fill_in_the_middle("x = ", "\n", 4))).steps >= 1

    other = dataclasses.replace(recipe, lora=Lora(rank=2))
    with pytest.raises(TrainingError, match="trains other weights"):
        Run(other, ALONE)


def test_all_weights_can_be_trained_too(base: Path, tmp_path: Path) -> None:
    recipe = recipe_of(base, tmp_path, rank=0, steps=1)
    recipe.data.prepare(recipe)
    Run(recipe, ALONE).train()
    after = load_model(tmp_path / "run" / "model", torch.device("cpu"), torch.float32)
    before = load_model(base, torch.device("cpu"), torch.float32)
    assert not torch.equal(after.embed_tokens.weight, before.embed_tokens.weight)


def test_files_are_read_once_and_told_apart(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy, binary, short = (tmp_path / name for name in ("copy.py", "binary.py", "short.py"))
    copy.write_bytes(SOURCES[-1].read_bytes())
    binary.write_bytes(b"\xff\xfe" * 200)
    short.write_text("x = 1\n")
    recipe = recipe_of(base, tmp_path, rank=4)
    listed(tmp_path / "files.txt", [*SOURCES, copy, binary, short, tmp_path / "gone.py"])
    recipe.data.prepare(recipe)
    said = capsys.readouterr().err
    for reason in ("copy", "not UTF-8", "too short", "can't be read"):
        assert f"left out: {reason}" in said
    data = tmp_path / "run" / "data"
    counts = [len(np.load(data / f"{name}.idx.npy")) - 1 for name in ("train", "valid")]
    assert min(counts) >= 1
    assert sum(counts) <= len(SOURCES)
    (tmp_path / "files.txt").unlink()
    recipe.data.prepare(recipe)  # what it trains on is in its folder by now


def test_too_few_files_are_told_of(base: Path, tmp_path: Path) -> None:
    recipe = recipe_of(base, tmp_path, rank=4)
    listed(tmp_path / "files.txt", SOURCES[:1])
    with pytest.raises(TrainingError, match="at least two are needed"):
        recipe.data.prepare(recipe)
    with pytest.raises(TrainingError, match="can't read"):
        Files(tmp_path / "none").prepare(recipe)


@pytest.mark.parametrize("sizes", [[1, 1], [5, 1, 1, 1], [100, 1], [1] * 50])
def test_a_split_has_two_sides(sizes: list[int]) -> None:
    documents = [(str(n), [0] * size) for n, size in enumerate(sizes)]
    train, valid = split(documents, 0.1)
    assert train
    assert valid
    assert sorted(train + valid) == sorted(documents)


def test_a_checkpoint_without_a_profile_has_the_tokens_of_its_family(tmp_path: Path) -> None:
    """As large models come: no infill.json, holes that the end of a turn fills."""
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((EMBEDDED / name).read_bytes())
    with pytest.raises(TrainingError, match="names no tokens"):
        _vocabulary(tmp_path)
    file = tmp_path / "tokenizer.json"
    file.write_text(file.read_text().replace("<slack>", "<turn|>"))
    vocabulary = _vocabulary(tmp_path)
    assert (vocabulary.bos, vocabulary.eos, vocabulary.slack) == (2, 1, 3)


def test_wide_vocabularies_are_kept_whole(tmp_path: Path) -> None:
    file = TokenFile(tmp_path, "train", wide=True)
    file.add([70_000, 4, 5])
    file.close()
    batches = CodeBatches(tmp_path, _vocabulary(EMBEDDED), 0)
    assert batches._tokens.tolist() == [70_000, 4, 5]
