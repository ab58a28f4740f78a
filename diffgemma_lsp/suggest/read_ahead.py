"""Reads what stands in front of a cursor before anybody asks for a suggestion there."""

from __future__ import annotations

from dataclasses import replace

from diffgemma_lsp.session.requests import Nothing
from diffgemma_lsp.session.session import Session
from diffgemma_lsp.suggest.suggest import begin_ahead, request_for
from diffgemma_lsp.text.snapshot import DocumentSnapshot
from engine.errors import EngineError
from engine.types import SamplingParams

READ = SamplingParams(max_steps=1, rerank=False)
"""The least of a run that reads what stands in front of the cursor."""

AWAKE_S = 300.0
"""So long after the last thing that somebody wanted of the engine a cursor that moves is followed:
who only reads does not keep the model in memory, nor have it loaded again."""


async def read_ahead(session: Session, snapshot: DocumentSnapshot) -> None:
    """Has the engine read what stands in front of a cursor that has just moved there, while nothing
    else is under way: it would take nearly half of the time for the first suggestion."""
    settings = session.settings.for_document(snapshot.uri, snapshot.language_id)
    off = session.settings.off(snapshot.uri, snapshot.language_id)
    if not settings.look_ahead or off is not None or not session.requests.idle:
        return
    if session.requests.quiet_s > min(AWAKE_S, settings.idle_unload_s or AWAKE_S):
        return
    engine = session.engine_of(snapshot.uri)
    if not engine.model.known or engine.model.silent(snapshot.language_id) is not None:
        return  # nobody loads a model for this
    pending = begin_ahead(session, snapshot, settings)
    request = replace(request_for(session, snapshot, settings, most=1), params=READ)
    try:
        await session.requests.answer(pending, engine.run(pending, request))
    except (Nothing, EngineError):
        return  # the first suggestion reads it
