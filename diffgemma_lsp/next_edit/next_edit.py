"""What to offer after an edit: the nearest place that must follow, or nothing.

Silence is the default. Places come from the text (places.py); of each the model says what it makes
of the line that stands there, and of the one that would (weigh.py), until one is found against
which it has nothing, or the time is up. What was
weighed once is known, so that the next request goes on behind it.
"""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

from diffgemma_lsp.context.window import plain
from diffgemma_lsp.next_edit.parts import Place, Region
from diffgemma_lsp.next_edit.places import places
from diffgemma_lsp.next_edit.source import Source
from diffgemma_lsp.next_edit.weigh import request_for
from diffgemma_lsp.session.requests import Nothing, PendingRequest
from diffgemma_lsp.session.session import Session
from diffgemma_lsp.syntax.check import Site
from diffgemma_lsp.syntax.languages import language_of
from diffgemma_lsp.text.history import Edit
from diffgemma_lsp.text.snapshot import DocumentSnapshot
from engine.errors import BadRequest
from engine.types import Fixed

FOLLOWED_S = 300.0
"""So long after an edit it is asked what must follow it."""

FOLLOWED = 3
"""So many edits are followed up, the newest first."""

MOST_CHARS = 300_000
"""In longer documents nothing is looked for."""

LEAST = -8.0
"""Nats by which the model has to find a line likelier than the one that stands there. Below nought,
since a place is found by strong signs: of 500 edits after which nothing must follow none has any
(tests/bench/next_edits.py). How usual the words of a line are must not outweigh them; only what the
model finds absurd is not offered: 1 in 22 of the right lines, and 1 in 4 of the wrong ones."""


class NextEdit(NamedTuple):
    """A line of a document, and the text for its place; neither has a line end. gain: the nats by
    which the model finds that likelier."""

    line: int
    text: str
    gain: float


async def next_edit(
    session: Session, pending: PendingRequest, snapshot: DocumentSnapshot
) -> NextEdit:
    """What must follow the last edits of the snapshot's document, nearest its cursor.

    Raises Nothing where there is none, and EngineError.
    """
    await _must_be_wanted(session, pending, snapshot)
    regions = _regions(session, snapshot)
    if not regions:
        raise Nothing("nothing was changed lately")
    if len(snapshot.text) > MOST_CHARS:
        raise Nothing("the document is too long to look for what must follow")
    text = plain(str(snapshot.text))
    candidates = asyncio.to_thread(_candidates, text, snapshot, regions)
    for place, edit, source in await candidates:
        here = snapshot.uri, place.line, snapshot.text.content(place.line)
        wanted = session.history.wanted(*here, place.choices, edit.origin)
        if not wanted:
            continue
        found = await _better(session, pending, source, Place(place.line, wanted), edit)
        _must_know(session, snapshot)  # of which the first run was the first to tell
        if found is not None:
            session.history.offers.offered(*here, found.text, edit.origin, time.monotonic())
            return found
    raise Nothing("nothing has to follow the last edits")


async def _must_be_wanted(
    session: Session, pending: PendingRequest, snapshot: DocumentSnapshot
) -> None:
    known = session.settings.known
    if not known.is_set() and not await pending.until(known):
        raise Nothing("the editor has not yet said what its settings are")
    if (reason := session.settings.off(snapshot.uri, snapshot.language_id)) is not None:
        raise Nothing(reason)
    if not session.settings.for_document(snapshot.uri, snapshot.language_id).next_edits:
        raise Nothing("next edits are turned off (setting next_edits)")
    _must_know(session, snapshot)


def _must_know(session: Session, snapshot: DocumentSnapshot) -> None:
    """Raises Nothing in a language that the model has not learned."""
    if (reason := session.engine.model.silent(snapshot.language_id)) is not None:
        raise Nothing(reason)


def _regions(session: Session, snapshot: DocumentSnapshot) -> list[Region]:
    """The last edits of the document, the newest first."""
    now = time.monotonic()

    def region(edit: Edit) -> Region:
        return Region(plain(edit.old), edit.first, edit.last, edit.origin)

    recent = (edit for edit in session.history.of(snapshot.uri) if now - edit.when < FOLLOWED_S)
    return [region(edit) for edit in recent if edit.count > 0]


def _candidates(
    text: str, snapshot: DocumentSnapshot, regions: list[Region]
) -> list[tuple[Place, Region, Source]]:
    """Places, each with the edit that it may have to follow."""
    source = Source(text, language_of(snapshot.language_id))
    return [
        (place, region, source)
        for region in regions[:FOLLOWED]
        for place in places(source, region, snapshot.start.line, regions)
    ]


async def _better(
    session: Session,
    pending: PendingRequest,
    source: Source,
    place: Place,
    edit: Region,
) -> NextEdit | None:
    """What the model finds likeliest at a place, unless that is as it stands, by far."""
    request = request_for(source, place, edit)
    shown = (part.text for part in request.template if isinstance(part, Fixed))
    key = (pending.uri, *shown, *request.choices)
    gains = session.history.known.get(key)
    if gains is None:
        sound = await asyncio.to_thread(_sound, source, place)
        gains = (float("-inf"),) * len(place.choices)
        if any(sound):
            try:
                scores = (await session.engine.run(pending, request)).scores
            except BadRequest as reason:
                raise Nothing(str(reason)) from reason
            gains = tuple(
                score - scores[0] if fits else float("-inf")
                for score, fits in zip(scores[1:], sound, strict=True)
            )
        session.history.remember(key, gains)
    gain = max(gains)
    if gain < LEAST:
        return None
    return NextEdit(place.line, place.choices[gains.index(gain)], gain)


def _sound(source: Source, place: Place) -> list[bool]:
    """Of each choice, whether it breaks no syntax that is sound."""
    start = source.start_of(place.line)
    old = source.lines[place.line]
    site = Site(source.text[:start], source.text[start + len(old) :], source.language)
    return [not site.worsened_by(choice, old) for choice in place.choices]
