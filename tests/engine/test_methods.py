"""The ways to fill a hole that are compared: what each may know, and what none may touch."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine import canvas_run
from engine.diffusion.loop import Pass
from engine.engine import InfillEngine
from engine.evaluation import methods
from engine.evaluation.answers import (
    Answer,
    Denoised,
    FewPasses,
    FixedLength,
    TrueLength,
    true_length,
)
from engine.evaluation.methods import METHODS, Methods, common_length, journal_name
from engine.evaluation.stock import Clamp, Stock
from engine.profile import Sampling
from engine.text.canvas import Canvas
from engine.types import SamplingParams
from engine.weights.loader import load_model
from tests.engine.tiny import (
    SLACK,
    fake_engine,
    random_script,
    reference_model,
    save_tokenizer,
    tiny_config,
    tiny_engine,
    tiny_profile,
    tiny_tokenizer,
)

TINY = tiny_tokenizer()
PREFIX, SUFFIX = "def double(x):\n    ret", "\n\nprint(double(2))\n"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model as transformers writes it."""
    folder = tmp_path_factory.mktemp("tiny")
    reference_model(tiny_config(), seed=3).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def engine(checkpoint: Path) -> InfillEngine:
    model = load_model(checkpoint, torch.device("cpu"), torch.float32)
    return InfillEngine(model, TINY, tiny_profile(sampling=Sampling(max_steps=3)))


@pytest.fixture(scope="module")
def stock(checkpoint: Path, engine: InfillEngine) -> Stock:
    return Stock.load(checkpoint, engine, SamplingParams(), seed=5)


def options(model: Path) -> argparse.Namespace:
    given = dict.fromkeys(SamplingParams.__dataclass_fields__)
    return argparse.Namespace(model=str(model), seed=0, **given)


# ---- all of them ----


@pytest.mark.parametrize("method", METHODS)
def test_no_method_touches_what_stands_around_the_hole(
    method: str, checkpoint: Path, engine: InfillEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    canvases: list[tuple[list[int], list[int]]] = []  # clamped ids before and after
    denoise, generate = canvas_run.denoise, Stock.generate

    def watched_denoise(model: Any, process: Any, canvas: Canvas, *rest: Any) -> Iterator[Pass]:
        before = canvas.ids[~canvas.free].tolist()
        for one in denoise(model, process, canvas, *rest):
            canvases.append((before, canvas.ids[~canvas.free].tolist()))
            yield one

    def watched_generate(self: Stock, ids: list[int], canvas: Tensor, clamp: Clamp) -> Tensor:
        before = canvas[~clamp.free].tolist()
        best = generate(self, ids, canvas, clamp)
        canvases.append((before, best[~clamp.free].tolist()))
        return best

    monkeypatch.setattr(canvas_run, "denoise", watched_denoise)
    monkeypatch.setattr(Stock, "generate", watched_generate)
    answerer = Methods(engine, options(checkpoint)).chosen([method], 5, "constant")[method]
    answer = answerer(PREFIX, SUFFIX, "urn 2 * x")

    has_canvas = method not in (methods.CAUSAL, methods.CONSTANT, methods.REFERENCE)
    assert bool(canvases) == has_canvas
    suffix = TINY.encode(SUFFIX)
    for before, after in canvases:
        assert before == after
        assert before[: len(suffix)] == suffix[: len(before)]
    # What was typed of a word stays where it is, and is not said again.
    assert not answer.text.startswith("ret")


def test_methods_that_are_told_nothing_do_not_look_at_the_reference(
    checkpoint: Path, engine: InfillEngine
) -> None:
    told = {methods.TRUE, methods.REFERENCE}
    chosen = Methods(engine, options(checkpoint)).chosen(METHODS, 5, "c")
    for name, answerer in chosen.items():
        one, other = (answerer(PREFIX, SUFFIX, text).text for text in ("urn", "urn 2 * x + 17"))
        assert (one == other) == (name not in told), name


# ---- lengths and passes ----


def wants_slack(engine_size: int, word: int) -> Any:
    def script(call: int, ids: Tensor, slots: Tensor) -> Tensor:
        logits = torch.full((len(slots), engine_size), -20.0)
        logits[:, SLACK], logits[:, word] = 20.0, 10.0
        return logits

    return script


@pytest.mark.parametrize("length", [1, 4, 9])
def test_lengths_are_kept_and_slack_is_not_used(length: int) -> None:
    word = TINY.encode("print")[0]
    engine, _ = fake_engine(wants_slack(len(TINY), word))
    assert Denoised(engine, SamplingParams(), 0)("(", ")").text == ""
    assert FixedLength(engine, SamplingParams(), 0, length)("(", ")").text == "print" * length
    true = TrueLength(engine, SamplingParams(), 0)
    assert true("(", ")", "self" * length).text == "print" * length


def test_the_true_length_counts_the_token_that_goes_on_with_a_word() -> None:
    # "ret" is typed, and one token holds "return".
    assert true_length(TINY, "def f():\n    ret", "urn") == 1
    assert true_length(TINY, "(", "print)") == 2
    assert true_length(TINY, "(", "") == 1


def test_the_common_length_is_a_median_of_the_holes_themselves() -> None:
    holes = [("(", "print" * n) for n in (1, 2, 9)]
    assert common_length(tiny_engine(), holes) == 2
    with pytest.raises(ValueError, match="no holes"):
        common_length(tiny_engine(), [])
    assert journal_name(methods.FIXED, 3) != journal_name(methods.FIXED, 4)
    assert journal_name(methods.OURS, 3) == journal_name(methods.OURS, 4)


@pytest.mark.parametrize("passes", [1, 3])
def test_few_passes_are_no_more_and_one_canvas(passes: int) -> None:
    # Never slack, never settled: a served hole would slide on.
    engine, model = fake_engine(random_script(len(TINY), 1), sampling=Sampling(confidence=0.0))
    answer = FewPasses(engine, SamplingParams(), 0, passes)("(", ")")
    assert answer.passes == len(model.calls) == passes
    assert answer.denoise_ms is not None
    assert 0 <= answer.denoise_ms <= answer.ms


# ---- transformers' own ----


def test_a_clamp_leaves_one_token_and_bans_at_free_slots() -> None:
    canvas, free = torch.tensor([7, 8, 9]), torch.tensor([True, False, True])
    bias = torch.zeros(2, 12)
    bias[0, 3] = -torch.inf
    clamp = Clamp(canvas, free, bias)
    scores = torch.randn(1, 3, 12)
    found = clamp(torch.zeros(1, 1), scores)[0]
    assert found[1].softmax(-1).tolist() == [float(i == 8) for i in range(12)]
    assert found[0, 3] == -torch.inf
    assert torch.equal(found[2], scores[0, 2])
    assert clamp.passes == 1


def test_stock_fills_its_slots_and_is_the_same_again(stock: Stock) -> None:
    first: Answer = stock(PREFIX, SUFFIX)
    assert 1 <= first.passes <= 3
    torch.manual_seed(99)  # what others draw does not matter, and they draw as before
    drawn = torch.rand(1)
    torch.manual_seed(99)
    assert stock(PREFIX, SUFFIX).text == first.text
    assert torch.equal(torch.rand(1), drawn)
    assert len(TINY.encode(first.text)) <= stock.profile.hole * 4


def test_stock_lays_a_canvas_out_as_the_engine_does(stock: Stock, engine: InfillEngine) -> None:
    for suffix in (SUFFIX, "", "print(" * 50):
        ids, free = stock.canvas(suffix)
        assert int(free.sum()) == engine.profile.hole
        assert len(ids) == engine.profile.canvas
        head = ids[~free].tolist()
        encoded = TINY.encode(suffix)
        assert head[: len(encoded)] == encoded[: len(head)]
        assert set(head[len(encoded) :]) <= {TINY.id_of("<eos>")}
