"""Builds the training corpus from the pinned packages of the manifest.

    python -m engine.training.corpus --out DIR [--exclude-jsonl FILE ...]
    python -m engine.training.bpe --data DIR --out engine/weights/nano
    python -m engine.training.corpus --out DIR --encode --tokenizer engine/weights/nano

The first step writes ``texts.jsonl`` (one document a line), ``heldout/`` and ``report.json``;
the last one turns documents into ``train.bin``, ``valid.bin`` and ``heldout.bin`` (uint16 token
ids) with the documents' starts in ``*.idx.npy`` (int64, one more entry than documents).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from rich.progress import track

from engine.training import bpe, filters
from engine.training.filters import Hashes
from engine.training.packages import (
    Manifest,
    SourceFile,
    check_licence,
    fetch_wheel,
    load_manifest,
    stdlib_sources,
    wheel_sources,
)

VALID_SHARE = 0.005
NEAR_COPY = 0.5
HELD_OUT_COPY = 0.2
KEPT_HEADERS = 0.1
KEPT_TESTS = 0.3


@dataclass(frozen=True)
class Candidate:
    """A file after its own filters: ``reason`` is set when it is already rejected."""

    package: str
    path: str
    text: str
    reason: str | None
    exact: bytes
    shingles: Hashes


def examine(source: SourceFile, benchmark: Hashes) -> Candidate:
    """Decode, filter and fingerprint one file; its licence header is usually taken off."""
    nothing = np.zeros(0, np.uint64)
    key = f"{source.package}/{source.path}"
    text = filters.decode(source.data)
    if text is None:
        return Candidate(source.package, source.path, "", "not UTF-8", b"", nothing)
    reason = filters.rejection(text)
    if reason is None and is_test(source.path) and filters.stable_fraction(key) > KEPT_TESTS:
        reason = "tests thinned out"
    if reason is None and filters.has_benchmark_text(text, benchmark):
        reason = "benchmark text"
    if reason is not None:
        return Candidate(source.package, source.path, text, reason, b"", nothing)
    if filters.stable_fraction("header " + key) >= KEPT_HEADERS:
        text = filters.strip_licence_header(text)
    exact, shingles = filters.exact_hash(text), filters.shingles(text)
    return Candidate(source.package, source.path, text, None, exact, shingles)


def is_test(path: str) -> bool:
    """Whether a path looks like a test module."""
    parts = path.split("/")
    return parts[-1].startswith("test_") or bool({"tests", "test", "testing"} & set(parts[:-1]))


def deduplicate(candidates: Iterable[Candidate], held_out: Hashes) -> Iterator[Candidate]:
    """Give every candidate on, with a reason added to copies, near copies and held-out text.

    ``held_out`` holds the sorted shingles of the held-out packages.
    """
    exact: set[bytes] = set()
    seen: set[int] = set()
    for item in candidates:
        reason = item.reason
        if reason is None and item.exact in exact:
            reason = "copy"
        if reason is None and filters.share_in(item.shingles, held_out) > HELD_OUT_COPY:
            reason = "held-out text"
        if reason is None and len(item.shingles):
            values = item.shingles.tolist()
            if sum(v in seen for v in values) > NEAR_COPY * len(values):
                reason = "near copy"
            else:
                seen.update(values)
        exact.add(item.exact)
        if reason != item.reason:
            item = Candidate(item.package, item.path, item.text, reason, b"", item.shingles)
        yield item


def all_sources(
    manifest: Manifest, downloads: Path, max_package_bytes: int
) -> Iterator[SourceFile]:
    """The sources of the standard library and of all training packages, in manifest order.

    Of a package with more than ``max_package_bytes`` of sources, an even share of files is taken.
    """
    yield from stdlib_sources()
    for package in manifest.train:
        wheel = fetch_wheel(package, downloads)
        check_licence(wheel)
        files = list(wheel_sources(package.name, wheel))
        share = max_package_bytes / max(1, sum(len(f.data) for f in files))
        yield from (f for f in files if filters.stable_fraction("cap " + f.path) < share)


def held_out_sources(manifest: Manifest, downloads: Path) -> list[SourceFile]:
    """The sources of the held-out packages; only their top-level modules named so."""
    found: list[SourceFile] = []
    for package in manifest.held_out:
        wheel = fetch_wheel(package, downloads)
        files = wheel_sources(package.name, wheel)
        found += [f for f in files if f.path.split("/")[0] in manifest.held_out_modules]
    return found


def build(
    manifest: Manifest, out: Path, downloads: Path, exclude: list[Path], max_package_mb: int
) -> None:
    """Write ``texts.jsonl``, ``heldout/`` and ``report.json`` into ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    benchmark = filters.benchmark_ngrams(exclude)
    held = held_out_sources(manifest, downloads)
    texts = [filters.decode(f.data) or "" for f in held]
    write_held_out(held, texts, out / "heldout")
    parts = [filters.shingles(t) for t in texts]
    held_shingles = np.unique(np.concatenate(parts)) if parts else np.zeros(0, np.uint64)
    removed: dict[str, Counter[str]] = {}
    kept: dict[str, Counter[str]] = {}
    sources = all_sources(manifest, downloads, max_package_mb * 1_000_000)
    with (
        multiprocessing.Pool(2) as pool,
        (out / "texts.jsonl").open("w", encoding="utf-8") as store,
    ):
        examined = pool.imap(partial(examine, benchmark=benchmark), sources, chunksize=32)
        for item in deduplicate(track(examined, "files", None), held_shingles):
            size = len(item.text.encode("utf-8"))
            table = kept.setdefault(item.package, Counter())
            if item.reason is not None:
                table = removed.setdefault(item.reason, Counter())
            else:
                name = f"{item.package}/{item.path}"
                store.write(json.dumps({"name": name, "text": item.text}) + "\n")
            table.update(files=1, bytes=size)
    size = sum(c["bytes"] for c in kept.values())
    report = {
        "python": platform.python_version(),
        "files": sum(c["files"] for c in kept.values()),
        "bytes": size,
        "benchmark_ngrams": len(benchmark),
        "removed": {reason: dict(c) for reason, c in sorted(removed.items())},
        "packages": {name: dict(c) for name, c in sorted(kept.items())},
        "held_out": {"files": len(held), "bytes": sum(len(f.data) for f in held)},
    }
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    print(f"{report['files']} files, {size / 1e6:.1f} MB; removed: {report['removed']}")


def write_held_out(sources: list[SourceFile], texts: list[str], folder: Path) -> None:
    """Write held-out sources as files under ``folder/<distribution>/<path>``."""
    for source, text in zip(sources, texts, strict=True):
        path = folder / source.package / source.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8", newline="\n")


def read_store(store: Path) -> Iterator[tuple[str, str]]:
    """The (name, text) pairs of a text store."""
    with store.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            yield row["name"], row["text"]


class TokenFile:
    """Appends documents to ``NAME.bin``; ``close`` writes ``NAME.idx.npy``.

    ``wide``: for vocabularies of more than 65,536 tokens, which take uint32.
    """

    def __init__(self, out: Path, name: str, wide: bool = False) -> None:
        self._type = np.uint32 if wide else np.uint16
        self._index = out / f"{name}.idx.npy"
        self._file = (out / f"{name}.bin").open("wb")
        self._starts = [0]

    def add(self, ids: list[int]) -> None:
        """Append one document's token ids."""
        np.array(ids, self._type).tofile(self._file)
        self._starts.append(self._starts[-1] + len(ids))

    def close(self) -> int:
        """Write the index; returns the number of tokens."""
        self._file.close()
        np.save(self._index, np.array(self._starts, np.int64))
        return self._starts[-1]


def encode(out: Path, tokenizer_dir: Path) -> dict[str, int]:
    """Tokenize the text store and the held-out files; returns tokens per split."""
    tokenizer = bpe.load(tokenizer_dir)
    files = {name: TokenFile(out, name) for name in ("train", "valid", "heldout")}
    store = iter(track(read_store(out / "texts.jsonl"), "documents", None))
    held = ((p.as_posix(), p.read_text("utf-8")) for p in sorted((out / "heldout").rglob("*.py")))
    while batch := list(islice(store, 256)):
        encoded = tokenizer.encode_batch([text for _, text in batch], add_special_tokens=False)
        for (name, _), item in zip(batch, encoded, strict=True):
            valid = filters.stable_fraction("valid " + name) < VALID_SHARE
            files["valid" if valid else "train"].add(item.ids)
    for _, text in held:
        if len(text) >= filters.MIN_BYTES:
            files["heldout"].add(tokenizer.encode(text, add_special_tokens=False).ids)
    return {name: file.close() for name, file in files.items()}


def main(argv: list[str] | None = None) -> None:
    """Build or encode a corpus."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the corpus")
    parser.add_argument("--downloads", type=Path, help="folder of wheels; default OUT/downloads")
    parser.add_argument("--exclude-jsonl", type=Path, nargs="*", default=[])
    parser.add_argument("--max-package-mb", type=int, default=12)
    parser.add_argument("--encode", action="store_true", help="tokenize an existing text store")
    parser.add_argument("--tokenizer", type=Path, default=Path("engine/weights/nano"))
    options = parser.parse_args(argv)
    out: Path = options.out
    if options.encode:
        print(encode(out, options.tokenizer))
        return
    downloads: Path = options.downloads or out / "downloads"
    build(load_manifest(), out, downloads, options.exclude_jsonl, options.max_package_mb)


if __name__ == "__main__":
    main()
