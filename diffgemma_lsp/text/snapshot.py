"""What a request is about: a document as it stood when the request's message arrived."""

from __future__ import annotations

from dataclasses import dataclass, replace

from diffgemma_lsp.settings.globs import path_of
from diffgemma_lsp.text.documents import Document, Documents
from diffgemma_lsp.text.text import Point, Text


@dataclass(frozen=True, slots=True, eq=False)
class DocumentSnapshot:
    """One version of a document and the selection in it; a cursor is an empty selection.

    Nothing that happens to the document later shows in it. Whoever works on a request has this and
    never the document. If it is a cell of a notebook, the code cells before and after it are here
    too.
    """

    uri: str
    version: int
    language_id: str
    text: Text
    start: Point
    end: Point
    cells_before: tuple[Text, ...] = ()
    cells_after: tuple[Text, ...] = ()

    @classmethod
    def of(cls, document: Document, start: Point, end: Point | None = None) -> DocumentSnapshot:
        """The document as it is now, with the cursor at `start`, or a selection up to `end`."""
        return cls(
            document.uri,
            document.version,
            document.language_id,
            document.text,
            start,
            start if end is None else end,
        )

    @property
    def word_before(self) -> str:
        """The part of a word that ends right before the selection. Combining marks belong to it."""
        line = self.line_before
        start = len(line)
        while start and f"_{line[start - 1]}".isidentifier():
            start -= 1
        return line[start:]

    @property
    def line_before(self) -> str:
        """The line of the selection's start, up to it."""
        return self.text.line(self.start.line)[: self.start.column]

    @property
    def line_after(self) -> str:
        """The line of the selection's end, from it on, without the line end."""
        return self.text.content(self.end.line)[self.end.column :]

    @property
    def stub(self) -> bool:
        """Whether the document says only what things are, and is not run."""
        return self.language_id == "python" and path_of(self.uri).endswith(".pyi")

    @property
    def newline(self) -> str:
        """How lines end around the cursor: this line, else the one before, else "\\n"."""
        for number in (self.start.line, self.start.line - 1):
            if number >= 0:
                line = self.text.line(number)
                if ending := line[len(line.rstrip("\r\n")) :]:
                    return ending
        return "\n"

    def typed(self, start: Point, end: Point, new: str) -> DocumentSnapshot:
        """The snapshot as if `new` had been typed over `start` to `end`, the cursor behind it."""
        text = self.text.edit(start, end, new)
        # Counted from the end: a line end that forms at a seam moves nothing behind the cursor.
        cursor = text.point(len(text) - (len(self.text) - self.text.offset(end)))
        return replace(self, text=text, start=cursor, end=cursor)


def snapshot_of(
    documents: Documents, document: Document, start: Point, end: Point | None = None
) -> DocumentSnapshot:
    """The document as it is now, with the cells around it if it is one of a notebook."""
    before, after = documents.cells_around(document)
    snapshot = DocumentSnapshot.of(document, start, end)
    return replace(snapshot, cells_before=before, cells_after=after)
