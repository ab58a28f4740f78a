"""The training corpus and its tokenizer, on a corpus of a few files."""

from __future__ import annotations

import gzip
import json
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from training_runs import module

from engine.training import bpe, corpus, filters, packages
from engine.training.vocab import read_vocabulary
from engine.weights.profile import EMBEDDED


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
    return bpe.load(EMBEDDED)


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
    plain = Tokenizer.from_file(str(EMBEDDED / "tokenizer.json"))
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
    loaded = transformers.AutoTokenizer.from_pretrained(EMBEDDED)
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
    counts = corpus.encode(out, EMBEDDED)
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
