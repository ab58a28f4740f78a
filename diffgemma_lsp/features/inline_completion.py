"""textDocument/inlineCompletion: what belongs at the cursor: a suggestion, several, or none.

Answered with an empty list, never with an error, when there is nothing to show, the document
changed or was closed, or a newer request took this one's place: every editor takes an empty list
calmly, while some show ContentModified, and RequestCancelled is for what the client cancelled.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from lsprotocol import types

from diffgemma_lsp.lsp import positions
from diffgemma_lsp.lsp.positions import Encoding
from diffgemma_lsp.session.loading import HELD_S
from diffgemma_lsp.session.requests import Nothing, PendingRequest
from diffgemma_lsp.session.session import Session
from diffgemma_lsp.stats.acceptances import Sent
from diffgemma_lsp.suggest.suggest import suggest
from diffgemma_lsp.text.documents import Change
from diffgemma_lsp.text.snapshot import DocumentSnapshot, snapshot_of
from diffgemma_lsp.text.text import Point

METHOD = types.TEXT_DOCUMENT_INLINE_COMPLETION

Items = list[types.InlineCompletionItem]


def inline_completion(
    session: Session, params: types.InlineCompletionParams
) -> asyncio.Task[Items]:
    """Takes the snapshot at once, while the document is the one that the client means."""
    invoked = params.context.trigger_kind == types.InlineCompletionTriggerKind.Invoked
    uri = params.text_document.uri
    document = session.documents.get(uri)
    settings = session.settings.for_document(uri, document.language_id if document else "")
    budget_ms = settings.invoked_budget_ms if invoked else settings.automatic_budget_ms
    # Even if this one is going to be skipped: what came before is useless now.
    kind = "invoked" if invoked else "automatic"
    pending = session.requests.begin(uri, kind, budget_ms, method=METHOD)
    pending.held_s = HELD_S
    snapshot = None
    if document is not None:
        cursor = positions.to_point(document.text, params.position, session.encoding)
        snapshot = snapshot_of(session.documents, document, cursor)
    selected = params.context.selected_completion_info
    return session.requests.answer(pending, _answer(session, pending, snapshot, selected))


async def _answer(
    session: Session,
    pending: PendingRequest,
    snapshot: DocumentSnapshot | None,
    selected: types.SelectedCompletionInfo | None,
) -> Items:
    items: Items = []
    with session.outcomes.account(pending.uri, METHOD, pending.invoked):
        if snapshot is None:
            raise Nothing("the document is not open")
        target = _target(snapshot, selected, pending.invoked, session.encoding)
        found = await suggest(session, pending, target.snapshot)
        items = [
            types.InlineCompletionItem(insert_text=target.lead + one.text, range=target.range)
            for one in found
        ]
        _note(session, snapshot, items[0], found[0].confidence)
    return items


def _note(
    session: Session,
    snapshot: DocumentSnapshot,
    item: types.InlineCompletionItem,
    confidence: float | None,
) -> None:
    """Notes what the editor is going to show, unless the document has changed since; it is
    counted when something happens."""
    if session.documents.version(snapshot.uri) != snapshot.version or item.range is None:
        return
    text, new = snapshot.text, str(item.insert_text)
    start, end = positions.to_points(text, item.range, session.encoding)
    edit = Change(text.offset(start), text.offset(end), text.between(start, end), new)
    session.acceptances.sent[snapshot.uri] = Sent(text.offset(snapshot.start), edit, confidence)


class _Target(NamedTuple):
    """Where a suggestion goes. It replaces `range`, and begins with `lead`, which is there already.

    An editor goes on showing a suggestion that begins with the word under the cursor while that
    word is typed on.
    """

    snapshot: DocumentSnapshot
    lead: str
    range: types.Range


def _target(
    snapshot: DocumentSnapshot,
    selected: types.SelectedCompletionInfo | None,
    invoked: bool,
    encoding: Encoding,
) -> _Target:
    text, cursor = snapshot.text, snapshot.start
    if selected is not None:
        # The editor shows only what goes on from the entry selected in its popup: as if typed.
        start, end = positions.to_points(text, selected.range, encoding)
        if start.line == end.line and start <= cursor <= end:
            typed = snapshot.typed(start, end, selected.text)
            return _Target(typed, selected.text, selected.range)
        if not invoked:
            raise Nothing("what is selected in the completion popup is not at the cursor")
    lead = snapshot.word_before
    start = Point(cursor.line, cursor.column - len(lead))
    return _Target(snapshot, lead, positions.to_range(text, start, cursor, encoding))
