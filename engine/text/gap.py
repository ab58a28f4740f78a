"""A hole while it is being filled."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.types import Hole


@dataclass(slots=True)
class Gap:
    """A hole while it is being filled. Token counts include those of the typed bytes.

    slots: how many it gets on the next canvas. draft: ids to start from, slack behind them
    included. done: ids that are settled, with their certainty, as far as a pass gave one.
    ended: the certainty of the slack behind them. capped: whether it ended because it reached its
    cap. tail: line ends that its draft ends in, which stay; to the model they stand behind it.
    body: whether it is all of a block's body. closes: whether it is filled with the line end that
    stands behind it in the document.
    """

    hole: Hole
    typed: bytes
    cap: int
    draft: list[int] | None
    strength: float
    slots: int
    done: list[int] = field(default_factory=list[int])
    certainty: list[float] = field(default_factory=list[float])
    ended: float | None = None
    capped: bool = False
    tail: str = ""
    body: bool = False
    closes: bool = False

    @property
    def certainties(self) -> list[float]:
        """What its confidence is the mean of: its tokens, or, where it is empty, its end."""
        return self.certainty if self.done or self.ended is None else [self.ended]

    def settle(self, ids: list[int], certainty: list[float]) -> None:
        """Takes over `ids`, whose certainty stands at the beginning of `certainty`."""
        self.done += ids
        self.certainty += certainty[: len(ids)]

    def replace(self, ids: list[int]) -> None:
        """Holds another answer, which ends by itself; of its tokens no pass gave a certainty."""
        self.done, self.certainty, self.capped = ids, [], False

    def rest(self, width: int) -> list[int]:
        """What of the draft lies behind its first `width` slots and is still to be placed."""
        return [] if self.draft is None or self.strength == 1 else self.draft[width:]
