"""Which chunks of the pool go with a request. A ranking holds still while the cursor does, more or
less: what stands in front of the text should change seldom, or the engine reads it anew each time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from diffgemma_lsp.context.chunks import Chunk, ChunkPool, words_of
from diffgemma_lsp.context.window import prefix_of, suffix_of
from diffgemma_lsp.text.snapshot import DocumentSnapshot
from diffgemma_lsp.text.text import Point
from engine.types import Snippet

# The most chunks of a request, and their characters: the engine takes what its model has room for.
MOST = 16
CHARS = 32_768
# Chunks that share less of what is around the cursor are not worth their tokens.
LEAST_SHARE = 0.05
# Lines before and behind the cursor that say what it is about.
BEFORE, BEHIND = 48, 16
# A ranking stays while the cursor stays within so many lines.
STAYS = 16
# Documents whose last ranking is kept.
KEPT = 8


@dataclass(frozen=True, slots=True)
class _Ranking:
    """What goes with a line, the best first, as long as the pool is in this generation."""

    generation: int
    line: int
    scores: dict[Chunk, float]


class Rankings:
    """The last ranking for each of the documents that were last worked on."""

    def __init__(self, pool: ChunkPool) -> None:
        self._pool = pool
        self._last: OrderedDict[str, _Ranking] = OrderedDict()

    def of(self, snapshot: DocumentSnapshot, source: str) -> tuple[Snippet, ...]:
        """The chunks that go with the cursor, the best first.

        source: the document's own, of which nothing is taken. Nor is what the model sees anyway.
        """
        ranking = self._last.get(snapshot.uri)
        if ranking is None or self._has_aged(ranking, snapshot):
            ranking = self._rank(snapshot, source, ranking.scores if ranking else {})
        self._last[snapshot.uri] = ranking
        self._last.move_to_end(snapshot.uri)
        while len(self._last) > KEPT:
            self._last.popitem(last=False)
        return _fitting(ranking.scores, visible=_lines(prefix_of(snapshot), suffix_of(snapshot)))

    def drop(self, uri: str) -> None:
        """Forgets a document."""
        self._last.pop(uri, None)

    def clear(self) -> None:
        """Forgets all documents."""
        self._last.clear()

    def _has_aged(self, ranking: _Ranking, snapshot: DocumentSnapshot) -> bool:
        moved = abs(ranking.line - snapshot.start.line)
        return ranking.generation != self._pool.generation or moved >= STAYS

    def _rank(
        self, snapshot: DocumentSnapshot, source: str, before: dict[Chunk, float]
    ) -> _Ranking:
        words = words_of(_surroundings(snapshot))
        # More than are sent, since some may turn out to be in sight.
        ranked = self._pool.ranked(words, without=source)[: 2 * MOST]
        scores = [
            (_settled(score, before.get(chunk)), chunk)
            for score, chunk in ranked
            if score >= LEAST_SHARE
        ]
        scores.sort(key=lambda pair: -pair[0])
        best = {chunk: score for score, chunk in scores}
        return _Ranking(self._pool.generation, snapshot.start.line, best)


def _settled(score: float, before: float | None) -> float:
    """A score that has neither doubled nor halved stays as it was, so that the order does."""
    if before is None or not before / 2 < score < before * 2:
        return score
    return before


def _surroundings(snapshot: DocumentSnapshot) -> str:
    """The lines around the cursor."""
    text, last = snapshot.text, snapshot.end.line + BEHIND
    end = Point(last, 0) if last < text.line_count else text.end
    return text.between(Point(max(0, snapshot.start.line - BEFORE), 0), end)


def _fitting(chunks: Iterable[Chunk], visible: frozenset[str]) -> tuple[Snippet, ...]:
    """The first chunks that fit into a request, without those of which half is in sight."""
    taken: list[Snippet] = []
    room = CHARS
    for chunk in chunks:
        own = _lines(chunk.text)
        if len(chunk.text) <= room and 2 * len(own & visible) < len(own):
            taken.append(Snippet(chunk.path, chunk.text))
            room -= len(chunk.text)
        if len(taken) == MOST:
            break
    return tuple(taken)


def _lines(*texts: str) -> frozenset[str]:
    """The lines that are not blank, without their indentation."""
    stripped = (line.strip() for text in texts for line in text.split("\n"))
    return frozenset(line for line in stripped if line)
