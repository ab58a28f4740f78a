"""Carries an order out: from the document as it was to edits of the document as it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from lsprotocol import types

from diffgemma_lsp.actions.fit import Fit, fitted
from diffgemma_lsp.actions.frames import Throttled, shown_frame
from diffgemma_lsp.actions.order import Order
from diffgemma_lsp.actions.plan import NoPlan, Plan, plan
from diffgemma_lsp.context.window import title_of
from diffgemma_lsp.lsp import positions
from diffgemma_lsp.lsp.client import Client, WorkDone
from diffgemma_lsp.polish.confidence import doubt
from diffgemma_lsp.session.engine import Answer
from diffgemma_lsp.session.requests import Nothing, PendingRequest
from diffgemma_lsp.session.session import Session
from diffgemma_lsp.text import diff
from diffgemma_lsp.text.snapshot import snapshot_of
from diffgemma_lsp.text.text import Point, Text
from engine.types import Frame, InfillRequest

Token = types.ProgressToken | None

SEEDS = 3
"""With so many seeds an order is tried, as long as nothing fits, and nothing comes twice."""

OTHERS = 3
"""So many of the other answers are tried first, the likeliest ones."""

MOST_ACTIONS = 32
"""Orders that are carried out at a time, of one client."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the model made of an order.

    fillings: what is put in the place of each blank; None leaves what stands there.
    seed: with which it came about; another one gives another answer. strength: how much of what was
    selected could change, from 0 to 1; None for what is no rewrite. finished: False if the time was
    up first.
    """

    fillings: tuple[str | None, ...]
    confidence: float | None
    seed: int
    strength: float | None
    finished: bool


class Work:
    """One order in one session, from the moment it arrived."""

    def __init__(self, session: Session, order: Order) -> None:
        self.session, self.order = session, order
        document = session.documents.get(order.uri)
        if document is None:
            raise Nothing("the document is not open")
        if order.version not in (None, document.version):
            raise Nothing("the document has changed since: choose the action again")
        self._document, self._revision = document, document.revision
        start, end = positions.to_points(document.text, order.range, session.encoding)
        self.snapshot = snapshot_of(session.documents, document, start, end)
        self.settings = session.settings.for_document(order.uri, document.language_id)
        if (reason := session.settings.off(order.uri, document.language_id)) is not None:
            raise Nothing(reason)
        if session.requests.in_flight >= MOST_ACTIONS:
            raise Nothing("too much is under way already: wait until some of it is done")
        self.seed = self.settings.seed if order.seed is None else order.seed
        self.pending: PendingRequest = session.requests.begin(
            order.uri, "action", self.settings.action_budget_ms
        )
        self._changes: list[tuple[Point, Point, str]] = []

    async def outcome(self, watch: Callable[[Frame], None]) -> Outcome:
        """Runs the model, with another seed if nothing of its answer fits and the time allows it.

        Raises Nothing if there is nothing to change, and EngineError.
        """
        try:
            found = plan(self.order, self.snapshot, self.settings)
        except NoPlan as reason:
            raise Nothing(str(reason)) from reason
        request = InfillRequest(
            found.template(self.snapshot),
            instruction=found.instruction,
            context=self.session.neighbours.around(self.snapshot),
            title=title_of(self.snapshot),
        )
        shown = Throttled(lambda frame: self._show(frame, found, watch))
        seed, tries, told = self.seed, 1, ()
        while True:
            enough = self.pending.left_s / 2  # for another try, if that takes as long
            run = self.session.engine_of(self.order.uri).run
            answer = await run(self.pending, replace(request, seed=seed), shown)
            shown.flush()
            sure = found.confidence(answer.confidence, answer.holes)
            if (reason := self._doubt(sure)) is not None:
                raise Nothing(reason)
            fit, confidence = await self._fit(found, answer)
            done = any(fit.texts) or answer.holes == told  # many a model draws nothing
            if done or tries == SEEDS or self.pending.left_s < enough:
                break
            seed, tries, told = (seed + 1) % 2**63, tries + 1, answer.holes
        self._changes = [
            (blank.start, blank.end, new)
            for blank, new in zip(found.blanks, fit.texts, strict=True)
            if new is not None
        ]
        # What the model did not come to is empty as well.
        late = 0 if answer.finished else fit.empty
        self._tell_what_is_left(fit._replace(empty=fit.empty - late, late=fit.late + late))
        strengths = (blank.strength for blank in found.blanks if blank.draft is not None)
        strength = next(strengths, None)
        return Outcome(fit.texts, confidence, seed, strength, answer.finished)

    async def _fit(self, found: Plan, answer: Answer) -> tuple[Fit, float | None]:
        """What of an answer fits, and how sure the model is of it; where nothing of it does, what
        of the others."""
        first = await self._fitted(found, answer.holes)
        sure = found.confidence(answer.confidence, answer.holes)
        if any(first.texts):
            return first, sure
        for other in answer.others[:OTHERS]:
            its_own = found.confidence(other.confidence, (other.text,))
            if self._doubt(its_own) is None and self.pending.left_s > 0:
                fit = await self._fitted(found, (other.text,))
                if any(fit.texts):
                    return fit, its_own
        return first, sure

    def _doubt(self, confidence: float | None) -> str | None:
        return doubt(confidence, self.settings.min_confidence, invoked=True)

    async def _fitted(self, found: Plan, texts: Sequence[str]) -> Fit:
        """In a thread: of many blanks each takes some milliseconds, and all else goes on."""
        until = self.pending.deadline
        return await asyncio.to_thread(fitted, found.blanks, texts, self.snapshot, until)

    def _tell_what_is_left(self, fit: Fit) -> None:
        """Raises Nothing if everything stays as it was; tells the user if some of it does."""
        if not self._changes:
            raise Nothing(fit.nothing)
        if fit.left is not None:
            self.session.client.show(types.MessageType.Info, fit.left)

    def edit(self) -> types.WorkspaceEdit:
        """The outcome as an edit of the document as it is now: only what differs, one undo step.

        Raises Nothing if it differs in nothing, or its place is not there any more.
        """
        session, then = self.session, self.snapshot
        document = self._document
        if session.documents.get(then.uri) is not document:
            raise Nothing("the document was closed")
        places = self._places()
        if places is None:
            raise Nothing("the document was changed at this place in the meantime")
        found: list[types.TextEdit] = []
        for (start, end), (_, _, new) in zip(places, self._changes, strict=True):
            found += _text_edits(document.text, start, end, new, session.encoding)
        if not found:
            raise Nothing("the model would leave this as it is")
        return workspace_edit(then.uri, document.version, found, session.client.can.versions)

    @property
    def place_changed(self) -> bool:
        """Whether the document was changed where its edit belongs, as that edit does."""
        return self._places() is None

    def _places(self) -> list[tuple[int, int]] | None:
        """Where by now is what is to be changed; None if any of it was changed or is gone."""
        then = self.snapshot.text
        found: list[tuple[int, int]] = []
        for start, end, _ in self._changes:
            place = self._document.moved(self._revision, then.offset(start), then.offset(end))
            if place is None:
                return None
            found.append(place)
        return found

    def _show(self, frame: Frame, found: Plan, watch: Callable[[Frame], None]) -> None:
        watch(frame)
        self.session.client.frame(
            {
                "token": self.order.token,
                "textDocument": {"uri": self.snapshot.uri, "version": self.snapshot.version},
                **shown_frame(frame, found, self.snapshot.text, self.session.encoding),
            }
        )


def workspace_edit(
    uri: str, version: int, changes: list[types.TextEdit], versions: bool
) -> types.WorkspaceEdit:
    """Edits of one document, bound to its version where the client can tell."""
    if not versions:
        return types.WorkspaceEdit(changes={uri: changes})
    document = types.OptionalVersionedTextDocumentIdentifier(uri, version)
    return types.WorkspaceEdit(document_changes=[types.TextDocumentEdit(document, changes)])


def _text_edits(
    text: Text, start: int, end: int, new: str, encoding: positions.Encoding
) -> list[types.TextEdit]:
    """What makes `new` of the text from offset `start` to `end`."""
    old = text.between(text.point(start), text.point(end))
    return [
        types.TextEdit(
            positions.to_range(
                text, text.point(start + edit.start), text.point(start + edit.end), encoding
            ),
            edit.text,
        )
        for edit in diff.minimal(old, new)
    ]


class ProgressShown:
    """Shows the passes of a run where the client shows progress; a click there ends the run."""

    def __init__(self, session: Session, pending: PendingRequest, title: str, token: Token) -> None:
        self._over = False
        self._done: WorkDone | None = None
        # In the background: the run does not wait for the client's consent.
        session.requests.spawn(self._begin(session.client, pending, title, token))

    async def _begin(
        self, client: Client, pending: PendingRequest, title: str, token: Token
    ) -> None:
        cancel = partial(pending.end, "you cancelled it")
        done = await client.begin_progress(token, title, cancel)
        if done is not None and self._over:
            done.end()
        else:
            self._done = done

    def __call__(self, frame: Frame) -> None:
        if self._done is not None:
            self._done.report(frame)

    def end(self) -> None:
        """The run is over."""
        self._over = True
        if self._done is not None:
            self._done.end()


async def carry_out(work: Work, token: Token = None) -> Outcome:
    """The order's outcome, with progress shown meanwhile. Raises Nothing and EngineError."""
    shown = ProgressShown(work.session, work.pending, work.order.kind.title, token)
    try:
        return await work.outcome(shown)
    finally:
        shown.end()
