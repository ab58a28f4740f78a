"""Flights: requests on their way to the engine, and what they come back with."""

from __future__ import annotations

import asyncio
import time
from typing import Literal, NamedTuple

from engine.types import Frame, Infill, Other


class Answer(NamedTuple):
    """What a run came to: what each hole holds, and how sure the model is of it, from 0 to 1.

    finished: False if the deadline came first, and this is the best that there was by then.
    others: what else could stand in the one hole, the surest first.
    whole: False if the last hole may stop in the middle of something: the deadline came, or it was
    as long as it may be.
    """

    holes: tuple[str, ...]
    confidence: float
    finished: bool = True
    others: tuple[Other, ...] = ()
    whole: bool = True


Kind = Literal["automatic", "invoked", "action", "ahead"]
"""Who wants it: an editor while one types; a user who asked for a suggestion, or for an edit; or
nobody yet, and it gives way to everything else."""


class Nothing(Exception):
    """There is nothing to show, and no error; the text says why."""


def gate(confidence: float, least: float) -> None:
    """Raises Nothing where the model is less sure than the user wants it to be."""
    if confidence < least:
        raise Nothing(f"the model was only {confidence:.0%} sure")


class Flight:
    """One request on its way, and the one place where it can be ended early."""

    def __init__(self, uri: str, kind: Kind, deadline: float) -> None:
        self.uri = uri
        self.kind: Kind = kind
        self.deadline = deadline
        self.over: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def end(self, reason: str) -> None:
        """Has the request answered at once, with nothing; its run is cancelled."""
        if not self.over.done():
            self.over.set_result(reason)

    @property
    def invoked(self) -> bool:
        """Whether the user asked for it."""
        return self.kind in ("invoked", "action")

    @property
    def left_s(self) -> float:
        """The seconds until the deadline."""
        return self.deadline - time.monotonic()


def gives_way(older: Kind, newer: Kind) -> bool:
    """Whether a flight of one kind ends when one of another begins for the same document."""
    if newer == "ahead":
        return older == "ahead"
    return older == "automatic" or older == newer == "invoked"


def from_result(result: Infill) -> Answer:
    """What the engine came to."""
    reason = result.stop_reason
    whole = reason not in ("deadline", "max_tokens")
    return Answer(result.holes, result.confidence, reason != "deadline", result.others, whole)


def from_frame(frame: Frame) -> Answer:
    """The best that there was by the deadline."""
    return Answer(frame.texts, frame.confidence, finished=False, whole=False)
