"""textDocument/codeAction and codeAction/resolve: what can be done here, and the edit of one.

Editors ask for actions at every move of the cursor, so the first never runs the model: it only says
what fits the place and the model. The edit is made when an action is chosen; where the client can't
ask for it then, the action carries a command that does the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace

from lsprotocol import types

from diffgemma_lsp import plans, proto
from diffgemma_lsp.orders import COMMAND, BadOrder, Order, order_from_json
from diffgemma_lsp.orders import KINDS as ORDERS
from diffgemma_lsp.perform import Work, carry_out
from diffgemma_lsp.session import Nothing, Session
from diffgemma_lsp.snapshot import DocumentSnapshot
from engine.errors import EngineError

Actions = list[types.CodeAction]

KINDS = [kind.lsp for kind in ORDERS.values()]


def code_action(session: Session, params: types.CodeActionParams) -> asyncio.Task[Actions]:
    """Takes the snapshot at once, while the document is the one that the client means."""
    snapshot = None
    if (document := session.documents.get(params.text_document.uri)) is not None:
        points = proto.to_points(document.text, params.range, session.encoding)
        snapshot = session.snapshot(document, *points)
    return session.spawn(_answer(session, params, snapshot))


async def _answer(
    session: Session, params: types.CodeActionParams, snapshot: DocumentSnapshot | None
) -> Actions:
    if snapshot is None or session.off(snapshot.uri, snapshot.language_id) is not None:
        return []
    can = await session.abilities()
    return [
        _action(session, order, diagnostic)
        for order, diagnostic in _orders(session, params, snapshot)
        if order.needs in can and _is_wanted(order.kind.lsp, params.context.only)
    ]


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
    # What has no trigger comes from a client that only asks when its user does.
    automatic = params.context.trigger_kind == types.CodeActionTriggerKind.Automatic
    if snapshot.start == snapshot.end and automatic:
        return
    settings = session.settings_for(snapshot.uri, snapshot.language_id)
    for name in plans.fitting(snapshot, settings):
        yield replace(here, kind=ORDERS[name]), None


def _is_wanted(kind: str, only: Sequence[str] | None) -> bool:
    return only is None or any(kind == one or kind.startswith(f"{one}.") for one in only)


def _action(
    session: Session, order: Order, diagnostic: types.Diagnostic | None
) -> types.CodeAction:
    title = order.kind.title
    if diagnostic is not None:
        title = f"{title}: {_short(str(diagnostic.message))}"
    action = types.CodeAction(
        title, order.kind.lsp, diagnostics=[diagnostic] if diagnostic is not None else None
    )
    if session.client.can.resolves:
        action.data = order.to_json()
    else:
        name = COMMAND + order.kind.name
        action.command = types.Command(title, name, arguments=[order.to_json()])
    return action


def _short(message: str) -> str:
    line = " ".join(message.split())
    return line if len(line) <= 80 else f"{line[:79]}…"


def resolve(
    session: Session, action: types.CodeAction, arrived: float
) -> asyncio.Task[types.CodeAction]:
    """Runs the model and completes the action with its edit.

    Where there is none, the user is told why, and the action comes back as it was: an error in its
    place would be shown by some editors as a fault of the server, and by some not at all.
    """
    try:
        work = Work(session, order_from_json(action.data), arrived)
    except (BadOrder, Nothing) as reason:
        session.tell(str(reason))
        return session.spawn(_unchanged(action))
    return session.answer(work.flight, _resolved(work, action))


async def _unchanged(action: types.CodeAction) -> types.CodeAction:
    return action


async def _resolved(work: Work, action: types.CodeAction) -> types.CodeAction:
    try:
        await carry_out(work)
        action.edit = work.edit()
    except Nothing as reason:
        work.session.tell(str(reason))
    except EngineError as error:
        work.session.report(error, invoked=True)
    return action
