"""Training of an adapter: steps see what serving sees, holes are cut as in serving, runs go on."""

from __future__ import annotations

import json
import lzma
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from adapter_runs import END, MASK, VOCAB, tiny_model, tiny_recipe, write_base, write_texts
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from training_runs import module

from engine.attention.prefix_cache import PrefixCache
from engine.attention.span import forward
from engine.attention.token_tree import ROOT, TokenTree
from engine.attention.token_tree import Hole as TreeHole
from engine.backbones.dense import Dense
from engine.backbones.dense_config import parse_dense
from engine.engine import InfillEngine
from engine.errors import TrainingError
from engine.text.tokenizer import TextTokenizer
from engine.training import packed
from engine.training.adapter import Tokens
from engine.training.adapter_run import AdapterRun, _Steps
from engine.training.infill import Infill, read_texts
from engine.training.infill_cuts import KINDS, Cut, Document
from engine.training.journal import read_records
from engine.training.loop import Team
from engine.training.packed import Hole, Window, pack
from engine.training.train import kind_of_run
from engine.types import InfillRequest, fill_in_the_middle
from engine.weights.dense import StoredWeights, read_adapter
from engine.weights.profile import EMBEDDED
from tests.cases import cases

TOKENIZER = TextTokenizer.load(EMBEDDED, ("<|end|>", "<|mask|>"))
CPU = torch.device("cpu")
TOKENS = Tokens(END, MASK)
MARKED = Tokens(END, MASK, (2, 3))

TEXTS = (
    module(7),
    "def f(a, b):\n    return a\n\n\nclass A:\n\n    x = [1, (2, 3)]\n\ty = {'k': \"v\"}\n    \n"
    * 3,
    'function g(a) {\n  return { "x": [a, "é🙂"] };\n}\n\n  // done\n' * 4,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_texts(tmp_path_factory.mktemp("texts"))


# ---- a step is what serving does ----

token = st.integers(4, VOCAB - 1)
holes = st.builds(
    lambda start, middle, after, more: Hole(start, middle, after, len(middle) + more, "span"),
    st.integers(1, 30),
    st.lists(token, max_size=9),
    st.lists(token, max_size=20),
    st.integers(1, 12),
)


windows_with_holes = st.lists(
    st.builds(Window, st.lists(token, min_size=30, max_size=70), st.lists(holes, min_size=1)),
    min_size=1,
    max_size=3,
)


@cases(25)
@given(
    windows=windows_with_holes,
    tokens=st.sampled_from([TOKENS, MARKED]),
    seed=st.integers(0, 99),
)
def test_a_steps_logits_are_those_of_serving(
    base: Path, windows: list[Window], tokens: Tokens, seed: int
) -> None:
    """The decoder's tree, which fills holes, has the same to say of the same holes."""
    model = tiny_model(base, loud=True)
    batch = pack(windows, tokens, np.random.default_rng(seed))
    with torch.inference_mode():
        ours = packed.logits(model, batch)
        served = Dense(
            parse_dense(json.loads((base / "config.json").read_text())),
            StoredWeights(base, CPU, torch.float32),
            model.adapter({name: t.detach() for name, t in model.trained.items()}),
        )
        drawn = np.random.default_rng(seed)
        at = 0
        for window in windows:
            for hole in window.holes:
                rows = packed._Rows()
                rows.add(hole, window.ids[hole.start - 1], tokens, drawn)
                placed = rows.spans[0]
                decided, masks = placed.decided, placed.masks
                # What stands behind the hole may have a further hole in it.
                first = tokens.marks is not None
                after = rows.ids[first : first + len(hole.after)]
                cache = PrefixCache(served)
                cache.extend(window.ids)
                tree = TokenTree(
                    cache, hole.start, hole=TreeHole(hole.slots, after, MASK, tokens.marks)
                )
                places = [ROOT, *tree.path(hole.middle)]
                tree.took(forward(served, tree.spans(places[decided], masks)))
                theirs = served.logits(tree.rows(places))
                mine = ours[at : at + len(places)]
                torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)
                asked = len(rows.predicted) - len(places)
                mine = ours[at + len(places) : at + len(rows.predicted)]
                theirs = served.logits(tree.masked)[:asked]
                torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)
                at += len(rows.predicted)
    assert at == len(ours)


@cases(8)
@given(
    windows=windows_with_holes,
    tokens=st.sampled_from([TOKENS, MARKED]),
    seed=st.integers(0, 99),
)
def test_gradients_are_those_of_plain_indexing(
    base: Path, windows: list[Window], tokens: Tokens, seed: int
) -> None:
    """Rows that are moved to their holes and back, padding included."""
    batch = pack(windows, tokens, np.random.default_rng(seed))

    def gradients() -> dict[str, torch.Tensor]:
        model = tiny_model(base, loud=True)
        packed.nats(model, batch).mean().backward()
        return {name: t.grad for name, t in model.trained.items() if t.grad is not None}

    ours = gradients()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed._Moved, "apply", lambda x, there, back: x[there])
        plain = gradients()
    assert ours.keys() == plain.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(ours[name], gradient, atol=1e-5, rtol=1e-4)


def test_gradients_reach_the_adapter_and_nothing_else(base: Path) -> None:
    model = tiny_model(base, loud=True)
    hole = Hole(20, [5, 6, 7], [8, 9, 10], 9, "span")
    batch = pack([Window(list(range(4, 44)), [hole])], TOKENS, np.random.default_rng(0))
    packed.nats(model, batch).mean().backward()
    for name, tensor in model.trained.items():
        assert tensor.grad is not None, name
        assert float(tensor.grad.abs().sum()) > 0, name
    assert all(not block.input_norm.requires_grad for block in model._layers)
    assert not model._embeddings.requires_grad
    # The row of the end's embedding is never read: nothing writes it into a hole.
    grad = model.trained["embeddings"].grad
    assert grad is not None
    assert float(grad[0].abs().sum()) == 0


def test_what_is_predicted_of_a_hole(base: Path) -> None:
    hole = Hole(3, [11, 12], [20, 21], 6, "span")
    window = Window([4, 5, 6, 7], [hole])
    batch = pack([window], TOKENS, np.random.default_rng(1))
    chosen = batch.rows[:3]
    assert batch.ids.flatten()[chosen].tolist() == [6, 11, 12]
    assert batch.positions.flatten()[chosen].tolist() == [2, 3, 4]
    assert batch.target[:3].tolist() == [11, 12, END]
    assert batch.positions[0, :2].tolist() == [9, 10], "behind all slots"
    whole = [11, 12, END, END, END, END]
    for row, target in zip(batch.rows[3:].tolist(), batch.target[3:].tolist(), strict=True):
        slot = int(batch.positions.flatten()[row]) - 3
        assert int(batch.ids.flatten()[row]) == MASK
        assert target == whole[slot + 1]


# ---- holes ----


@cases(300)
@given(
    text=st.sampled_from(TEXTS),
    kind=st.sampled_from(sorted(KINDS)),
    near=st.integers(2, 400),
    blanks=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_a_hole_begins_where_serving_would_begin_it(
    text: str, kind: str, near: int, blanks: bool, seed: int
) -> None:
    document = Document(text, TOKENIZER, blanks)
    cut = document.cut(kind, min(near, len(document.ids) - 1), np.random.default_rng(seed))
    if cut is None:
        return
    heal = TOKENIZER.heal_blank if blanks else TOKENIZER.heal
    before, typed = heal(text[: cut.cursor])
    middle = TOKENIZER.encode(text[cut.start : cut.end])
    after = TOKENIZER.encode(text[cut.end :])
    assert before == text[: cut.start]
    assert TOKENIZER.bytes_of(middle).startswith(typed)
    assert TOKENIZER.text_of([*document.ids[: cut.token], *middle, *after]) == text
    assert (cut.start == cut.end) <= (kind == "empty")
    assert "\n" not in text[cut.cursor : cut.end] or kind in ("lines", "block", "span", "bracket")


def test_there_are_holes_of_every_kind() -> None:
    found: dict[str, list[Cut]] = {kind: [] for kind in KINDS}
    for text in TEXTS:
        document = Document(text, TOKENIZER, blanks=True)
        for kind, cuts in found.items():
            for near in range(2, len(document.ids), 3):
                cut = document.cut(kind, near, np.random.default_rng(near))
                cuts += [] if cut is None else [cut]
    assert {kind: len(cuts) > 5 for kind, cuts in found.items()} == dict.fromkeys(KINDS, True)


@pytest.mark.parametrize("packing", ["", ".gz", ".xz"])
def test_windows_are_drawn_by_their_number_from_packed_texts_too(
    base: Path, texts: Path, tmp_path: Path, packing: str
) -> None:
    import gzip

    data = (texts / "texts.jsonl").read_bytes()
    opened = {
        "": lambda: data,
        ".gz": lambda: gzip.compress(data),
        ".xz": lambda: lzma.compress(data),
    }
    (tmp_path / f"texts-1.jsonl{packing}").write_bytes(opened[packing]())
    (tmp_path / "heldout.jsonl").write_bytes((texts / "heldout.jsonl").read_bytes())
    recipe = tiny_recipe(base, tmp_path, tmp_path / "run")
    windows = recipe.data.open(recipe).training.batch(5)
    assert windows == tiny_recipe(base, texts, tmp_path).data.open(recipe).training.batch(5)
    documents = [text.text for text in read_texts(texts, "texts")]
    for window in windows:
        for hole in window.holes:
            ids = [*window.ids[1 : hole.start], *hole.middle]
            read = TOKENIZER.text_of(ids)
            behind = TOKENIZER.text_of(hole.after)
            assert window.ids[0] == 2, "as a text begins in serving"
            assert any(
                read in text and (behind in ("", "\n") or read + behind in text)
                for text in documents
            )
            assert len(hole.middle) < hole.slots


def test_benchmark_text_is_left_out(base: Path, texts: Path, tmp_path: Path) -> None:
    text = next(read_texts(texts, "texts")).text
    (tmp_path / "bench.jsonl").write_text(
        json.dumps({"prompt": text[:400], "canonical_solution": text[400:800], "suffix": ""})
    )
    data = Infill(texts, benchmark=tmp_path / "bench.jsonl")
    recipe = replace(tiny_recipe(base, texts, tmp_path), data=data)
    left = [
        each.text
        for group, _ in recipe.data.open(recipe).training._corpus._groups.values()  # type: ignore[attr-defined]
        for each in group
    ]
    assert left
    assert text not in left


# ---- runs ----


def test_the_loss_falls_and_the_adapter_fills(base: Path, texts: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(base, texts, tmp_path / "run", steps=40)
    assert kind_of_run(recipe) is AdapterRun
    assert AdapterRun(recipe, Team(0, 1)).train()
    records = read_records(tmp_path / "run" / "log.jsonl")
    first, last = records[0], records[-1]
    assert last["valid_token"] < first["valid_token"] - 1
    assert last["valid_end"] < first["valid_end"] - 1
    assert last["valid_mask"] < first["valid_mask"]
    assert "behind a mask" in (tmp_path / "run" / "loss.svg").read_text()
    state = load_file(tmp_path / "run" / "state.safetensors")
    assert {name.partition(".")[0] for name in state} == {"masters", "average", "first", "second"}

    model = tmp_path / "run" / "model"
    written = load_file(model / "adapter.safetensors")
    assert {t.dtype for n, t in written.items() if n != "scale"} == {torch.bfloat16}
    adapter = read_adapter(model / "adapter.safetensors", CPU)
    assert len(adapter.low_rank) == 14
    assert (len(adapter.embeddings), len(adapter.head)) == (2, 1)
    engine = InfillEngine.load(str(tmp_path / "run"))
    request = InfillRequest(fill_in_the_middle("def f(flour):\n    total = ", "\n", 8))
    assert engine.fill(request).steps >= 1

    # What was made is gone on with.
    again = replace(
        recipe, model=replace(recipe.model, start_from=model), lora=replace(recipe.lora, rank=0)
    )
    more = AdapterRun(replace(again, run=replace(again.run, out=tmp_path / "more")), Team(0, 1))
    for name, tensor in more.model.adapter(more.trained).low_rank.items():
        assert torch.equal(tensor[0], adapter.low_rank[name][0])
    with pytest.raises(TrainingError, match="has rank 4"):
        AdapterRun(replace(again, lora=replace(again.lora, rank=8)), Team(0, 1))


def test_a_run_goes_on_with_the_same_batches(
    base: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    make = _Steps.__getitem__

    def noted(self: _Steps, index: int) -> packed.Packed:
        seen.append(index)
        return make(self, index)

    monkeypatch.setattr(_Steps, "__getitem__", noted)
    whole = AdapterRun(tiny_recipe(base, texts, tmp_path / "whole"), Team(0, 1))
    for _ in range(6):
        whole.step()
    part = AdapterRun(tiny_recipe(base, texts, tmp_path / "part"), Team(0, 1))
    for _ in range(3):
        part.step()
    part.save()
    part.step()  # is lost: it is killed here
    rest = AdapterRun(tiny_recipe(base, texts, tmp_path / "part"), Team(0, 1))
    assert rest.steps == 3
    for _ in range(3):
        rest.step()
    assert seen == [*range(6), *range(4), *range(3, 6)]
    for name, tensor in whole.trained.items():
        torch.testing.assert_close(rest.trained[name], tensor, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(rest.average[name], whole.average[name], atol=1e-5, rtol=1e-4)


def test_workers_make_the_same_batches(base: Path, texts: Path, tmp_path: Path) -> None:
    alone = AdapterRun(tiny_recipe(base, texts, tmp_path / "a"), Team(0, 1))
    ahead = AdapterRun(tiny_recipe(base, texts, tmp_path / "b", workers=1), Team(0, 1))
    for _ in range(2):
        assert alone.step()["loss"] == pytest.approx(ahead.step()["loss"], rel=1e-5)


def test_what_does_not_go_together_is_one_line(base: Path, texts: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(base, texts, tmp_path)
    with pytest.raises(TrainingError, match="for a model with an adapter"):
        kind_of_run(replace(recipe, model=replace(recipe.model, start_from=EMBEDDED)))
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(TrainingError, match="enough to train on"):
        AdapterRun(replace(recipe, data=Infill(empty)), Team(0, 1))
    with pytest.raises(ValueError, match="no kind of hole"):
        Infill(texts, shares={"cheese": 0.3})
