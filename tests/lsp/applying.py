"""What becomes of a document when a client applies an edit of the server's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lsprotocol import types

from diffgemma_lsp.lsp.positions import apply_change
from diffgemma_lsp.text.diff import Edit
from diffgemma_lsp.text.text import Text


def applied(text: str, uri: str, edit: dict[str, Any], version: int | None = 1) -> str:
    """The text after a workspace edit, which must be for this document alone and this version.

    version: None for a client that takes no edits of versions.
    """
    if version is None:
        ((named, changes),) = edit["changes"].items()
        assert named == uri
    else:
        (document,) = edit["documentChanges"]
        assert document["textDocument"] == {"uri": uri, "version": version}
        changes = document["edits"]
    # All of them speak of the text as it was: the last one is applied first.
    changed = Text.of(text)
    for change in sorted(changes, key=lambda c: list(c["range"]["start"].values()), reverse=True):
        start, end = (types.Position(**change["range"][side]) for side in ("start", "end"))
        partial = types.TextDocumentContentChangePartial(types.Range(start, end), change["newText"])
        changed, _ = apply_change(changed, partial, "utf-16")
    return str(changed)


def edited(text: str, edits: Sequence[Edit]) -> str:
    """The text after all of the edits, which are in order and don't overlap."""
    pieces: list[str] = []
    at = 0
    for start, end, new in edits:
        pieces += (text[at:start], new)
        at = end
    return "".join([*pieces, text[at:]])
