"""The training corpus, its tokenizer and the batches drawn from it, on a corpus of a few files."""

from __future__ import annotations

import ast
import gzip
import json
import zipfile
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from engine.training import bpe, corpus, filters, holes, packages
from engine.training.dataset import CodeBatches, describe
from engine.training.syntax import SYNTAX_KINDS, SyntaxSpans
from engine.training.vocab import read_vocabulary
from engine.training.windows import Segment, build_window

WEIGHTS = Path(__file__).parents[2] / "engine" / "weights" / "nano"
COUNTED = 384  # canvases in the statistics below


def module(number: int, functions: int = 12) -> str:
    """A Python file of its own, in shapes that holes care about."""
    lines = [f'"""Module {number}: recipes für {number} guests."""', "", "import math", ""]
    for index in range(functions):
        name = f"recipe_{number}_{index}"
        lines += [
            f"def {name}(flour, sugar=({index}, {number}), *, oven_{index}=None):",
            f'    """Bake cake {index} — {number} °C."""',
            f"    # Step {index}: stir {number + index} times",
            f"    total = flour * {index + 3} + math.sqrt(sugar[0] - {number})",
            f"    for layer_{index} in range(total % {number + 7}):",
            f"\tif oven_{index} is None:  ",
            f'            print("layer", layer_{index}, {{"n": [{index}, {number}]}})',
            "",
            f"    return {name}(total, sugar=sugar, oven_{index}=[a for a in (1, {index})])",
            "",
            "",
        ]
    return "\n".join(lines)


def make_wheel(folder: Path, name: str, files: dict[str, str], licence: str = "MIT") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
        metadata = f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\n"
        archive.writestr(
            f"{name}-1.0.dist-info/METADATA", f"{metadata}License-Expression: {licence}\n"
        )


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return bpe.load(WEIGHTS)


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


# The tokenizer --------------------------------------------------------------------------------


def test_tokenizer_has_its_ids(tokenizer: Tokenizer) -> None:
    assert tokenizer.get_vocab_size() == bpe.VOCAB_SIZE
    assert [tokenizer.id_to_token(i) for i in range(4)] == list(bpe.SPECIAL_TOKENS)
    vocabulary = read_vocabulary(tokenizer)
    assert {bytes([b]) for b in range(256)} <= set(vocabulary.raw)
    assert len(set(vocabulary.raw)) == bpe.VOCAB_SIZE - 3  # the four special ones share b""


@pytest.mark.parametrize(
    "text",
    [
        module(3),
        "a\r\nb\rc\n\n  \n\t x",
        " leading",
        "日本語 'ü' \x0b\x1f\x00 \u2028 🙂",
        "<slack><bos> <pad>",
        "   ",
        "",
    ],
)
def test_text_comes_back_bit_for_bit(tokenizer: Tokenizer, text: str) -> None:
    vocabulary = read_vocabulary(tokenizer)
    ids = vocabulary.encode(text)
    assert vocabulary.text(ids) == text
    assert tokenizer.decode(ids.tolist(), skip_special_tokens=False) == text
    assert not set(ids.tolist()) & {0, 1, 2, 3}


def test_special_text_is_parsed_only_when_asked_for() -> None:
    plain = Tokenizer.from_file(str(WEIGHTS / "tokenizer.json"))
    assert plain.encode("<slack>").ids == [bpe.SLACK]
    plain.encode_special_tokens = True
    assert bpe.SLACK not in plain.encode("<slack>").ids


def test_newlines_and_indentation_are_single_tokens(tokenizer: Tokenizer) -> None:
    vocabulary = read_vocabulary(tokenizer)
    for number in tokenizer.encode("if x:\n\n\n    y\r\n\tz\n" + module(1)).ids:
        raw = vocabulary.raw[number]
        assert raw in (b"\n", b"\r\n", b"\r") or not set(raw) & set(b"\r\n")
    for width in (4, 8, 12, 16):
        assert len(tokenizer.encode(" " * width).ids) == 1
        assert len(tokenizer.encode("\n" + " " * width + "x").ids) == 3


def test_a_cut_at_a_line_boundary_changes_no_token(tokenizer: Tokenizer) -> None:
    text = module(2)
    whole = tokenizer.encode(text).ids
    for place, char in enumerate(text):
        if char == "\n":
            # Blanks that end a line are one token only when the newline is seen behind them.
            cuts = (place + 1,) if text[:place].endswith("  ") else (place, place + 1)
            for cut in cuts:
                assert tokenizer.encode(text[:cut]).ids + tokenizer.encode(text[cut:]).ids == whole


@pytest.mark.parametrize(
    "text", ["total = |flour", "call(a, |b)", "x.|y", "f(|a)", "return| x", '{"a": |1}', "f(a|)"]
)
def test_a_cut_where_people_type_changes_no_token(tokenizer: Tokenizer, text: str) -> None:
    left, right = text.split("|")
    parts = tokenizer.encode(left).ids + tokenizer.encode(right).ids
    assert parts == tokenizer.encode(left + right).ids


def test_transformers_loads_the_tokenizer() -> None:
    transformers = pytest.importorskip("transformers")
    loaded = transformers.AutoTokenizer.from_pretrained(WEIGHTS)
    assert (loaded.pad_token_id, loaded.eos_token_id, loaded.bos_token_id) == (0, 1, 2)
    assert loaded.convert_tokens_to_ids("<slack>") == 3
    assert loaded.decode(loaded.encode(module(4))) == module(4)


def test_training_a_tokenizer_is_reproducible(tmp_path: Path) -> None:
    texts = [module(n) for n in range(3)]
    first, second = (bpe.train_tokenizer(iter(texts), vocab_size=400) for _ in range(2))
    assert first.to_str() == second.to_str()
    assert first.get_vocab_size() == 400
    bpe.save(first, tmp_path)
    assert bpe.load(tmp_path).encode(texts[0]).ids == first.encode(texts[0]).ids


# The corpus -----------------------------------------------------------------------------------


def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str]) -> Path:
    """Build a corpus of one package and a held-out one, with a benchmark of one problem."""
    downloads, out = tmp_path / "downloads", tmp_path / "out"
    make_wheel(downloads, "cakes", files)
    make_wheel(downloads, "secret", {"secret/core.py": module(90)})
    problem = {
        "prompt": "def frost(cake, colour, thickness):\n    layers = sorted(cake.layers)\n",
        "canonical_solution": "    for layer in reversed(layers):\n        layer.paint(colour)\n",
        "suffix": "    return thickness * len(layers)\n",
    }
    benchmark = tmp_path / "problems.jsonl.gz"
    benchmark.write_bytes(gzip.compress(json.dumps(problem).encode()))
    monkeypatch.setattr(corpus, "stdlib_sources", lambda: iter(()))
    manifest = packages.Manifest(
        train=(packages.Package("cakes", "1.0", "MIT"),),
        held_out=(packages.Package("secret", "1.0", "MIT"),),
        held_out_modules=frozenset({"secret"}),
    )
    corpus.build(manifest, out, downloads, [benchmark], 12)
    return out


def test_corpus_keeps_what_it_should(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = "# Copyright the bakers\n# Licensed under the MIT licence\n\n"
    leaked = (
        "\nlayers = sorted(cake.layers)\nfor layer in reversed(layers):\n    layer.paint(colour)\n"
    )
    half = module(6).split("\n")
    out = build(
        tmp_path,
        monkeypatch,
        {
            "cakes/plain.py": header + module(5),
            "cakes/spaced.py": header + module(5).replace("\n\n", "\n\n\n"),
            "cakes/six.py": module(6),
            "cakes/seven.py": "\n".join(half[: len(half) * 3 // 4]) + module(7, 2),
            "cakes/other/copy_of_secret.py": module(90) + "\nEXTRA = True\n",
            "cakes/_vendor/secret/core.py": module(90),
            "cakes/leak.py": module(8) + leaked,
            "cakes/table.py": "TABLE = [\n" + "    0.123456, 789.01234,\n" * 40 + "]\n",
            "cakes/wide.py": "x = '" + "a" * 5000 + "'\n",
            "cakes/made.py": "# Generated by a machine\n" + module(9),
            "cakes/tiny.py": "x = 1\n",
            "cakes/api_pb2.py": module(10),
        },
    )
    names = [name for name, _ in corpus.read_store(out / "texts.jsonl")]
    assert names == ["cakes/cakes/plain.py", "cakes/cakes/seven.py"]
    report = json.loads((out / "report.json").read_text())
    assert {reason: count["files"] for reason, count in report["removed"].items()} == {
        "benchmark text": 1,
        "copy": 1,
        "generated": 1,
        "held-out text": 1,
        "minified": 1,
        "near copy": 1,
        "numeric table": 1,
        "too short": 1,
    }
    assert report["files"] == 2
    assert (out / "heldout" / "secret" / "secret" / "core.py").read_text("utf-8") == module(90)


def test_corpus_is_encoded_with_its_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: Tokenizer
) -> None:
    out = build(tmp_path, monkeypatch, {f"cakes/m{n}.py": module(n) for n in range(4)})
    counts = corpus.encode(out, WEIGHTS)
    stored = [text for _, text in corpus.read_store(out / "texts.jsonl")]
    texts: list[str] = []
    for split in ("train", "valid"):
        tokens = np.fromfile(out / f"{split}.bin", np.uint16)
        starts = np.load(out / f"{split}.idx.npy")
        assert starts.dtype == np.int64
        assert starts[-1] == len(tokens) == counts[split]
        for low, high in pairwise(starts):
            texts.append(tokenizer.decode(tokens[low:high].tolist()))
    assert sorted(texts) == sorted(stored)
    assert counts["heldout"] == len(tokenizer.encode(module(90)).ids)


def test_manifest_is_permissive_and_apart() -> None:
    manifest = packages.load_manifest()
    assert len(manifest.train) > 50
    assert all(packages.is_permissive(p.licence) for p in manifest.train)
    names = {p.name for p in manifest.held_out}
    assert {"rich", "httpx", "attrs", "click", "jinja2", "requests", "flask"} <= names
    assert {"attr", "attrs", "werkzeug", "starlette"} <= manifest.held_out_modules


@pytest.mark.parametrize(
    ("licence", "fine"),
    [
        ("MIT", True),
        ("Apache-2.0 OR GPL-2.0-or-later", True),
        ("BSD-3-Clause AND LGPL-2.1", False),
        ("MPL-2.0", False),
        ("GNU General Public License v3", False),
        ("", False),
        ("Proprietary", False),
    ],
)
def test_licences(tmp_path: Path, licence: str, fine: bool) -> None:
    assert packages.is_permissive(licence) is fine
    make_wheel(tmp_path, "thing", {}, licence)
    if fine:
        assert packages.check_licence(tmp_path / "thing-1.0-py3-none-any.whl") == licence
    else:
        with pytest.raises(packages.CorpusError):
            packages.check_licence(tmp_path / "thing-1.0-py3-none-any.whl")


def test_licence_header_is_stripped_and_other_comments_stay() -> None:
    body = "import os\n# Copyright is not what this is about\n"
    assert (
        filters.strip_licence_header("#!/bin/x\n# Copyright me\n\n" + body) == "#!/bin/x\n" + body
    )
    assert filters.strip_licence_header("# About cakes\n" + body) == "# About cakes\n" + body


def test_line_ends_become_newlines() -> None:
    assert filters.decode(b"\xef\xbb\xbfa\r\nb\rc") == "a\nb\nc"
    assert filters.decode(b"\xff\xfe") is None


# Batches --------------------------------------------------------------------------------------


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
