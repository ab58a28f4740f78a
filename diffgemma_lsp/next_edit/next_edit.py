"""What to offer after an edit: the nearest place that must follow, or nothing.

Silence is the default. Places come from the text (places.py); of each the model says what it makes
of the line that stands there, and of the one that would (weigh.py), until one is found against
which it has nothing, or the time is up. What was
weighed once is known, so that the next request goes on behind it.
"""

from __future__ import annotations

import asyncio
import time

from diffgemma_lsp.context.window import plain
from diffgemma_lsp.next_edit.parts import Place, Region
from diffgemma_lsp.next_edit.places import LONGEST, places_after
from diffgemma_lsp.next_edit.source import Source
from diffgemma_lsp.next_edit.weigh import NextEdit, gains_of, likeliest, request_for, sound
from diffgemma_lsp.session.requests import Nothing, PendingRequest
from diffgemma_lsp.session.session import Session
from diffgemma_lsp.text.history import Edit
from diffgemma_lsp.text.snapshot import DocumentSnapshot
from engine.errors import BadRequest
from engine.types import Fixed

FOLLOWED_S = 300.0
"""So long after an edit it is asked what must follow it."""


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
    if len(snapshot.text) > LONGEST:
        raise Nothing("the document is too long to look for what must follow")
    text = plain(str(snapshot.text))
    line, language_id = snapshot.start.line, snapshot.language_id
    candidates = asyncio.to_thread(places_after, text, language_id, line, regions)
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
    engine = session.engines.of(snapshot.uri, snapshot.language_id)
    if (reason := engine.model.silent(snapshot.language_id)) is not None:
        raise Nothing(reason)


def _regions(session: Session, snapshot: DocumentSnapshot) -> list[Region]:
    """The last edits of the document, the newest first."""
    now = time.monotonic()

    def region(edit: Edit) -> Region:
        return Region(plain(edit.old), edit.first, edit.last, edit.origin)

    recent = (edit for edit in session.history.of(snapshot.uri) if now - edit.when < FOLLOWED_S)
    return [region(edit) for edit in recent if edit.count > 0]


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
        fits = await asyncio.to_thread(sound, source, place)
        gains = (float("-inf"),) * len(place.choices)
        if any(fits):
            try:
                scores = (await session.engine_of(pending.uri).run(pending, request)).scores
            except BadRequest as reason:
                raise Nothing(str(reason)) from reason
            gains = gains_of(scores, fits)
        session.history.remember(key, gains)
    return likeliest(place, gains)
