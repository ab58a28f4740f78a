"""textDocument/codeAction and codeAction/resolve: what can be done here, and the edit of one.

Editors ask for actions at every move of the cursor, so the first is answered without the model: it
only says what fits the place and the model. The edit is made when an action is chosen; where the
client can't ask for it then, the action carries a command that does the same, or is that command.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace

from lsprotocol import types

from diffgemma_lsp.actions import plan
from diffgemma_lsp.actions.kinds import KINDS as ORDERS
from diffgemma_lsp.actions.order import COMMAND, BadOrder, Order, document_of, order_from_json
from diffgemma_lsp.actions.run import Work, carry_out
from diffgemma_lsp.lsp import positions
from diffgemma_lsp.session.requests import Nothing
from diffgemma_lsp.session.session import Session
from diffgemma_lsp.suggest.read_ahead import read_ahead
from diffgemma_lsp.text.snapshot import DocumentSnapshot, snapshot_of

Actions = list[types.CodeAction | types.Command]

KINDS = [kind.lsp for kind in ORDERS.values()]


def code_action(session: Session, params: types.CodeActionParams) -> asyncio.Task[Actions]:
    """Takes the snapshot at once, while the document is the one that the client means."""
    snapshot = None
    if (document := session.documents.get(params.text_document.uri)) is not None:
        points = positions.to_points(document.text, params.range, session.encoding)
        snapshot = snapshot_of(session.documents, document, *points)
        if _has_moved(params, snapshot):
            session.requests.spawn(read_ahead(session, snapshot))
    return session.requests.keep(_answer(session, params, snapshot))


async def _answer(
    session: Session, params: types.CodeActionParams, snapshot: DocumentSnapshot | None
) -> Actions:
    uri, reason = params.text_document.uri, None
    actions: Actions = []
    try:
        actions = await _actions(session, params, snapshot)
    except Nothing as nothing:
        reason = str(nothing)
    # Of this document alone: who is asked at every move of the cursor must not hide why there was
    # no suggestion.
    session.outcomes.note(uri, types.TEXT_DOCUMENT_CODE_ACTION, reason)
    return actions


async def _actions(
    session: Session, params: types.CodeActionParams, snapshot: DocumentSnapshot | None
) -> Actions:
    """What there is to do, at least one thing. Raises Nothing."""
    if snapshot is None:
        raise Nothing("the document is not open")
    if (reason := session.settings.off(snapshot.uri, snapshot.language_id)) is not None:
        raise Nothing(reason)
    fitting = list(_orders(session, params, snapshot))
    if not fitting:
        raise Nothing("nothing to fill, rewrite or add here (a cursor that moves is offered none)")
    only = params.context.only
    wanted = [(order, about) for order, about in fitting if _is_wanted(order.kind.lsp, only)]
    if not wanted:
        raise Nothing(f"there is nothing here of the kind that was asked for: {only}")
    can = await session.engine_of(snapshot.uri).abilities()
    possible = [(order, about) for order, about in wanted if order.needs in can]
    if not possible:
        raise Nothing("this model does not follow instructions")
    return [_action(session, order, about) for order, about in possible]


def _orders(
    session: Session, params: types.CodeActionParams, snapshot: DocumentSnapshot
) -> Iterator[tuple[Order, types.Diagnostic | None]]:
    """What fits the place, each with the diagnostic that it is about, if there is one."""
    here = Order(ORDERS["fill"], snapshot.uri, snapshot.version, params.range)
    for diagnostic in params.context.diagnostics:
        order = replace(
            here, kind=ORDERS["fix"], range=diagnostic.range, instruction=str(diagnostic.message)
        )
        yield order, diagnostic
    if _has_moved(params, snapshot):
        return
    settings = session.settings.for_document(snapshot.uri, snapshot.language_id)
    for name in plan.possible(snapshot, settings):
        yield replace(here, kind=ORDERS[name]), None


def _has_moved(params: types.CodeActionParams, snapshot: DocumentSnapshot) -> bool:
    """Whether nothing was asked for: a cursor is somewhere else, and nothing is selected."""
    # What has no trigger comes from a client that only asks when its user does.
    automatic = params.context.trigger_kind == types.CodeActionTriggerKind.Automatic
    return automatic and snapshot.start == snapshot.end


def _is_wanted(kind: str, only: Sequence[str] | None) -> bool:
    # "" is the kind of all kinds.
    return only is None or any(not one or f"{kind}.".startswith(f"{one}.") for one in only)


def _action(
    session: Session, order: Order, diagnostic: types.Diagnostic | None
) -> types.CodeAction | types.Command:
    title = order.kind.title
    if diagnostic is not None:
        title = f"{title}: {_short(str(diagnostic.message))}"
    command = types.Command(title, COMMAND + order.kind.name, arguments=[order.to_json()])
    if not session.client.can.literals:
        return command
    action = types.CodeAction(
        title, order.kind.lsp, diagnostics=[diagnostic] if diagnostic is not None else None
    )
    if session.client.can.resolves:
        action.data = order.to_json()
    else:
        action.command = command
    return action


def _short(message: str) -> str:
    line = " ".join(message.split())
    return line if len(line) <= 80 else f"{line[:79]}…"


def resolve(session: Session, action: types.CodeAction) -> asyncio.Task[types.CodeAction]:
    """Runs the model and completes the action with its edit.

    Where there is none, the user is told why, and the action comes back as it was: an error in its
    place would be shown by some editors as a fault of the server, and by some not at all. So does
    an action without data, which has nothing to complete.
    """
    if action.data is None:
        return session.requests.keep(_unchanged(action))
    try:
        work = Work(session, order_from_json(action.data))
    except (BadOrder, Nothing) as reason:
        session.outcomes.tell(document_of(action.data), types.CODE_ACTION_RESOLVE, str(reason))
        return session.requests.keep(_unchanged(action))
    return session.requests.answer(work.pending, _resolved(work, action))


async def _unchanged(action: types.CodeAction) -> types.CodeAction:
    return action


async def _resolved(work: Work, action: types.CodeAction) -> types.CodeAction:
    with work.session.outcomes.account(
        work.order.uri, types.CODE_ACTION_RESOLVE, asked=True, tell=True
    ):
        await carry_out(work)
        action.edit = work.edit()
    return action
