"""diffgemma/refuseNextEdit: a notification that a next edit is not wanted.

The parameters are those of an edit as `textDocument/copilotInlineEdit` gave it: {textDocument:
{uri, version}, range, text}. The same is not offered again after the changes so far; of another
version, or of what can't be read, nothing is taken down.
"""

from __future__ import annotations

from diffgemma_lsp.lsp.client import member
from diffgemma_lsp.session.session import Session

METHOD = "diffgemma/refuseNextEdit"


def refuse_next_edit(session: Session, params: object) -> None:
    """Takes it down."""
    named = member(params, "textDocument")
    uri, text = str(member(named, "uri") or ""), member(params, "text")
    line = member(member(member(params, "range"), "start"), "line")
    document = session.documents.get(uri)
    if document is None or member(named, "version") not in (None, document.version):
        return
    if isinstance(text, str) and type(line) is int and 0 <= line < document.text.line_count:
        session.history.offers.refuse(uri, line, document.text.content(line), text)
