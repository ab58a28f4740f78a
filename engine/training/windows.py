"""A stretch of documents as the model reads it, with its lines and its word boundaries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.training.vocab import BoolArray, IntArray, Vocabulary


@dataclass(frozen=True)
class Window:
    """``<bos>`` and document tokens, N and some more, with everything that holes need to know.

    Positions index ``ids`` [T]. ``begins`` [S] are the positions of ``<bos>``, ``open_quotes``
    [S] whether a quote is open behind each (0 or 1). ``stop`` [T] is, for each position, the end
    (exclusive) of the known tokens of its document. ``edge`` [T] is True where a new pre-token
    may begin. Line l covers positions ``line_start[l]`` to ``line_end[l]``, which is where its
    newline stands (or the document's end); its code begins at ``code_start[l]``. ``is_code`` [L]
    is True unless the line is blank, a comment or inside a triple-quoted string.
    """

    ids: IntArray
    size: int
    begins: IntArray
    open_quotes: IntArray
    stop: IntArray
    edge: BoolArray
    line_start: IntArray
    code_start: IntArray
    line_end: IntArray
    is_code: BoolArray

    def line_at(self, position: int) -> int:
        """The line that holds a position."""
        return int(np.searchsorted(self.line_start, position, "right")) - 1


@dataclass(frozen=True)
class Segment:
    """Part of a document: tokens [T] from a line start, and the quotes open before it (0 or 1)."""

    ids: IntArray
    open_quote: int


def build_window(vocabulary: Vocabulary, segments: list[Segment], size: int) -> Window:
    """Join segments, each behind a ``<bos>``; together they must have ``size`` tokens or more."""
    bos = np.array([vocabulary.bos], np.int64)
    ids = np.concatenate([part for s in segments for part in (bos, s.ids)])
    lengths = np.array([len(s.ids) + 1 for s in segments], np.int64)
    ends = np.cumsum(lengths)
    stop = np.repeat(ends, lengths)
    is_bos = np.zeros(len(ids), bool)
    is_bos[ends - lengths] = True

    last, first = vocabulary.last[ids[:-1]], vocabulary.first[ids[1:]]
    edge = np.ones(len(ids), bool)
    edge[1:] = (last != first) | (first == 0)

    newline = vocabulary.newline[ids]
    begins = np.zeros(len(ids) + 1, bool)
    begins[1:] = is_bos | newline  # a line begins behind a newline and behind <bos>
    begins[ends[ends < len(ids)]] = False  # but not at a <bos>
    line_start = np.flatnonzero(begins[:-1])
    following = np.append(line_start[1:], len(ids))
    line_end = np.minimum(following, stop[line_start])
    line_end -= newline[line_end - 1] & (line_end > line_start)
    indented = vocabulary.blank[ids[line_start]] & (line_end > line_start)
    code_start = line_start + indented

    quotes = np.cumsum(vocabulary.triples[ids])
    opened = np.repeat(np.array([s.open_quote for s in segments]) - quotes[ends - lengths], lengths)
    inside = (np.append(0, quotes)[line_start] + opened[line_start]) % 2 == 1
    at = np.minimum(code_start, len(ids) - 1)
    docstring = inside | (vocabulary.triples[ids[at]] > 0)
    is_code = (code_start < line_end) & ~vocabulary.comment[ids[at]] & ~docstring
    begins_at = ends - lengths
    open_quotes = np.array([s.open_quote for s in segments], np.int64)
    return Window(
        ids, size, begins_at, open_quotes, stop, edge, line_start, code_start, line_end, is_code
    )
