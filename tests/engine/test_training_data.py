"""The batches drawn from a corpus of a few files, and the holes in them."""

from __future__ import annotations

import ast
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from training_runs import module

from engine.training import bpe, corpus, holes
from engine.training.dataset import CodeBatches, describe
from engine.training.syntax import SYNTAX_KINDS, SyntaxSpans
from engine.training.vocab import read_vocabulary
from engine.training.windows import Segment, build_window
from engine.weights.profile import EMBEDDED

COUNTED = 384  # canvases in the statistics below


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return bpe.load(EMBEDDED)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """An encoded corpus: long documents, short ones, and one without a final newline."""
    out = tmp_path_factory.mktemp("data")
    texts = [module(n, 3 + 9 * (n % 3)) for n in range(12)]
    texts += ["x = 1\n", "y = (2, 3)", texts[0].rstrip()]
    file = corpus.TokenFile(out, "train")
    for text in texts:
        file.add(tokenizer.encode(text, add_special_tokens=False).ids)
    file.close()
    return out


@pytest.fixture(scope="module")
def batches(data: Path, tokenizer: Tokenizer) -> CodeBatches:
    return CodeBatches(data, read_vocabulary(tokenizer), 7, windows=3, prefix=512, canvases=8)


def test_batch_shapes_and_ranges(batches: CodeBatches) -> None:
    batch = batches.batch(0)
    assert batch.prefix.shape == (3, 512)
    assert batch.canvas.shape == batch.free.shape == batch.weight.shape == (3, 8, 64)
    assert batch.start.shape == (3, 8)
    assert batch.prefix.dtype == batch.canvas.dtype == batch.start.dtype == np.int64
    assert batch.free.dtype == np.bool_
    assert batch.weight.dtype == np.float32
    assert (batch.prefix[:, 0] == bpe.BOS).all()
    assert batch.start.min() >= 1
    assert batch.start.max() <= 512
    assert (np.diff(batch.start, axis=1) >= 0).all()


def test_a_batch_depends_on_seed_and_step_alone(
    data: Path, tokenizer: Tokenizer, batches: CodeBatches
) -> None:
    again = CodeBatches(data, read_vocabulary(tokenizer), 7, windows=3, prefix=512, canvases=8)
    again.batch(1)
    for name in ("prefix", "canvas", "start", "free", "weight"):
        assert np.array_equal(getattr(batches.batch(5), name), getattr(again.batch(5), name))
    assert not np.array_equal(batches.batch(5).canvas, batches.batch(6).canvas)
    other = CodeBatches(data, read_vocabulary(tokenizer), 8, windows=3, prefix=512, canvases=8)
    assert not np.array_equal(batches.batch(5).canvas, other.batch(5).canvas)


def test_canvases_continue_their_document_exactly(batches: CodeBatches) -> None:
    """In bytes, since a canvas or a truncated hole may end inside a character."""
    raw = batches.vocabulary.bytes_of
    documents = [raw(d) for d in _documents(batches)]
    for window, canvases in (batches.draw(step, row) for step in range(16) for row in range(3)):
        for canvas in canvases:
            known = window.ids[: canvas.start]
            before = raw(known[int(np.flatnonzero(known == bpe.BOS)[-1]) + 1 :])
            if canvas.kind == "truncated":
                head = before + raw(canvas.ids[canvas.free])
                rest = raw(canvas.ids[~canvas.free])
                assert any(head in d and rest in d[d.index(head) :] for d in documents)
            elif bpe.EOS in canvas.ids:
                assert any(d.endswith(before + raw(canvas.ids)) for d in documents)
            else:
                assert any(before + raw(canvas.ids) in d for d in documents)


def _documents(batches: CodeBatches) -> list[np.ndarray]:
    starts, tokens = batches._starts, batches._tokens
    return [tokens[a:b].astype(np.int64) for a, b in pairwise(starts)]


def test_weights_and_clamps(batches: CodeBatches) -> None:
    for step in range(COUNTED // 24):
        for row in range(3):
            for canvas in batches.draw(step, row)[1]:
                slack = canvas.ids == bpe.SLACK
                assert not (slack & ~canvas.free).any()
                assert (canvas.ids[canvas.free] > bpe.BOS).all()
                assert (canvas.weight[~canvas.free] == 0).all()
                assert (canvas.weight[canvas.free & ~slack] == 1).all()
                first = slack & ~np.append(False, slack[:-1])
                assert (canvas.weight[first] == 1).all()
                assert np.allclose(canvas.weight[slack & ~first], holes.LATER_SLACK)
                if canvas.kind == "block":
                    assert canvas.free.all()
                else:
                    assert (~canvas.free[-holes.MIN_SUFFIX :]).all()


def test_all_kinds_occur_in_about_their_shares(data: Path, tokenizer: Tokenizer) -> None:
    batches = CodeBatches(data, read_vocabulary(tokenizer), 1, windows=1, prefix=512)
    kinds = Counter(c.kind for step in range(100) for c in batches.draw(step, 0)[1])
    assert set(kinds) == {*holes.SHARES, "empty", "truncated"}
    assert 0.15 < kinds["rest"] / 1600 < 0.3
    assert 0.15 < kinds["several"] / 1600 < 0.35
    assert 0.02 < kinds["truncated"] / 1600 < 0.09
    assert 0.005 < kinds["empty"] / 1600 < 0.05


def test_kinds_are_what_they_say(batches: CodeBatches) -> None:
    vocabulary = batches.vocabulary
    for step in range(24):
        window, canvases = batches.draw(step, 0)
        for canvas in canvases:
            middle = vocabulary.text(canvas.ids[canvas.free])
            before = vocabulary.text(window.ids[: canvas.start])
            after = vocabulary.text(canvas.ids[~canvas.free])
            if canvas.kind in ("rest", "lines", "full lines"):
                assert middle.strip()
                assert not after or after.startswith("\n")
                if canvas.kind == "rest":
                    assert "\n" not in middle
                if canvas.kind == "full lines":
                    assert before.endswith("\n") or window.ids[canvas.start - 1] == bpe.BOS
                if canvas.kind == "lines":
                    assert not before.rpartition("\n")[2].strip(" \t")
                    assert middle[0] not in " \t"
            elif canvas.kind == "bracket":
                assert before[-1] + after[0] in ("()", "[]", "{}")
                assert "\n" not in middle


def test_holes_of_the_syntax_are_whole_nodes(data: Path, tokenizer: Tokenizer) -> None:
    only = dict.fromkeys(holes.SHARES, 0.0) | dict.fromkeys(SYNTAX_KINDS, 1.0)
    vocabulary = read_vocabulary(tokenizer)
    batches = CodeBatches(data, vocabulary, 3, windows=1, prefix=512, shares=only)
    seen: Counter[str] = Counter()
    for step in range(30):
        window, canvases = batches.draw(step, 0)
        for canvas in canvases:
            seen[canvas.kind] += 1
            middle = vocabulary.text(canvas.ids[canvas.free]).removeprefix(" ")
            before = vocabulary.text(window.ids[: canvas.start])
            after = vocabulary.text(canvas.ids[~canvas.free])
            if canvas.kind == "arguments":
                assert before.rstrip().endswith("(")
                assert after.startswith(")")
                defines = "def " in before.splitlines()[-1]
                ast.parse(f"def f({middle}): ..." if defines else f"f({middle})")
            elif canvas.kind == "import":
                assert middle == "import math"
            elif canvas.kind == "expression":
                ast.parse(f"f({middle})")  # an argument may have its keyword with it
            elif canvas.kind == "docstring":
                begin = int(np.flatnonzero(window.ids[: canvas.start] == bpe.BOS)[-1])
                own = vocabulary.text(window.ids[begin : canvas.start]).rstrip()
                assert not own or own.endswith(('"""', ":"))
            elif canvas.kind == "body":
                assert before.rstrip().endswith(":")
                assert not after or after.startswith("\n")
    assert set(SYNTAX_KINDS) <= set(seen)
    assert seen["empty"] < 5


def test_nodes_with_an_error_make_no_hole(tokenizer: Tokenizer) -> None:
    vocabulary = read_vocabulary(tokenizer)
    text = "x = f(a)\ny = g(b, (\n"
    window = build_window(vocabulary, [Segment(vocabulary.encode(text), 0)], 4)
    spans = SyntaxSpans(vocabulary)
    starts, ends = spans.of(window)["arguments"]
    assert [text[a:b] for a, b in zip(starts, ends, strict=True)] == []
    whole = build_window(
        vocabulary, [Segment(vocabulary.encode(text), 0)], len(vocabulary.encode(text))
    )
    starts, ends = spans.of(whole)["arguments"]
    assert [text[a:b] for a, b in zip(starts, ends, strict=True)] == ["a"]


def test_text_behind_an_open_quote_is_no_code(tokenizer: Tokenizer) -> None:
    vocabulary = read_vocabulary(tokenizer)
    ids = vocabulary.encode('import this\n"""\nimport that\n')
    window = build_window(vocabulary, [Segment(ids, 1)], len(ids))
    spans = SyntaxSpans(vocabulary)
    starts, _ = spans.of(window)["import"]
    assert len(starts) == 1
    assert vocabulary.text(window.ids[spans.token_at(int(starts[0])) :]) == "import that\n"


@pytest.mark.parametrize(
    "shares", [{"poem": 1.0}, {"rest": -1.0}, dict.fromkeys(holes.SHARES, 0.0)]
)
def test_shares_that_make_no_sense_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="shares"):
        holes.check_shares(shares)


def test_describe_shows_holes_and_slack(batches: CodeBatches) -> None:
    text = describe(batches.batch(0), batches.vocabulary)
    assert text.count("--- window") == 24
    assert "«" in text
    assert "·" in text


def test_windows_know_lines_and_docstrings(tokenizer: Tokenizer) -> None:
    vocabulary = read_vocabulary(tokenizer)
    texts = ['x = 1\n\n    # no\n"""doc\nmore\n"""\ny = 2', "tail\n    z\n"]
    segments = [Segment(vocabulary.encode(t), 0) for t in texts]
    segments.append(Segment(vocabulary.encode('inside\n"""\nout\n'), 1))
    window = build_window(vocabulary, segments, 10)
    seen = [
        (vocabulary.text(window.ids[a:b]), bool(code))
        for a, b, code in zip(window.code_start, window.line_end, window.is_code, strict=True)
    ]
    assert seen == [
        ("x = 1", True),
        ("", False),
        ("# no", False),
        ('"""doc', False),
        ("more", False),
        ('"""', False),
        ("y = 2", True),
        ("tail", True),
        ("z", True),
        ("inside", False),
        ('"""', False),
        ("out", True),
    ]


def test_an_empty_split_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    corpus.TokenFile(tmp_path, "train").close()
    with pytest.raises(ValueError, match="no tokens"):
        CodeBatches(tmp_path, read_vocabulary(tokenizer), 0)
