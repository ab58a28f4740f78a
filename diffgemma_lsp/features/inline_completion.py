"""textDocument/inlineCompletion: what belongs at the cursor, as one suggestion or none.

Answered with an empty list, never with an error, when there is nothing to show, the document
changed or was closed, or a newer request took this one's place: every editor takes an empty list
calmly, while some show ContentModified, and RequestCancelled is for what the client cancelled.
"""

from __future__ import annotations

import asyncio
import re
from typing import NamedTuple

from lsprotocol import types

from diffgemma_lsp import context, postprocess, proto
from diffgemma_lsp.documents import Point
from diffgemma_lsp.proto import Encoding
from diffgemma_lsp.session import Flight, Nothing, Session, Suggestion
from diffgemma_lsp.settings import Settings
from diffgemma_lsp.snapshot import DocumentSnapshot
from engine.errors import EngineError

Items = list[types.InlineCompletionItem]

# What may stand right of the cursor while typing: the rest of an editor's pairs, and punctuation.
_CLOSING = re.compile(r"""[\s)\]}>"'`:,;]*""")


def inline_completion(
    session: Session, params: types.InlineCompletionParams, arrived: float
) -> asyncio.Task[Items]:
    """Takes the snapshot at once, while the document is the one that the client means."""
    invoked = params.context.trigger_kind == types.InlineCompletionTriggerKind.Invoked
    settings, uri = session.settings, params.text_document.uri
    budget_ms = settings.invoked_budget_ms if invoked else settings.automatic_budget_ms
    # Even if this one is going to be skipped: what came before is useless now.
    flight = session.begin(uri, invoked, arrived + budget_ms / 1000)
    snapshot = None
    if (document := session.documents.get(uri)) is not None:
        cursor = proto.to_point(document.text, params.position, session.encoding)
        snapshot = DocumentSnapshot.of(document, cursor)
    selected = params.context.selected_completion_info
    return session.answer(flight, _answer(session, flight, snapshot, selected))


async def _answer(
    session: Session,
    flight: Flight,
    snapshot: DocumentSnapshot | None,
    selected: types.SelectedCompletionInfo | None,
) -> Items:
    settings, invoked = session.settings, flight.invoked
    try:
        if snapshot is None:
            raise Nothing("the document is not open")
        place = _place(snapshot, selected, invoked, session.encoding)
        _look_around(place.snapshot, settings, invoked)
        max_tokens = None if invoked else settings.max_tokens
        neighbours = session.neighbours.around(place.snapshot)
        request = context.fill_request(place.snapshot, max_tokens, settings.seed, neighbours)
        item = _item(place, await session.run(flight, request), settings, invoked)
    except Nothing as reason:
        session.silent(str(reason))
        return []
    except EngineError as error:
        session.report(error, invoked)
        session.silent(str(error))
        return []
    session.last_reason = None
    return [item]


class _Place(NamedTuple):
    """Where a suggestion goes. It replaces `range`, and begins with `lead`, which is there already.

    An editor goes on showing a suggestion that begins with the word under the cursor while that
    word is typed on.
    """

    snapshot: DocumentSnapshot
    lead: str
    range: types.Range


def _place(
    snapshot: DocumentSnapshot,
    selected: types.SelectedCompletionInfo | None,
    invoked: bool,
    encoding: Encoding,
) -> _Place:
    text, cursor = snapshot.text, snapshot.start
    if selected is not None:
        # The editor shows only what goes on from the entry selected in its popup: as if typed.
        start, end = proto.to_points(text, selected.range, encoding)
        if start.line == end.line and start <= cursor <= end:
            typed = snapshot.typed(start, end, selected.text)
            return _Place(typed, selected.text, selected.range)
        if not invoked:
            raise Nothing("what is selected in the completion popup is not at the cursor")
    lead = _word_before(snapshot.line_before)
    start = Point(cursor.line, cursor.column - len(lead))
    return _Place(snapshot, lead, proto.to_range(text, start, cursor, encoding))


def _word_before(line: str) -> str:
    """The part of a word that ends the line. Combining marks belong to it."""
    start = len(line)
    while start and f"_{line[start - 1]}".isidentifier():
        start -= 1
    return line[start:]


def _look_around(snapshot: DocumentSnapshot, settings: Settings, invoked: bool) -> None:
    """Raises Nothing where no suggestion is wanted."""
    if (reason := settings.off(snapshot.uri, snapshot.language_id)) is not None:
        raise Nothing(reason)
    if not invoked and not _CLOSING.fullmatch(snapshot.line_after):
        raise Nothing("there is code right of the cursor")


def _item(
    place: _Place, suggestion: Suggestion, settings: Settings, invoked: bool
) -> types.InlineCompletionItem:
    """The suggestion as it is shown. Raises Nothing if it is not worth it."""
    if suggestion.confidence < settings.min_confidence:
        raise Nothing(f"the model was only {suggestion.confidence:.0%} sure")
    snapshot = place.snapshot
    text = postprocess.polish(
        suggestion.text,
        context.suffix_of(snapshot),
        snapshot.newline,
        None if invoked else settings.max_lines,
    )
    if not text:
        raise Nothing("the model has nothing to add here")
    return types.InlineCompletionItem(insert_text=place.lead + text, range=place.range)
