"""The training corpus in languages other than Python: packages, limits, a small build."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from test_training_languages import COPYRIGHT, code

from engine.training import archives, filters, language_corpus, languages
from engine.training.archives import LicenceBook, Pinned, folder_of
from engine.training.packages import CorpusError


def tar(path: Path, files: dict[str, str], top: str = "package/") -> None:
    """Write a compressed tar as a registry would have it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            data = text.encode()
            info = tarfile.TarInfo(top + name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def test_limits_fall_on_the_large() -> None:
    assert language_corpus.even_limit([10, 100, 1000], 210) == 100
    assert language_corpus.even_limit([10, 100, 1000], 5000) == 1000
    assert language_corpus.even_limit([10, 100, 100], 110) == 50
    assert language_corpus.even_limit([], 10) == 0


def test_manifest_is_permissive_and_apart() -> None:
    manifest = archives.load_manifest()
    assert set(manifest.targets) == set(languages.LANGUAGES)
    everything = manifest.train + manifest.held_out
    for package in everything:
        assert package.registry in ("npm", "pypi", "pypi-source", "debian", "debian-source")
        assert set(package.languages) <= set(languages.LANGUAGES), package
    assert len({p.key for p in everything}) == len(everything)


def test_manifest_refuses_what_is_held_out_too(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    entry = '.npm]\na = { version = "1", licence = "MIT" }\n'
    path.write_text(f"[train{entry}[held_out{entry}[targets]\n")
    with pytest.raises(CorpusError, match="held out"):
        archives.load_manifest(path)
    path.write_text(f"[train{entry.replace('MIT', 'GPL-3.0')}[held_out]\n[targets]\n")
    with pytest.raises(CorpusError, match="permissive"):
        archives.load_manifest(path)


def test_source_package_leaves_out_files_under_other_licences(tmp_path: Path) -> None:
    package = Pinned("debian-source", "thing", "1.0-1", "Expat")
    folder = folder_of(package, tmp_path)
    tar(folder / "thing_1.0.orig.tar.gz", {"src/ab.c": code("a"), "src/b.c": code("b")}, "t-1/")
    tar(folder / "thing_1.0-1.debian.tar.gz", {"debian/copyright": COPYRIGHT}, "")
    removed: Counter[str] = Counter()
    found = [m.path for m in language_corpus.sources(package, tmp_path, removed)]
    assert found == ["src/b.c"]
    assert removed == {"licence": 1}


def test_wheel_and_sdist_licences(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a-1-py3-none-any.whl", "w") as archive:
        archive.writestr("a-1.dist-info/METADATA", "Name: a\nLicense-Expression: MIT\n\n")
    book = LicenceBook(Pinned("pypi", "a", "1", "MIT"), [tmp_path / "a-1-py3-none-any.whl"])
    assert book.licence == "MIT"
    assert book.permits("a/x.toml")
    tar(tmp_path / "a-1.tar.gz", {"PKG-INFO": "Name: a\nLicense-Expression: MPL-2.0\n\n"}, "a-1/")
    book = LicenceBook(Pinned("pypi-source", "a", "1", "MIT"), [tmp_path / "a-1.tar.gz"])
    assert not book.permits("x.toml")


def test_build(tmp_path: Path) -> None:
    shown = code("shown")
    packed = {
        "train-a": {"a.js": code("a"), "copy.js": code("held"), "node_modules/x.js": code("x")},
        "train-b": {"same.js": code("a"), "b.js": code("b"), "test/he.js": shown},
        "held": {"index.js": code("held")},
    }
    for name, files in packed.items():
        about = json.dumps({"name": name, "license": "MIT"})
        folder = folder_of(Pinned("npm", name, "1", "MIT"), tmp_path / "downloads")
        tar(folder / f"{name}-1.tgz", {"package.json": about, **files})
    manifest = archives.LanguageManifest(
        train=(Pinned("npm", "train-a", "1", "MIT"), Pinned("npm", "train-b", "1", "MIT")),
        held_out=(Pinned("npm", "held", "1", "MIT"),),
        targets={"javascript": 1_000_000},
    )
    benchmark = tmp_path / "bench.jsonl"
    benchmark.write_text(json.dumps({"prompt": shown, "canonical_solution": "", "suffix": ""}))
    out = tmp_path / "out"
    language_corpus.build(manifest, out, tmp_path / "downloads", [benchmark])
    rows = [json.loads(line) for line in (out / "texts.jsonl").read_text("utf-8").splitlines()]
    assert [(r["language"], r["name"]) for r in rows] == [
        ("javascript", "npm:train-a/a.js"),
        ("javascript", "npm:train-b/b.js"),
    ]
    held = [json.loads(line) for line in (out / "heldout.jsonl").read_text("utf-8").splitlines()]
    assert [r["text"] for r in held] == [code("held")]
    report = json.loads((out / "report.json").read_text("utf-8"))
    assert report["train"]["javascript"]["packages"]["npm:train-a"]["licence"] == "MIT"
    assert report["removed"]["held-out text"] == 1
    assert filters.benchmark_ngrams([benchmark]).size == report["benchmark_ngrams"]


def test_a_package_under_another_licence_than_the_manifest_says_is_an_error(
    tmp_path: Path,
) -> None:
    package = Pinned("npm", "a", "1", "MIT")
    about = json.dumps({"license": "GPL-3.0"})
    tar(folder_of(package, tmp_path) / "a-1.tgz", {"package.json": about})
    with pytest.raises(CorpusError, match="GPL"):
        list(language_corpus.sources(package, tmp_path, Counter()))
