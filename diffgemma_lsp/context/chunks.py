"""A bounded pool of pieces of files, and which of them resemble the place where someone writes.

Knows nothing of editors or disks. Pieces come by source; the sources that were put in first leave
first. How alike two texts are is measured by the identifiers in them, which takes microseconds: a
rare one says more than a common one.
"""

from __future__ import annotations

import math
import re
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LINES = 64
"""The most lines of a chunk, and how many it has where nothing suggests an end."""

CHARS = 4_096
"""The most characters of a chunk; longer lines than code has are data."""

MOST_CHUNKS = 128
"""Chunks that are kept: about two megabytes with everything, at most."""

PER_SOURCE = 8
"""Chunks of one source that are kept."""

_ALIKE = 0.9
"""Chunks that share so much of their identifiers count as the same."""

_FEWEST_WORDS = 4
"""A chunk with fewer identifiers says nothing."""

_WORD = re.compile(r"[^\W\d]\w{2,}")
_TOP_LEVEL = re.compile(r"[^\s#)\]}]")


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Whole lines of one file. path: its name for people."""

    source: str
    path: str
    text: str
    words: frozenset[str]


def words_of(text: str) -> frozenset[str]:
    """The identifiers in a text, without the shortest."""
    return frozenset(_WORD.findall(text))


def chunked(source: str, path: str, lines: Sequence[str]) -> list[Chunk]:
    """The lines, each with its end, as chunks; one ends where a definition does, if one may."""
    chunks: list[Chunk] = []
    at = 0
    while at < len(lines):
        stop = _end(lines, at)
        text = "".join(lines[at:stop]).strip("\n") + "\n"
        words = words_of(text)
        if len(text) <= CHARS and len(words) >= _FEWEST_WORDS:
            chunks.append(Chunk(source, path, text, words))
        at = stop
    return chunks


def _end(lines: Sequence[str], start: int) -> int:
    """Where the chunk that begins at `start` ends: if it must be cut, before a top-level line."""
    stop = min(len(lines), start + LINES)
    chars = 0
    for at in range(start, stop):
        chars += len(lines[at])
        if chars > CHARS:
            stop = max(start + 1, at)
            break
    if stop < len(lines):
        for at in range(stop, start + LINES // 2, -1):
            if _TOP_LEVEL.match(lines[at]) and not lines[at - 1].strip():
                return at
    return stop


class ChunkPool:
    """The chunks that are kept. generation: goes up with every change."""

    def __init__(self) -> None:
        self.generation = 0
        self._sources: OrderedDict[str, list[Chunk]] = OrderedDict()
        self._holders: Counter[str] = Counter()  # in how many chunks a word is

    def __len__(self) -> int:
        return sum(map(len, self._sources.values()))

    @property
    def sources(self) -> frozenset[str]:
        """Where chunks are from."""
        return frozenset(self._sources)

    def put(self, source: str, chunks: Iterable[Chunk]) -> None:
        """Takes in the first PER_SOURCE chunks in place of all that there was of their source.

        Chunks of other sources that are nearly the same leave, and so do the oldest ones beyond
        MOST_CHUNKS.
        """
        self.drop(source)
        self.generation += 1
        new: list[Chunk] = []
        for chunk in chunks:
            if len(new) < PER_SOURCE and not any(_alike(chunk, other) for other in new):
                new.append(chunk)
        for other in list(self._sources):
            stay = [c for c in self._sources[other] if not any(_alike(c, chunk) for chunk in new)]
            if len(stay) < len(self._sources[other]):
                self._set(other, stay)
        if new:
            self._set(source, new)
        while len(self) > MOST_CHUNKS:
            self.drop(next(iter(self._sources)))

    def drop(self, source: str) -> None:
        """Forgets the chunks of a source."""
        if source in self._sources:
            self.generation += 1
            self._set(source, [])

    def clear(self) -> None:
        """Forgets all chunks."""
        for source in list(self._sources):
            self.drop(source)

    def ranked(self, words: frozenset[str], without: str) -> list[tuple[float, Chunk]]:
        """All chunks that share words, with how much of them they share (0 to 1), best first.

        without: a source that is left out.
        """
        count = len(self) + 1
        holders = self._holders
        weights = {w: math.log(count / holders[w]) for w in words if w in holders}
        whole = sum(weights.values())
        if whole <= 0:
            return []
        scores = [
            (sum(weights[word] for word in words & chunk.words) / whole, chunk)
            for source, chunks in self._sources.items()
            if source != without
            for chunk in chunks
        ]
        return sorted((pair for pair in scores if pair[0] > 0), key=lambda pair: -pair[0])

    def _set(self, source: str, chunks: list[Chunk]) -> None:
        """Gives a source its chunks; it keeps its place in the order."""
        for chunk in self._sources.get(source, ()):
            for word in chunk.words:
                self._holders[word] -= 1
                if not self._holders[word]:
                    del self._holders[word]
        for chunk in chunks:
            self._holders.update(chunk.words)
        if chunks:
            self._sources[source] = chunks
        else:
            self._sources.pop(source, None)


def _alike(a: Chunk, b: Chunk) -> bool:
    """Whether they share nearly all of their words (Jaccard)."""
    small, large = sorted((len(a.words), len(b.words)))
    if small < _ALIKE * large:
        return False
    shared = len(a.words & b.words)
    return shared >= _ALIKE * (small + large - shared)
