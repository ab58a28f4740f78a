"""What to suggest at a cursor: what is known already, else what the engine makes of it.

Used by every method that suggests. What nobody asked for must be worth its run, and stay silent
where a suggestion would only be in the way.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice

from diffgemma_lsp.context import window
from diffgemma_lsp.polish.confidence import doubt
from diffgemma_lsp.polish.polish import Around, only_lines, polish
from diffgemma_lsp.session.engine import EngineSession
from diffgemma_lsp.session.requests import Nothing, PendingRequest
from diffgemma_lsp.session.session import Session
from diffgemma_lsp.session.suggestion_cache import Place, Suggestion, place_of
from diffgemma_lsp.settings.schema import Settings
from diffgemma_lsp.syntax.check import CLOSING
from diffgemma_lsp.text.snapshot import DocumentSnapshot
from engine.errors import DeadlineExceeded, EngineError
from engine.types import InfillRequest, Other, SamplingParams

WARMER = SamplingParams(t_max=0.9, t_min=0.6, rerank=False)
"""How candidates are drawn that differ from the first answer, where it came alone."""


async def suggest(
    session: Session, pending: PendingRequest, snapshot: DocumentSnapshot
) -> tuple[Suggestion, ...]:
    """Suggestions for the snapshot's cursor, at least one, the best one first; by itself only that.

    Raises Nothing where there is none, and EngineError.
    """
    known = session.settings.known
    if not known.is_set() and not await pending.until(known):
        raise Nothing("the editor has not yet said what its settings are")
    pending.must_go_on()  # what arrived together with it may have taken its place
    if (reason := session.settings.off(snapshot.uri, snapshot.language_id)) is not None:
        raise Nothing(reason)
    settings = session.settings.for_document(snapshot.uri, snapshot.language_id)
    invoked = pending.invoked
    if not invoked and settings.min_confidence is None:
        settings = replace(settings, min_confidence=_engine(session, snapshot).model.min_confidence)
    if not invoked and not CLOSING.fullmatch(snapshot.line_after):
        raise Nothing("there is code right of the cursor")
    place = place_of(snapshot, settings)
    wanted = settings.candidates if invoked else 1
    found = _known(session, snapshot, settings, invoked)
    if len(found) < wanted and invoked:
        found = await _made(session, pending, snapshot, settings, place)
    elif not found:
        found = await _by_itself(session, pending, snapshot, settings, place)
    if settings.look_ahead and _silent(session, snapshot) is None:
        session.requests.spawn(_look_ahead(session, pending, snapshot, found[0], settings))
    return found[:wanted]


async def _by_itself(
    session: Session,
    pending: PendingRequest,
    snapshot: DocumentSnapshot,
    settings: Settings,
    place: Place,
) -> tuple[Suggestion, ...]:
    """What nobody asked for, where it is worth a run: one for all methods that want the same."""
    under_way = session.suggestions.under_way
    if same := under_way.get(place):
        done = await pending.wait(same, pending.left_s)
        if done and not same.cancelled() and not isinstance(same.exception(), DeadlineExceeded):
            return same.result()
        # Else one of the two is held and the other is not.
    mine = under_way[place] = asyncio.get_running_loop().create_future()
    try:
        _must_know(session, snapshot)
        if _around(snapshot).site.at_a_whole_line:
            raise Nothing("the line is complete")
        await _moment(session, pending, snapshot)
        found = await _made(session, pending, snapshot, settings, place)
        _must_know(session, snapshot)  # of which the first run was the first to tell
        mine.set_result(found)
        return found
    except (Nothing, EngineError) as reason:
        if not pending.over.done():  # else it says nothing about the place
            mine.set_exception(reason)
            mine.exception()  # whether or not anybody else waits for it
        raise
    finally:
        mine.cancel()
        if under_way.get(place) is mine:
            del under_way[place]


async def _made(
    session: Session,
    pending: PendingRequest,
    snapshot: DocumentSnapshot,
    settings: Settings,
    place: Place,
) -> tuple[Suggestion, ...]:
    """What a run makes, kept for whoever comes to the place."""
    wanted = settings.candidates if pending.invoked else 1
    fitting = await _run(session, pending, snapshot, settings, wanted)
    session.suggestions.keep(place, fitting.found)
    session.requests.spawn(_keep_more(session, place, fitting, settings))
    return fitting.found


def _engine(session: Session, snapshot: DocumentSnapshot) -> EngineSession:
    return session.engines.of(snapshot.uri, snapshot.language_id)


def _silent(session: Session, snapshot: DocumentSnapshot) -> str | None:
    return _engine(session, snapshot).model.silent(snapshot.language_id)


def _must_know(session: Session, snapshot: DocumentSnapshot) -> None:
    """Raises Nothing in a language that the model has not learned."""
    if (reason := _silent(session, snapshot)) is not None:
        raise Nothing(reason)


async def _moment(session: Session, pending: PendingRequest, snapshot: DocumentSnapshot) -> None:
    """Waits for the moment for a run that nobody asked for. Raises Nothing if this is none."""
    document = session.documents.get(snapshot.uri)
    if document is not None and document.version == snapshot.version:
        reason = document.not_writing(snapshot.text.offset(snapshot.start))
        if reason is not None:
            raise Nothing(reason)
    if wait := session.documents.pace.wait_s(time.monotonic()):
        # A key that comes meanwhile ends the request, and the engine never hears of it.
        await asyncio.wait((pending.over,), timeout=wait)


class _Fitting:
    """What can be shown of several answers. They are looked at one by one and only as far as is
    needed, since each takes a few milliseconds, and some many.

    reasons: why those that were looked at in vain can't be shown.
    """

    def __init__(self, around: Around, settings: Settings, invoked: bool, finished: bool) -> None:
        self._around, self._settings = around, settings
        self._invoked, self._finished = invoked, finished
        self._kept: dict[str, Suggestion] = {}
        self._left: deque[tuple[Other, bool]] = deque()
        self.reasons: list[Nothing] = []

    @property
    def found(self) -> tuple[Suggestion, ...]:
        """Those that can be shown, so far."""
        return tuple(self._kept.values())

    def add(self, answers: Iterable[tuple[Other, bool]]) -> None:
        """Adds answers, each with whether it is whole, to those that are left to look at."""
        self._left.extend(answers)

    def lacks(self, wanted: int) -> bool:
        """Whether fewer than `wanted` are found, and some are left."""
        return len(self._kept) < wanted and bool(self._left)

    def look(self) -> None:
        """Looks at the next answer."""
        answer, whole = self._left.popleft()
        try:
            one = self._polished(answer, whole)
            self._kept.setdefault(one.text, one)
        except Nothing as reason:
            self.reasons.append(reason)

    def _polished(self, answer: Other, whole: bool) -> Suggestion:
        """What is shown of an answer. Raises Nothing if it is not worth it."""
        settings, invoked = self._settings, self._invoked
        reason = doubt(answer.confidence, settings.min_confidence, invoked, self._finished)
        if reason is not None:
            raise Nothing(reason)
        max_lines = None if invoked else settings.max_lines
        text, reason = polish(
            answer.text, self._around, automatic=not invoked, max_lines=max_lines, whole=whole
        )
        if reason is not None:
            raise Nothing(reason)
        return Suggestion(text, answer.confidence)


async def _keep_more(session: Session, place: Place, fitting: _Fitting, settings: Settings) -> None:
    """Has what else was considered at hand, for who types or asks for something else."""
    before = fitting.found
    while fitting.lacks(settings.candidates):
        await asyncio.sleep(0)  # whatever else there is to do comes first
        fitting.look()
    if fitting.found != before:
        session.suggestions.keep(place, fitting.found)


async def _run(
    session: Session,
    pending: PendingRequest,
    snapshot: DocumentSnapshot,
    settings: Settings,
    wanted: int,
) -> _Fitting:
    """What the engine suggests: its answer and what else it considered, the best first.

    Where that is less than what is `wanted`, it is asked again. Raises Nothing or EngineError if
    there is nothing at all.
    """
    most = None if pending.invoked else settings.max_tokens
    request = request_for(session, snapshot, settings, most)
    answer = await _engine(session, snapshot).run(pending, request)
    fitting = _Fitting(_around(snapshot), settings, pending.invoked, answer.finished)
    fitting.add(answer.for_the_hole(automatic=not pending.invoked))
    while fitting.lacks(wanted):
        fitting.look()
    missing = wanted - max(1, len(fitting.found)) if _engine(session, snapshot).model.draws else 0
    if answer.others and settings.min_confidence:
        missing = 0  # how sure the model is of what it was not asked to choose is no measure
    seeds = ((request.seed + number + 1) % 2**63 for number in range(missing))
    warmer = (replace(request, params=WARMER, seed=seed) for seed in seeds)
    runs = (_engine(session, snapshot).run(pending, one) for one in warmer)
    more = [
        one
        for one in await asyncio.gather(*runs, return_exceptions=True)
        if not isinstance(one, BaseException)
    ]
    for one in sorted(more, key=lambda one: one.confidence or 0.0, reverse=True):
        fitting.add(islice(one.for_the_hole(automatic=False), 1))
    while fitting.lacks(wanted):
        fitting.look()
    if not fitting.found:
        raise fitting.reasons[0]
    return fitting


def _around(snapshot: DocumentSnapshot) -> Around:
    return Around(
        window.prefix_of(snapshot),
        window.suffix_of(snapshot),
        snapshot.language_id,
        snapshot.newline,
    )


def _known(
    session: Session, snapshot: DocumentSnapshot, settings: Settings, invoked: bool
) -> tuple[Suggestion, ...]:
    """What is kept for the snapshot's cursor, as far as the settings let it be shown."""
    # Where nothing comes by itself, what was asked for goes on while it is typed, and only then.
    silent = not invoked and _silent(session, snapshot) is not None
    found = session.suggestions.find(place_of(snapshot, settings), least=1 if silent else 0)
    sure = [o for o in found if doubt(o.confidence, settings.min_confidence, invoked) is None]
    if not invoked:  # some of it may have been asked for, without a limit to its lines
        texts = (only_lines(one.text, settings.max_lines) for one in sure)
        sure = [replace(one, text=text) for one, text in zip(sure, texts, strict=True)]
    return tuple(one for one in sure if one.text.strip())


async def _look_ahead(
    session: Session,
    answered: PendingRequest,
    snapshot: DocumentSnapshot,
    shown: Suggestion,
    settings: Settings,
) -> None:
    """Has the engine think of what comes next, as if `shown` were accepted, while nothing else
    waits: who accepts it has the next suggestion at once."""
    accepted = snapshot.typed(snapshot.start, snapshot.start, shown.text)
    if _around(accepted).site.at_a_whole_line:
        return
    place = place_of(accepted, settings)
    if not session.requests.idle_but_for(answered) or session.suggestions.has(place):
        return
    pending = begin_ahead(session, snapshot, settings)
    try:
        run = _run(session, pending, accepted, settings, wanted=1)
        found = (await session.requests.answer(pending, run)).found
    except (Nothing, EngineError):
        if pending.over.done():
            return  # whoever comes to that place asks again
        found = ()  # and so does who comes there by then, but nobody thinks of it again
    session.suggestions.keep(place, found)


def begin_ahead(session: Session, snapshot: DocumentSnapshot, settings: Settings) -> PendingRequest:
    """A request that nobody waits for."""
    budget_ms, now = settings.invoked_budget_ms, time.monotonic()
    return session.requests.begin(snapshot.uri, "ahead", budget_ms, since=now)


def request_for(
    session: Session, snapshot: DocumentSnapshot, settings: Settings, most: int | None
) -> InfillRequest:
    """What the engine is asked for at the cursor: `most` tokens, or as many as the model likes."""
    others = session.neighbours.around(snapshot) if session.neighbours.useful else ()
    return window.fill_request(snapshot, most, settings.seed, others)
