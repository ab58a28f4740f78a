"""diffgemma/status: how the server is doing, and why it last showed nothing.

The parameters are {textDocument?: {uri}}. The result is {state, message, percent, model,
can, languages, lastReason, suggestions, document}:

state: "off", "loading", "error", "slow", "filling", "ready" or "idle" (the model is not loaded).
message: one line for a person. percent: of the loading, or null.
model: what the engine runs, or null; the document's, if the request names one, else that for all.
can: what the model can do, as far as is known: "fill", and "instruct" if it follows instructions.
languages: those in which it suggests without being asked,
"*" for all; null as long as that is not known.
lastReason: why the last request was answered with nothing, or null if it was not; code actions
and next edits, which are asked for by themselves, do not count.
suggestions: {shown, accepted, characters} since the session began; `diffgemma-lsp stats` has more.
document: {uri, off, reasons} if the request names one, else null. off: why nothing at all is shown
in it, or null. reasons: by method, why its last request there came to nothing.
"""

from __future__ import annotations

import asyncio
from typing import Any

from diffgemma_lsp.actions.order import document_of
from diffgemma_lsp.session.model import Model
from diffgemma_lsp.session.session import Session
from diffgemma_lsp.session.status import as_json, overall, status_of

METHOD = "diffgemma/status"

_TOLD = ("shown", "accepted", "characters")


def status(session: Session, params: object) -> asyncio.Task[dict[str, Any]]:
    """Asks the engine too, if there is one; never starts one."""
    return session.requests.keep(_status(session, document_of(params)))


async def _status(session: Session, uri: str) -> dict[str, Any]:
    document = session.documents.get(uri)
    if document is not None:
        engine = session.engine_of(uri)
        says = await engine.status() or {}
        status = status_of(session, engine, says, document.language_id)
    else:
        all_say = {one: said or {} for one, said in (await session.engines.status()).items()}
        engine = session.engines.default
        says, status = all_say.get(engine, {}), overall(session, all_say)
    session.acceptances.settle()
    info: dict[str, Any] = says.get("info") or {}
    named = engine.named or session.settings.everywhere.model
    return {
        **as_json(status),
        "model": info.get("model") or says.get("model") or named,
        "can": list(engine.model.can),
        "languages": _languages(engine.model),
        "lastReason": session.outcomes.last_reason,
        "suggestions": {kind: session.stats.session[kind] for kind in _TOLD},
        "document": _document(session, uri) if uri else None,
    }


def _languages(model: Model) -> list[str] | None:
    known = ("*",) if model.languages is None else model.languages
    return list(known) if model.known else None


def _document(session: Session, uri: str) -> dict[str, Any]:
    known = session.documents.get(uri)
    off = session.settings.off(uri, known.language_id) if known else "the document is not open"
    return {"uri": uri, "off": off, "reasons": session.outcomes.reasons(uri)}
