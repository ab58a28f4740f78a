"""A run goes on after any end, and what it leaves on disk is always whole."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from training_runs import small_recipe, write_corpus
from transformers import AutoTokenizer, DiffusionGemmaForBlockDiffusion

from engine.backbones.diffusion_gemma import DiffusionGemma
from engine.engine import InfillEngine
from engine.errors import TrainingError
from engine.training.checkpoint import load_state
from engine.training.journal import read_records
from engine.training.loop import Team
from engine.training.nano import write_like
from engine.training.recipe import Origin, Recipe
from engine.training.run import Run
from engine.types import InfillRequest, fill_in_the_middle

ALONE = Team(0, 1)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def longer(recipe: Recipe, steps: int) -> Recipe:
    return dataclasses.replace(recipe, run=dataclasses.replace(recipe.run, steps=steps))


def test_a_stopped_run_goes_on_and_its_model_loads(corpus: Path, tmp_path: Path) -> None:
    recipe = small_recipe(corpus, tmp_path / "run", steps=2)
    out = recipe.run.out
    assert Run(recipe, ALONE).train()
    state = load_state(out)
    assert state is not None
    assert state.steps == 2

    resumed = Run(longer(recipe, 4), ALONE)
    assert (resumed.steps, resumed.minutes) == (2, state.minutes)
    assert resumed.train()
    records = read_records(out / "log.jsonl")
    assert [r["step"] for r in records if "rate" in r] == [1, 2, 3, 4]
    assert [r["step"] for r in records if r.get("final")] == [2, 4]

    curve = (out / "loss.svg").read_text()
    assert curve.startswith("<svg")
    assert "next token" in curve

    reference, report = DiffusionGemmaForBlockDiffusion.from_pretrained(
        out / "model", output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    bos = reference.config.text_config.bos_token_id
    assert AutoTokenizer.from_pretrained(out / "model").bos_token_id == bos
    engine = InfillEngine.load(str(out / "model"))
    assert isinstance(engine.model, DiffusionGemma)
    assert engine.fill(InfillRequest(fill_in_the_middle("x = ", "\n", 4))).steps >= 1


def test_looking_at_held_back_files_tells_how_far_it_is(corpus: Path, tmp_path: Path) -> None:
    looked: list[int] = []
    Run(small_recipe(corpus, tmp_path / "run", validation=3), ALONE).validate(looked.append)
    assert looked == [1, 2, 3]


def test_a_run_in_two_parts_is_a_run_in_one(corpus: Path, tmp_path: Path) -> None:
    """Bit for bit, at a rate that does not depend on where the first part ends."""
    whole, parts = (small_recipe(corpus, tmp_path / n, steps=400) for n in ("whole", "parts"))
    first = Run(whole, ALONE)
    for _ in range(4):
        first.step()
    second = Run(parts, ALONE)
    for _ in range(2):
        second.step()
    second.save()
    third = Run(parts, ALONE)
    for _ in range(2):
        third.step()
    assert all(torch.equal(first.average[n], third.average[n]) for n in first.average)


def test_a_state_of_two_files_is_still_read(corpus: Path, tmp_path: Path) -> None:
    recipe = small_recipe(corpus, tmp_path / "run", steps=3)
    Run(recipe, ALONE).train()
    file = recipe.run.out / "state.safetensors"
    save_file(load_file(file), file)  # without the numbers, as it once was
    (recipe.run.out / "state.json").write_text(json.dumps({"steps": 3, "minutes": 0.5}))
    run = Run(longer(recipe, 4), ALONE)
    assert (run.steps, run.minutes) == (3, 0.5)
    run.train()
    assert not (recipe.run.out / "state.json").exists()
    state = load_state(recipe.run.out)
    assert state is not None
    assert state.steps == 4


def test_a_run_from_a_checkpoint_keeps_what_it_does_not_train(corpus: Path, tmp_path: Path) -> None:
    base = small_recipe(corpus, tmp_path / "base")
    Run(base, ALONE).save()
    recipe = small_recipe(corpus, tmp_path / "run")
    recipe = dataclasses.replace(recipe, model=Origin(base.run.out / "model"))
    Run(recipe, ALONE).train()
    before = load_file(base.run.out / "model" / "model.safetensors")
    after = load_file(recipe.run.out / "model" / "model.safetensors")
    assert {n: (t.shape, t.dtype) for n, t in before.items()} == {
        n: (t.shape, t.dtype) for n, t in after.items()
    }
    changed = {n for n, t in before.items() if not torch.equal(t, after[n])}
    assert changed
    assert not [n for n in changed if "vision" in n]


def test_write_like_writes_every_shard(tmp_path: Path) -> None:
    base, out = tmp_path / "base", tmp_path / "out"
    base.mkdir()
    out.mkdir()
    (base / "config.json").write_text("{}")
    names = ["model.decoder.norm.weight", "model.decoder.embed_tokens.weight", "model.vision.x"]
    shards = {f"model-0000{i}.safetensors": {n: torch.zeros(2)} for i, n in enumerate(names)}
    for shard, tensors in shards.items():
        save_file(tensors, base / shard)
    index = {"weight_map": {n: shard for shard, tensors in shards.items() for n in tensors}}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    write_like(base, lambda name, weight: weight + (name == "norm.weight"), out)
    written = {n: t for shard in shards for n, t in load_file(out / shard).items()}
    assert {n: float(t.sum()) for n, t in written.items()} == dict(
        zip(names, (2, 0, 0), strict=True)
    )
    assert (out / "config.json").is_file()
    assert (out / "model.safetensors.index.json").is_file()


def test_a_place_that_can_not_be_written_to_is_told_of(corpus: Path, tmp_path: Path) -> None:
    recipe = small_recipe(corpus, tmp_path / "file")
    recipe.run.out.write_text("mine")
    with pytest.raises(TrainingError, match="can't save to"):
        Run(recipe, ALONE)
    assert recipe.run.out.read_text() == "mine"


def test_a_broken_state_is_told_of(corpus: Path, tmp_path: Path) -> None:
    recipe = small_recipe(corpus, tmp_path / "run")
    recipe.run.out.mkdir()
    (recipe.run.out / "state.safetensors").write_bytes(b"nothing")
    with pytest.raises(TrainingError, match="is not the state of a run"):
        Run(recipe, ALONE)
