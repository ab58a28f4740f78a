"""notebookDocument/didOpen, didChange, didSave and didClose: notebooks as the client has them.

The text of a cell is a document, so what `text_sync` does with a document is done with it. A
notebook adds which cells there are, and in which order.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from lsprotocol import types

from diffgemma_lsp.features import text_sync
from diffgemma_lsp.session.session import Session
from diffgemma_lsp.text.documents import Cell

logger = logging.getLogger(__name__)

# All cells of all notebooks: any language gets suggestions in a document of its own, too.
SYNC = types.NotebookDocumentSyncOptions(
    [types.NotebookDocumentFilterWithCells([types.NotebookCellLanguage("*")], "*")], save=True
)


def did_open(session: Session, params: types.DidOpenNotebookDocumentParams) -> None:
    """Takes the notebook and the texts of its cells in."""
    notebook = params.notebook_document
    if session.documents.notebooks.cells(notebook.uri) is not None:
        logger.warning("%s was opened again without having been closed", notebook.uri)
        _forget(session, notebook.uri)
    session.documents.notebooks.open(notebook.uri, map(_cell, notebook.cells))
    _open_texts(session, params.cell_text_documents)


def did_change(session: Session, params: types.DidChangeNotebookDocumentParams) -> None:
    """Applies the changes: which cells there are, then of which kind they are, then their texts."""
    uri, cells = params.notebook_document.uri, params.change.cells
    if session.documents.notebooks.cells(uri) is None:
        logger.warning("%s was changed but not open", uri)
        return
    if cells is None:
        return
    if cells.structure is not None:
        _restructure(session, uri, cells.structure)
    session.documents.notebooks.update(uri, map(_cell, cells.data or ()))
    for content in cells.text_content or ():
        text_sync.did_change(
            session, types.DidChangeTextDocumentParams(content.document, content.changes)
        )


def did_save(session: Session, params: types.DidSaveNotebookDocumentParams) -> None:
    """Nothing depends on what is on the disk."""


def did_close(session: Session, params: types.DidCloseNotebookDocumentParams) -> None:
    """Forgets the notebook and the texts of its cells."""
    uri = params.notebook_document.uri
    if session.documents.notebooks.cells(uri) is None:
        logger.warning("%s was closed but not open", uri)
    _close_texts(session, params.cell_text_documents)
    _forget(session, uri)


def unreadable(session: Session, method: str, params: Any, whole: bool) -> None:
    """Gives a notebook up whose changes can't be read: from here on its texts would be wrong.

    All of them if that can't be known, since the parameters are not here as a whole.
    """
    if method not in (types.NOTEBOOK_DOCUMENT_DID_CHANGE, ""):
        return
    try:
        uris = [str(params["notebookDocument"]["uri"])]
    except (TypeError, KeyError):
        if whole:
            return
        uris = session.documents.notebooks.all
    for uri in uris:
        if session.documents.notebooks.cells(uri) is not None:
            logger.warning("%s gets no suggestions until it is opened again", uri)
            _forget(session, uri)


def _restructure(
    session: Session, uri: str, structure: types.NotebookDocumentCellChangeStructure
) -> None:
    # A cell that only moves is deleted and inserted, and its text stays open. One whose language
    # changes can be closed and opened under the same URI, so closing comes first.
    _close_texts(session, structure.did_close or ())
    array = structure.array
    session.documents.notebooks.splice(
        uri, array.start, array.delete_count, map(_cell, array.cells or ())
    )
    _open_texts(session, structure.did_open or ())


def _open_texts(session: Session, items: Sequence[types.TextDocumentItem]) -> None:
    for item in items:
        text_sync.did_open(session, types.DidOpenTextDocumentParams(item))


def _close_texts(session: Session, documents: Sequence[types.TextDocumentIdentifier]) -> None:
    for document in documents:
        text_sync.did_close(session, types.DidCloseTextDocumentParams(document))


def _forget(session: Session, uri: str) -> None:
    """Forgets the notebook, and the texts of its cells that are still open."""
    known = [cell.uri for cell in session.documents.notebooks.close(uri)]
    left = [types.TextDocumentIdentifier(uri) for uri in known if session.documents.get(uri)]
    _close_texts(session, left)


def _cell(cell: types.NotebookCell) -> Cell:
    return Cell(cell.document, cell.kind == types.NotebookCellKind.Code)
