"""textDocument/didOpen, didChange, didSave and didClose: documents as the client has them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any

from lsprotocol import types

from diffgemma_lsp.lsp import positions
from diffgemma_lsp.session.session import Session
from diffgemma_lsp.syntax.languages import language_of, load
from diffgemma_lsp.text.documents import Change, Document
from diffgemma_lsp.text.text import Text

logger = logging.getLogger(__name__)


def did_open(session: Session, params: types.DidOpenTextDocumentParams) -> None:
    """Takes the document in."""
    item = params.text_document
    session.requests.end("the document was opened anew", item.uri)
    text = Text.of(item.text)
    document = Document(item.uri, item.language_id, item.version, text)
    session.acceptances.closed(item.uri)
    session.history.closed(item.uri)
    session.documents.open(document)
    session.neighbours.opened(document)
    session.outcomes.open(item.uri)
    session.warm_up.consider([document])
    if (grammar := language_of(item.language_id).grammar) is not None:
        # Now, and not while somebody waits for a suggestion.
        session.requests.spawn(asyncio.to_thread(load, grammar.package))


def did_change(session: Session, params: types.DidChangeTextDocumentParams) -> None:
    """Applies the changes, one after the other. What is computed for the old text ends."""
    uri, version = params.text_document.uri, params.text_document.version
    document = session.documents.get(uri)
    if document is None:
        logger.warning("%s was changed but not open", uri)
        return
    # An action goes on: its edit is moved to where its place is then, or given up.
    session.requests.end("the document was changed", uri, ("automatic", "invoked", "next"))
    text, changes, now = document.text, list[Change](), time.monotonic()
    for change in params.content_changes:
        before = text
        text, done = positions.apply_change(before, change, session.encoding)
        session.history.changed(uri, before, done, text, now)
        changes.append(done)
    session.documents.update(uri, version, text, changes)
    session.acceptances.changed(uri, changes)
    session.neighbours.changed(uri, text, _line_of(params.content_changes))
    session.documents.pace.key(now)


def did_save(session: Session, params: types.DidSaveTextDocumentParams) -> None:
    """What is saved is worth more to other documents."""
    session.neighbours.saved(params.text_document.uri)


def did_close(session: Session, params: types.DidCloseTextDocumentParams) -> None:
    """Forgets the document."""
    forget(session, params.text_document.uri, "the document was closed")


def unreadable(session: Session, method: str, params: Any, whole: bool) -> None:
    """Gives a document up whose changes can't be read: from here on its text would be wrong.

    All of them if that can't be known, since the parameters are not here as a whole.
    """
    if method not in (types.TEXT_DOCUMENT_DID_CHANGE, ""):
        return
    try:
        uris = [str(params["textDocument"]["uri"])]
    except (TypeError, KeyError):
        if whole:
            return
        uris = [document.uri for document in session.documents.all]
    for uri in uris:
        if session.documents.get(uri) is not None:
            logger.warning("%s gets no suggestions until it is opened again", uri)
            forget(session, uri, "a change of the document could not be read")


def forget(session: Session, uri: str, why: str) -> None:
    """Forgets a document; what is under way for it ends."""
    session.requests.end(why, uri)
    session.acceptances.closed(uri)
    session.history.closed(uri)
    session.documents.close(uri)
    session.neighbours.closed(uri)
    session.outcomes.close(uri)


def _line_of(changes: Sequence[types.TextDocumentContentChangeEvent]) -> int:
    """The line of the last change; 0 if all was changed."""
    last = changes[-1] if changes else None
    if isinstance(last, types.TextDocumentContentChangePartial):
        return last.range.start.line
    return 0
