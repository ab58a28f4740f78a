"""What was suggested before, found again: while one types through it, and after an undo.

A suggestion belongs to the text around its place. Whoever asks at a place that one reaches from
there by typing what was suggested gets the rest of it at once, without a run of the model.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

from diffgemma_lsp.settings.schema import Settings
from diffgemma_lsp.text.snapshot import DocumentSnapshot

KEPT = 250
"""Places that are kept."""

TYPED = 128
"""So many characters of a suggestion can be typed before it is forgotten."""

_BEFORE, _AFTER = 1_024, 256
"""Characters around a place that have to be the same."""

_OPENERS, _CLOSERS = "([{\"'`", ")]}\"'`"

BEFORE = _BEFORE + TYPED
"""So many characters before a place tell it from others, however much of it was typed since."""

AFTER = _AFTER + 3
"""The same behind it, with what an editor may have closed."""


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a document: what stands around it, as it stands there, BEFORE and AFTER
    characters at least if there are so many.

    wanted: what else decides what is suggested there, such as the language and the settings. What
    was made for anything else is not found.
    """

    uri: str
    prefix: str
    suffix: str
    wanted: Hashable = None


def place_of(snapshot: DocumentSnapshot, settings: Settings) -> Place:
    """The snapshot's cursor."""
    text, cursor = snapshot.text, snapshot.start
    # Counted in characters: a window of lines would move with each line end that is typed.
    at = text.offset(cursor)
    return Place(
        snapshot.uri,
        text.between(text.point(max(0, at - BEFORE)), cursor),
        text.between(cursor, text.point(min(len(text), at + AFTER))),
        (snapshot.language_id, settings.seed, settings.max_tokens, settings.max_lines),
    )


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A suggestion: a text for its place, and how sure the model was of it, from 0 to 1; None where
    that was not measured."""

    text: str
    confidence: float | None


_Key = tuple[str, str, str, Hashable]


class SuggestionCache:
    """The last KEPT suggestions; the one that was used last is forgotten last.

    under_way: what is being made for a place by itself, for whoever asks for the same meanwhile;
    cancelled if nobody waits for it any more.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self._most = kept
        self.under_way: dict[Place, asyncio.Future[tuple[Suggestion, ...]]] = {}
        self._kept: OrderedDict[_Key, tuple[Suggestion, ...]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, place: Place, found: tuple[Suggestion, ...]) -> None:
        """Keeps what was found for a place, best first."""
        key = _key(place, place.prefix, place.suffix)
        self._kept[key] = found
        self._kept.move_to_end(key)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)

    def has(self, place: Place) -> bool:
        """Whether anything was kept for this very place, be it that there is nothing."""
        return _key(place, place.prefix, place.suffix) in self._kept

    def find(self, place: Place, typed: int = TYPED, least: int = 0) -> tuple[Suggestion, ...]:
        """What is known for the place: the rests of suggestions whose beginning was typed.

        typed, least: the most and the fewest characters of a suggestion that may have been typed
        since it was made; 0 finds only what was made for this very place.
        """
        closers, opened = _closers(place.suffix), False
        for size in range(min(typed, len(place.prefix)) + 1):
            start = len(place.prefix) - size
            opened = opened or (size > 0 and place.prefix[start] in _OPENERS)
            if size < least:
                continue
            for closed in closers if opened else closers[:1]:
                written = place.prefix[start:]
                key = _key(place, place.prefix[:start], place.suffix[len(closed) :])
                rests = _rests(self._kept.get(key, ()), written, closed)
                if rests:
                    self._kept.move_to_end(key)
                    return rests
        return ()


def _key(place: Place, prefix: str, suffix: str) -> _Key:
    return place.uri, prefix[-_BEFORE:], suffix[:_AFTER], place.wanted


def _closers(suffix: str) -> list[str]:
    """What an editor may have closed by itself behind what was typed: nothing, or one to three
    brackets or quotes."""
    found = [""]
    for size in (1, 2, 3):
        if len(suffix) < size or suffix[size - 1] not in _CLOSERS:
            break
        found.append(suffix[:size])
    return found


def _rests(known: tuple[Suggestion, ...], written: str, closed: str) -> tuple[Suggestion, ...]:
    rests: list[Suggestion] = []
    for one in known:
        rest = one.text.removeprefix(written)
        if one.text.startswith(written) and rest.endswith(closed) and len(rest) > len(closed):
            rests.append(Suggestion(rest[: len(rest) - len(closed)], one.confidence))
    return tuple(rests)
