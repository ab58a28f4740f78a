"""Builds a corpus of languages other than Python from the packages of ``languages.toml``.

    python -m engine.training.language_corpus --out DIR [--exclude-jsonl FILE ...]

It writes ``texts.jsonl`` and ``heldout.jsonl`` (one document a line: language, name, text; the
language as LSP names it) and ``report.json``. It calls ``npm``, ``pip``, ``unearth`` (for sdists)
and ``apt-get``, which needs deb and deb-src lines of Debian 12 and 13.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.progress import track

from engine.training import filters, languages
from engine.training.archives import (
    MANIFEST,
    LanguageManifest,
    LicenceBook,
    Member,
    Pinned,
    fetch,
    load_manifest,
    members,
)
from engine.training.corpus import HELD_OUT_COPY, NEAR_COPY
from engine.training.filters import Hashes
from engine.training.licences import header_forbids
from engine.training.packages import CorpusError

# Bytes of one package in one language, at most.
MAX_PACKAGE = 2_000_000
MAX_HELD_OUT = 300_000
KEPT_HEADERS = 0.1


@dataclass(frozen=True)
class Document:
    """A file that passed its own filters."""

    package: str
    path: str
    language: str
    text: str

    @property
    def name(self) -> str:
        """What it is called in the corpus."""
        return f"{self.package}/{self.path}"

    @property
    def size(self) -> int:
        """Its length in bytes."""
        return len(self.text.encode("utf-8"))


def sources(package: Pinned, downloads: Path, removed: Counter[str]) -> Iterator[Member]:
    """The wanted files of a package whose licence its own metadata says is permissive.

    Raises:
        CorpusError: the package is not under the licence that the manifest says.
    """
    archives = fetch(package, downloads)
    book = LicenceBook(package, archives)
    if book.licence != package.licence:
        raise CorpusError(f"{package.key}: licence {book.licence!r}, not {package.licence!r}")
    for member in members(archives[0], languages.wanted_path):
        if book.permits(member.path):
            yield member
        else:
            removed["licence"] += 1


def examine(package: Pinned, member: Member, benchmark: Hashes) -> Document | str:
    """The document in a file, or why it isn't one."""
    text = filters.decode(member.data)
    if text is None:
        return "not UTF-8"
    language = languages.refined(languages.language_of(member.path) or "?", text)
    if language is None or (package.languages and language not in package.languages):
        return "other language"
    document = Document(package.key, member.path, language, text)
    if filters.stable_fraction("kept " + document.name) > languages.kept_share(member.path):
        return "thinned out"
    reason = languages.rejection(language, text)
    if reason is not None:
        return reason
    if header_forbids(text):
        return "licence"
    if filters.has_benchmark_text(text, benchmark):
        return "benchmark text"
    if filters.stable_fraction("header " + document.name) >= KEPT_HEADERS:
        text = languages.strip_licence_header(language, text)
    return replace(document, text=text.lstrip("\n"))


def documents(
    package: Pinned, downloads: Path, benchmark: Hashes, removed: Counter[str], most: int
) -> list[Document]:
    """The documents of a package, in an order by chance that is always the same.

    What comes after ``most`` bytes of a language is not looked at.
    """
    found = list(sources(package, downloads, removed))
    found.sort(key=lambda m: filters.stable_fraction(f"order {package.key}/{m.path}"))
    sizes: Counter[str] = Counter()
    kept: list[Document] = []
    for member in found:
        language = languages.language_of(member.path) or "?"
        if sizes[language] > most:
            removed["over a limit"] += 1
            continue
        item = examine(package, member, benchmark)
        if isinstance(item, str):
            removed[item] += 1
        else:
            sizes[language] += item.size
            kept.append(item)
    return kept


class Copies:
    """Finds copies and near copies of what it has seen, and of held-out text."""

    def __init__(self, held_out: Hashes) -> None:
        self._held_out = held_out
        self._exact: set[bytes] = set()
        self._seen: set[int] = set()

    def reason(self, text: str) -> str | None:
        """Why a text is not taken; one that is taken counts as seen."""
        exact = filters.exact_hash(text)
        if exact in self._exact:
            return "copy"
        self._exact.add(exact)
        shingles = filters.shingles(text)
        if filters.share_in(shingles, self._held_out) > HELD_OUT_COPY:
            return "held-out text"
        values: list[int] = shingles.tolist()
        if sum(v in self._seen for v in values) > NEAR_COPY * len(values):
            return "near copy"
        self._seen.update(values)
        return None


def even_limit(sizes: list[int], target: int) -> int:
    """The limit for each of ``sizes`` that makes them sum to ``target``: the large ones give most.

    Their maximum if they don't reach the target.
    """
    left = target
    for at, size in enumerate(sorted(sizes)):
        share = left // (len(sizes) - at)
        if size > share:
            return share
        left -= size
    return max(sizes, default=0)


def within_limit(items: Iterable[Document], limit: int) -> list[Document]:
    """The first documents of each package and language, as many as fit into ``limit`` bytes."""
    sizes: Counter[tuple[str, str]] = Counter()
    kept: list[Document] = []
    for item in items:
        key = (item.package, item.language)
        if sizes[key] + item.size <= limit:
            sizes[key] += item.size
            kept.append(item)
    return kept


def balanced(items: list[Document], targets: dict[str, int]) -> list[Document]:
    """As many documents of each language as its target asks for, evenly over packages."""
    kept: list[Document] = []
    for language, target in targets.items():
        part = [d for d in items if d.language == language]
        sizes: Counter[str] = Counter()
        for item in part:
            sizes[item.package] += item.size
        limit = even_limit(list(sizes.values()), target)
        chosen = within_limit(part, min(limit, MAX_PACKAGE))
        # Files are whole, so that less fits into the limits than the limits allow.
        while sum(d.size for d in chosen) < target and limit < max(sizes.values(), default=0):
            limit = limit * 21 // 20 + 1
            chosen = within_limit(part, min(limit, MAX_PACKAGE))
        kept += chosen
    return kept


def build(manifest: LanguageManifest, out: Path, downloads: Path, exclude: list[Path]) -> None:
    """Write ``texts.jsonl``, ``heldout.jsonl`` and ``report.json`` into ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    benchmark = filters.benchmark_ngrams(exclude)
    removed: Counter[str] = Counter()
    held: list[Document] = []
    shingles = [np.zeros(0, np.uint64)]
    for package in track(manifest.held_out, "held out"):
        # All of the package counts as held out, more than is kept to be measured on.
        everything = sources(package, downloads, Counter())
        shingles += [filters.shingles(filters.decode(m.data) or "") for m in everything]
        found = documents(package, downloads, benchmark, Counter(), MAX_HELD_OUT)
        held += within_limit(found, MAX_HELD_OUT)
    copies = Copies(np.unique(np.concatenate(shingles)))
    trained: list[Document] = []
    for package in track(manifest.train, "packages"):
        for item in documents(package, downloads, benchmark, removed, MAX_PACKAGE):
            reason = copies.reason(item.text)
            if reason is None:
                trained.append(item)
            else:
                removed[reason] += 1
    before = len(trained)
    trained = balanced(trained, manifest.targets)
    removed["over a limit"] += before - len(trained)
    write(trained, out / "texts.jsonl")
    write(held, out / "heldout.jsonl")
    licences = {p.key: p.licence for p in manifest.train + manifest.held_out}
    report = {
        "train": summary(trained, licences),
        "held_out": summary(held, licences),
        "removed": dict(removed.most_common()),
        "benchmark_ngrams": len(benchmark),
    }
    text = json.dumps(report, indent=1) + "\n"
    _replace(out / "report.json", [text])
    for name in manifest.targets:
        sizes = [sum(d.size for d in part if d.language == name) for part in (trained, held)]
        print(f"{name:16} {sizes[0] / 1e6:6.2f} MB, held out {sizes[1] / 1e6:5.2f} MB")
    print(dict(removed.most_common()))


def summary(items: list[Document], licences: dict[str, str]) -> dict[str, object]:
    """Files and bytes by language, and by language and package, with the licence."""
    tables: dict[str, dict[str, Counter[str]]] = {}
    for item in items:
        table = tables.setdefault(item.language, {}).setdefault(item.package, Counter())
        table.update(files=1, bytes=item.size)
    return {
        language: {
            "files": sum(c["files"] for c in table.values()),
            "bytes": sum(c["bytes"] for c in table.values()),
            "packages": {n: {"licence": licences[n], **c} for n, c in sorted(table.items())},
        }
        for language, table in sorted(tables.items())
    }


def write(items: list[Document], path: Path) -> None:
    """Write documents as JSON lines; a reader never sees half a file."""
    rows = ({"language": d.language, "name": d.name, "text": d.text} for d in items)
    _replace(path, (json.dumps(row) + "\n" for row in rows))


def _replace(path: Path, lines: Iterable[str]) -> None:
    beside = path.with_name(path.name + ".part")
    with beside.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(lines)
    os.replace(beside, path)


def main(argv: list[str] | None = None) -> None:
    """Build the corpus."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the corpus")
    parser.add_argument("--downloads", type=Path, help="folder of archives; default OUT/downloads")
    parser.add_argument("--exclude-jsonl", type=Path, nargs="*", default=[])
    parser.add_argument("--manifest", type=Path, default=MANIFEST)
    options = parser.parse_args(argv)
    out: Path = options.out
    manifest = load_manifest(options.manifest)
    build(manifest, out, options.downloads or out / "downloads", options.exclude_jsonl)


if __name__ == "__main__":
    main()
