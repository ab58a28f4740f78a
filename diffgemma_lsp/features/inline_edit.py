"""textDocument/copilotInlineEdit: what must follow the last edits, anywhere in the document.

The method is Copilot's, and the clients that speak it ask any server (sidekick.nvim, copilot-lsp,
copilot.el). The parameters are {textDocument: {uri, version}, position}, the result is {edits:
[{text, range, textDocument: {uri, version}}]} with one edit or none: an empty list, never an error,
where there is nothing to offer, the document has changed, or something else is asked for.
"""

from __future__ import annotations

import asyncio
from typing import Any

from lsprotocol import types

from diffgemma_lsp.lsp import positions
from diffgemma_lsp.lsp.client import member
from diffgemma_lsp.next_edit.next_edit import next_edit
from diffgemma_lsp.session.loading import HELD_S
from diffgemma_lsp.session.requests import Nothing, PendingRequest
from diffgemma_lsp.session.session import Session
from diffgemma_lsp.text.snapshot import DocumentSnapshot, snapshot_of
from diffgemma_lsp.text.text import Point

METHOD = "textDocument/copilotInlineEdit"

UNHEARD = ("textDocument/didFocus", "textDocument/didShowInlineEdit")
"""Notifications of these clients that say nothing new."""

Result = dict[str, list[dict[str, Any]]]


def inline_edit(session: Session, params: object) -> asyncio.Task[Result]:
    """Takes the snapshot at once, while the document is the one that the client means."""
    named = member(params, "textDocument")
    uri = str(member(named, "uri") or "")
    document = session.documents.get(uri)
    settings = session.settings.for_document(uri, document.language_id if document else "")
    pending = session.requests.begin(uri, "next", settings.automatic_budget_ms, method=METHOD)
    pending.held_s = HELD_S
    snapshot = None
    if document is not None and member(named, "version") in (None, document.version):
        place = _position(member(params, "position"))
        cursor = positions.to_point(document.text, place, session.encoding)
        snapshot = snapshot_of(session.documents, document, cursor)
    return session.requests.answer(pending, _answer(session, pending, snapshot))


def unheard(params: object) -> None:
    """Takes a notification for known."""


async def _answer(
    session: Session, pending: PendingRequest, snapshot: DocumentSnapshot | None
) -> Result:
    edits: list[dict[str, Any]] = []
    with session.outcomes.account(pending.uri, METHOD, pending.invoked, aside=True):
        if snapshot is None:
            raise Nothing("the document is not open, or has changed")
        found = await next_edit(session, pending, snapshot)
        text = snapshot.text
        start, end = Point(found.line, 0), Point(found.line, len(text.content(found.line)))
        edits.append(
            {
                "text": found.text,
                "range": positions.to_range(text, start, end, session.encoding),
                "textDocument": {"uri": snapshot.uri, "version": snapshot.version},
            }
        )
    return {"edits": edits}


def _position(raw: object) -> types.Position:
    """The position that is meant; the document's start if that is none."""
    line, character = member(raw, "line"), member(raw, "character")
    if type(line) is int and type(character) is int and line >= 0 and character >= 0:
        return types.Position(line, character)
    return types.Position(0, 0)
