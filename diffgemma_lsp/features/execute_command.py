"""workspace/executeCommand: the orders of code actions with arguments, and the engine's memory.

A command's argument is an order (actions/order.py). Its result says what came of it: {applied,
message, edit, fillings, confidence, seed, strength, finished}; with `apply: false` the edit is only
handed back, for an editor that shows it first.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

from lsprotocol import types

from diffgemma_lsp.actions.kinds import KINDS
from diffgemma_lsp.actions.order import COMMAND, BadOrder, document_of, order_from_json
from diffgemma_lsp.actions.run import Work, carry_out
from diffgemma_lsp.session.requests import Nothing
from diffgemma_lsp.session.session import Session
from engine.errors import EngineError

METHOD = types.WORKSPACE_EXECUTE_COMMAND

_UNLOAD = COMMAND + "unload"

NAMES = (*(COMMAND + name for name in KINDS), _UNLOAD)

_TRIES = 3
"""So often an edit is made anew when the document changed while it was on its way."""

Result = dict[str, Any]


def listed(*arguments: Any) -> None:
    """Stands for a command in the server's list of commands."""


def execute(session: Session, params: types.ExecuteCommandParams) -> asyncio.Task[Result]:
    """Takes the snapshot at once; the rest is the task."""
    if params.command == _UNLOAD:
        return session.requests.keep(_unload(session))
    arguments = params.arguments or [None]
    try:
        if params.command not in NAMES:
            raise BadOrder(f"there is no command {params.command}; there are {', '.join(NAMES)}")
        order = order_from_json(arguments[0], params.command.removeprefix(COMMAND))
        work = Work(session, order)
    except (BadOrder, Nothing) as reason:
        session.outcomes.tell(document_of(arguments[0]), METHOD, str(reason))
        return session.requests.keep(_failed(str(reason)))
    return session.requests.answer(work.pending, _carried_out(work, params.work_done_token))


async def _carried_out(work: Work, token: types.ProgressToken | None) -> Result:
    session, uri = work.session, work.order.uri
    try:
        # A model that is still being loaded says itself what it can't do.
        engine = session.engine_of(uri)
        if work.order.needs not in await engine.abilities() and engine.model.known:
            raise Nothing("this model does not follow instructions")
        outcome = await carry_out(work, token)
        edit = None if work.order.apply else work.edit()
        if work.order.apply:
            await _apply(work)
    except Nothing as reason:
        session.outcomes.tell(uri, METHOD, str(reason))
        return await _failed(str(reason))
    except EngineError as error:
        session.engine_of(uri).trouble.report(error, invoked=True)
        session.outcomes.came_to(uri, METHOD, str(error))
        return await _failed(str(error))
    session.outcomes.came_to(uri, METHOD, None)
    return {"applied": work.order.apply, "message": None, "edit": edit, **asdict(outcome)}


async def _apply(work: Work) -> None:
    """Has the edit applied; anew if the document changed while it was on its way."""
    session, uri = work.session, work.order.uri
    for _ in range(_TRIES):
        version = session.documents.version(uri)
        failure = await session.client.apply(work.order.kind.title, work.edit())
        if session.documents.version(uri) == version:
            if failure is None:
                return
            raise Nothing(failure)
        # Some editors skip an edit of another version and say that they applied it.
        if failure is None and work.place_changed:
            return
    raise Nothing("the document keeps changing: try again")


async def _failed(message: str) -> Result:
    return {"applied": False, "message": message, "edit": None}


async def _unload(session: Session) -> Result:
    try:
        freed = await session.engines.unload()
    except EngineError as error:
        session.engines.default.trouble.report(error, invoked=True)
        return await _failed(str(error))
    return {"applied": True, "message": None if freed else "no engine is running", "edit": None}
