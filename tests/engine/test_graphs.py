"""Passes of fixed shapes give what passes of any shape give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from engine.attention import graphs as module
from engine.attention.batch import Batch
from engine.attention.graphs import CANVASES, PREFIXES, ROWS, Graphs, shape_of
from engine.attention.kv import KVBuffer
from engine.attention.prefix_cache import PrefixCache, canvas_span
from engine.attention.span import Span, forward
from engine.attention.static_pass import ALIGNED, Seats, StaticPass, is_canvas
from engine.backbones.base import Backbone
from engine.backbones.config import parse_config
from engine.diffusion.denoiser import window_span
from engine.types import InfillRequest, fill_in_the_middle
from tests.cases import cases
from tests.engine.tiny import random_model, tiny_config, tiny_dense, tiny_engine

GEMMA = random_model(parse_config(tiny_config()), seed=1)
DENSE = tiny_dense(seed=1)
CLOSE = {"rtol": 1e-4, "atol": 3e-5}


@dataclass
class Played:
    """What stands in the place of a recorded graph where there is no card: the same pass."""

    work: StaticPass

    def replay(self) -> None:
        self.work.run()


@pytest.fixture(autouse=True, scope="module")
def _no_card() -> Any:
    if torch.cuda.is_available():
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Graphs, "_record", lambda self, work: Played(work))
        yield


def own(model: Backbone) -> KVBuffer:
    return KVBuffer(model.kv, model.dtype, model.device, growth=1)


def drawn(model: Backbone, sizes: Sequence[tuple[int, int, bool]], seed: int) -> list[Span]:
    """Canvases by the length of their prefix, their rows and whether something conditions them."""
    draw = torch.Generator().manual_seed(seed)
    spans: list[Span] = []
    for prefix, rows, soft in sizes:
        cache = PrefixCache(model)
        if prefix:
            cache.extend(torch.randint(0, 200, (prefix,), generator=draw).tolist())
        ids = torch.randint(0, 200, (rows,), generator=draw)
        given = torch.randn(rows, model.config.hidden_size, generator=draw) if soft else None
        spans.append(canvas_span(cache, prefix, own(model), ids, given))
    return spans


def close(got: list[Tensor], want: list[Tensor]) -> None:
    assert len(got) == len(want)
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, **CLOSE)


CANVAS = st.tuples(st.integers(0, 60), st.integers(1, 40), st.booleans())


@given(turns=st.lists(st.lists(CANVAS, min_size=1, max_size=9), min_size=1, max_size=3))
@cases(200)
def test_canvases_side_by_side(turns: list[list[tuple[int, int, bool]]]) -> None:
    graphs = Graphs(GEMMA)
    with torch.inference_mode():
        for seed, sizes in enumerate(turns):
            spans = drawn(GEMMA, sizes, seed)
            for _ in range(2):  # the second time their prefixes are there
                close(graphs(spans), forward(GEMMA, spans))


@given(sizes=st.lists(st.integers(1, 70), min_size=1, max_size=5))
@cases(100)
def test_windows_of_a_model_that_reads_all_anew(sizes: list[int]) -> None:
    graphs = Graphs(DENSE)
    spans = [window_span(torch.arange(size) % 200, own(DENSE)) for size in sizes]
    with torch.inference_mode():
        close(graphs(spans), forward(DENSE, spans))


def test_what_is_no_canvas_runs_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    plain: list[int] = []
    ran = module.forward

    def watched(model: Backbone, spans: Sequence[Span]) -> list[Tensor]:
        plain.extend(map(len, spans))
        return ran(model, spans)

    monkeypatch.setattr(module, "forward", watched)
    cache = PrefixCache(GEMMA)
    with torch.inference_mode():
        cache.extend(range(5, 25))
        canvas = canvas_span(cache, 20, own(GEMMA), torch.arange(9), None)
        encoded = PrefixCache(GEMMA).span(range(3, 10))
        got = Graphs(GEMMA)([encoded, canvas])
        close(got, forward(GEMMA, [encoded, canvas]))
    assert plain == [7]


def test_a_prefix_that_was_written_anew_is_read_anew() -> None:
    graphs = Graphs(GEMMA)
    with torch.inference_mode():
        cache = PrefixCache(GEMMA)
        for ids in (range(5, 25), range(30, 50)):
            cache.cut(0)
            cache.extend(ids)
            spans = [canvas_span(cache, 20, own(GEMMA), torch.arange(9), None)]
            close(graphs(spans), forward(GEMMA, spans))


def test_a_shorter_canvas_does_not_see_the_one_that_was_there() -> None:
    graphs = Graphs(GEMMA)
    with torch.inference_mode():
        (long,) = drawn(GEMMA, [(50, 32, True)], seed=3)
        graphs([long])
        spans = drawn(GEMMA, [(10, 20, True)], seed=4)
        close(graphs(spans), forward(GEMMA, spans))


def test_rows_stay_when_the_next_pass_has_run() -> None:
    graphs = Graphs(GEMMA)
    with torch.inference_mode():
        first, second = (drawn(GEMMA, [(9, 16, True)], seed=seed) for seed in (5, 6))
        (rows,) = graphs(first)
        kept = rows.clone()
        graphs(second)
    assert torch.equal(rows, kept)


def test_shapes_are_rounded_up() -> None:
    def shape(*sizes: tuple[int, int]) -> module.Shape | None:
        meta = torch.device("meta")
        spans = [
            Span("decoder", torch.empty(rows, device=meta), torch.empty(rows), own(DENSE), 0)
            for _, rows in sizes
        ]
        return shape_of([_seen(span, seen) for span, (seen, _) in zip(spans, sizes, strict=True)])

    assert shape((0, 1)) == (1, 0, 16)
    assert shape((1, 16)) == (1, 512, 16)
    assert shape((4096, 112)) == (1, 4096, 128)
    assert shape((4097, 256), (3, 2), (0, 9)) == (4, 6144, 256)
    assert shape((0, 1025)) is None
    assert shape((40_000, 8)) is None
    assert all(size % ALIGNED == 0 for size in (*ROWS, *PREFIXES))
    assert list(CANVASES) == sorted(CANVASES)


def _seen(span: Span, seen: int) -> Span:
    from dataclasses import replace

    return replace(span, seen=seen)


def test_what_cannot_be_recorded_runs_plainly(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(self: Graphs, work: StaticPass) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(Graphs, "_record", fails)
    graphs = Graphs(GEMMA)
    spans = drawn(GEMMA, [(9, 16, True)], seed=7)
    with torch.inference_mode():
        for _ in range(2):
            close(graphs(spans), forward(GEMMA, spans))
    assert [record.message for record in caplog.records] == [
        "passes run without CUDA graphs, which is slower: "
        "operation not permitted when stream is capturing"
    ]


def test_without_memory_for_graphs_they_may_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[StaticPass] = []

    def fails_once(self: Graphs, work: StaticPass) -> Played:
        tries.append(work)
        if len(tries) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return Played(work)

    monkeypatch.setattr(Graphs, "_record", fails_once)
    graphs = Graphs(GEMMA)
    spans = drawn(GEMMA, [(9, 16, True)], seed=8)
    with torch.inference_mode():
        for _ in range(3):
            close(graphs(spans), forward(GEMMA, spans))
    assert len(tries) == 2


def test_few_graphs_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 2)
    graphs = Graphs(GEMMA)
    with torch.inference_mode():
        for rows in (16, 32, 64, 16):
            spans = drawn(GEMMA, [(4, rows, True)], seed=rows)
            close(graphs(spans), forward(GEMMA, spans))
    assert [shape for shape, _ in graphs._recorded] == [(1, 512, 64), (1, 512, 16)]
    graphs.shed()
    assert not graphs._recorded
    assert not graphs._seats


def test_seats_are_kept_for_those_who_sit() -> None:
    seats = Seats(GEMMA, 2, 512, 256)
    with torch.inference_mode():
        one, two, three = drawn(GEMMA, [(9, 4, False)] * 3, seed=9)
        first = seats.take([one, two])
        assert sorted(first) == [0, 1]
        assert seats.take([two, one]) == first[::-1]
        (other,) = seats.take([three])
        assert seats.take([three]) == [other]


def test_a_pass_that_records_a_graph_does_not_count_for_the_time_of_passes() -> None:
    engine = tiny_engine()
    engine.batch.graphs = Graphs(engine.model)
    request = InfillRequest(fill_in_the_middle("x = ", "\n", max_tokens=4))
    counted: list[float] = []
    learn = engine.timed

    def timed(seconds: float) -> None:
        before, engine.pass_seconds = engine.pass_seconds, 0.0
        learn(seconds)
        counted.append(engine.pass_seconds)
        engine.pass_seconds = engine.pass_seconds or before

    engine.timed = timed
    engine.fill(request)
    recorded = engine.batch.recorded
    assert recorded
    assert counted.count(0.0) == recorded
    assert engine.pass_seconds > 0
    engine.fill(request)
    assert engine.batch.recorded == recorded, "the same shapes need no others"
    assert counted.count(0.0) == recorded


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA card here")
def test_on_a_card() -> None:
    model = random_model(parse_config(tiny_config()), seed=1).to("cuda", torch.bfloat16)
    batch = Batch(model)
    assert batch.graphs is not None
    with torch.inference_mode():
        cache = PrefixCache(model)
        cache.extend(range(5, 60))
        ids = torch.arange(40, device="cuda")
        span = canvas_span(cache, 55, own(model), ids, None)
        want = forward(model, [span])[0].float()
        for _ in range(3):
            (got,) = batch.graphs([span])
            assert (got.float() - want).norm() < 0.02 * want.norm()
    assert batch.graphs.usable
    assert is_canvas(span)
