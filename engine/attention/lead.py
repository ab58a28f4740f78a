"""What a decoder that fills from the left reads between the prefix and the first slot of a hole.

It is the text behind the hole, and the row that the first slot is read from. There are two ways:

own      the text behind stands where it would stand if all slots were filled, and sees the prefix'
         last token, which is read once more and is what the first slot is read from
marked   a special token, the text behind, another special token, one position after the other: as
         models are trained that fill in the middle (prefix, suffix, middle: arXiv 2207.14255)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Marks = tuple[int, int]
"""The tokens in front of the text behind a hole and behind it."""


@dataclass(frozen=True, slots=True)
class Lead:
    """Rows in front of a hole's first slot, for a prefix of some length.

    ids, offsets: of each row, its token and its position, counted from the end of the prefix.
    first: the position of the first slot, counted so. unseen: how many of the prefix' last tokens
    are not seen, since they are read here. last_for_all: whether the last row is seen by all of
    them; each sees those before it and itself anyway.
    """

    ids: list[int]
    offsets: list[int]
    first: int
    unseen: int
    last_for_all: bool

    def __len__(self) -> int:
        return len(self.ids)

    def sees(self) -> NDArray[np.bool_]:
        """Bool [n, n]: which of the rows each one sees."""
        sees = np.tri(len(self), dtype=np.bool_)
        sees[:, -1] |= self.last_for_all
        return sees


def lead(after: Sequence[int], slots: int, last: int, marks: Marks | None) -> Lead:
    """after: the ids behind a hole of at most `slots` slots. last: the prefix' last token. marks:
    for the second way."""
    if marks is None:
        behind = range(slots, slots + len(after))
        return Lead([*after, last], [*behind, -1], 0, 1, last_for_all=True)
    ids = [marks[0], *after, marks[1]]
    return Lead(ids, list(range(len(ids))), len(ids), 0, last_for_all=False)
