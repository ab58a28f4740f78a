"""textDocument/completion: the same suggestion for editors that have no inline completions.

One entry at the end of the list, marked incomplete, so that it is asked for anew as one types, and
never in the way of what other servers complete: it sorts behind everything, is not preselected, and
is gone where there is code right of the cursor. Editors with inline completions are not offered it.
"""

from __future__ import annotations

import asyncio

from lsprotocol import types

from diffgemma_lsp.lsp import positions
from diffgemma_lsp.session.requests import Nothing, PendingRequest
from diffgemma_lsp.session.session import Session
from diffgemma_lsp.suggest.suggest import suggest
from diffgemma_lsp.syntax.indentation import indentation
from diffgemma_lsp.text.snapshot import DocumentSnapshot, snapshot_of
from diffgemma_lsp.text.text import Point

METHOD = types.TEXT_DOCUMENT_COMPLETION

LAST = "\U0010ffff"
"""Sorts behind every other entry."""

_LABEL = 60


def wanted(capabilities: types.ClientCapabilities) -> bool:
    """Whether the client has no inline completions."""
    document = capabilities.text_document
    return document is None or document.inline_completion is None


def completion(
    session: Session, params: types.CompletionParams
) -> asyncio.Task[types.CompletionList]:
    """Takes the snapshot at once, while the document is the one that the client means."""
    uri = params.text_document.uri
    document = session.documents.get(uri)
    settings = session.settings.for_document(uri, document.language_id if document else "")
    context = params.context
    invoked = context is not None and context.trigger_kind == types.CompletionTriggerKind.Invoked
    snapshot = None
    if document is not None:
        cursor = positions.to_point(document.text, params.position, session.encoding)
        snapshot = snapshot_of(session.documents, document, cursor)
    # Most editors say "invoked" for every letter, so it is no more than automatic.
    pending = session.requests.begin(uri, "automatic", settings.automatic_budget_ms, method=METHOD)
    return session.requests.answer(pending, _answer(session, pending, snapshot, invoked))


async def _answer(
    session: Session,
    pending: PendingRequest,
    snapshot: DocumentSnapshot | None,
    invoked: bool,
) -> types.CompletionList:
    items: list[types.CompletionItem] = []
    with session.outcomes.account(pending.uri, METHOD, invoked):
        if snapshot is None:
            raise Nothing("the document is not open")
        found = await suggest(session, pending, snapshot)
        items = [_item(session, snapshot, one.text) for one in found]
    return types.CompletionList(is_incomplete=True, items=items)


def resolve(item: types.CompletionItem) -> types.CompletionItem:
    """Entries come complete. Some editors ask all the same."""
    return item


def _item(session: Session, snapshot: DocumentSnapshot, text: str) -> types.CompletionItem:
    cursor = snapshot.start
    lead = snapshot.word_before
    start = Point(cursor.line, cursor.column - len(lead))
    whole = lead + text
    first = whole.lstrip().split("\n", 1)[0].rstrip()
    # Its lines are indented as they belong. An editor that would indent them once more is told so;
    # one that can't be told gets them without what it adds.
    mode, can = None, session.client.can
    if can.as_is:
        mode = types.InsertTextMode.AsIs
    elif can.adjusts:
        mode = types.InsertTextMode.AdjustIndentation
        whole = whole.replace("\n" + indentation(snapshot.line_before), "\n")
    return types.CompletionItem(
        label=first if len(first) <= _LABEL else f"{first[: _LABEL - 1]}…",
        kind=types.CompletionItemKind.Text,
        detail="diffgemma",
        documentation=types.MarkupContent(types.MarkupKind.PlainText, whole),
        sort_text=LAST,
        # What is typed already matches it, whatever the suggestion begins with.
        filter_text=lead or None,
        insert_text_format=types.InsertTextFormat.PlainText,
        insert_text_mode=mode if "\n" in whole else None,
        text_edit=types.TextEdit(
            positions.to_range(snapshot.text, start, cursor, session.encoding), whole
        ),
    )
