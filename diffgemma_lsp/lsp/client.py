"""The editor as seen from here: what it can do, and what is sent to it without being asked.

Of what a client says of itself, only what changes the server's behaviour is kept.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard, cast

from lsprotocol import types

from engine.types import Frame

logger = logging.getLogger(__name__)

FRAME = "diffgemma/frame"
"""The notification that shows a run as it settles."""

STATUS = "diffgemma/didChangeStatus"
"""The notification that says how the server is doing, whenever that changes."""

ANSWER_S = 10.0
"""For so long a client may take to answer a request of the server."""


class Wire(Protocol):
    """What is used of the connection."""

    def notify(self, method: str, params: Any = None) -> None: ...

    async def ask(self, method: str, params: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class Abilities:
    """What the client can do.

    literals: it takes actions that are more than a command. resolves: it hands an action back as
    it is when it is chosen, to ask for its edit. as_is: it puts an entry's lines in as they are if
    told so. adjusts: else it indents them like the first one. versions: it takes edits that say for
    which version they are. progress: it shows progress that the server begins. applies: it changes
    documents when the server asks it to. frames, status: it wants to see runs as they settle, and
    to be told how the server is doing (`experimental.diffgemma.frames`,
    `experimental.diffgemma.status`).
    """

    literals: bool = False
    resolves: bool = False
    as_is: bool = False
    adjusts: bool = False
    versions: bool = False
    progress: bool = False
    applies: bool = False
    frames: bool = False
    status: bool = False

    @classmethod
    def of(cls, capabilities: types.ClientCapabilities) -> Abilities:
        """Reads the capabilities of `initialize`."""
        document, workspace = capabilities.text_document, capabilities.workspace
        action = document.code_action if document else None
        literals = action is not None and action.code_action_literal_support is not None
        resolve = action.resolve_support if action and literals and action.data_support else None
        modes, default = _insert_text_modes(document.completion if document else None)
        edits = workspace.workspace_edit if workspace else None
        own = member(capabilities.experimental, "diffgemma")
        return cls(
            literals=literals,
            as_is=types.InsertTextMode.AsIs in modes,
            adjusts=types.InsertTextMode.AdjustIndentation in (*modes, default),
            resolves=resolve is not None and "edit" in resolve.properties,
            versions=bool(edits and edits.document_changes),
            progress=bool(capabilities.window and capabilities.window.work_done_progress),
            applies=bool(workspace and workspace.apply_edit),
            frames=member(own, "frames") is True,
            status=member(own, "status") is True,
        )


def _insert_text_modes(
    completion: types.CompletionClientCapabilities | None,
) -> tuple[Sequence[types.InsertTextMode], types.InsertTextMode | None]:
    """The ways to put an entry in that can be asked for, and the one that is meant otherwise."""
    item = completion.completion_item if completion else None
    said = item.insert_text_mode_support if item else None
    return said.value_set if said else (), completion.insert_text_mode if completion else None


def member(value: object, name: str) -> object:
    """A member of JSON that has no type: a dict or, from pygls, an object. None if it lacks it."""
    if isinstance(value, dict):
        return cast("dict[str, object]", value).get(name)
    return getattr(value, name, None)


def _is_token(value: object) -> TypeGuard[types.ProgressToken]:
    # lsprotocol lets anything pass that clients send as one.
    return isinstance(value, int | str)


class Client:
    """The connection to one client, and what it can do."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.can = Abilities()
        self._numbers = itertools.count(1)
        self._shown: dict[types.ProgressToken, WorkDone] = {}

    def show(self, kind: types.MessageType, message: str) -> None:
        """Shows a message to the user."""
        params = types.ShowMessageParams(kind, f"diffgemma-lsp: {message}")
        self.wire.notify(types.WINDOW_SHOW_MESSAGE, params)

    def frame(self, params: dict[str, Any]) -> None:
        """Shows a run as it is, if the client wants to see that."""
        if self.can.frames:
            self.wire.notify(FRAME, params)

    def status(self, params: dict[str, Any]) -> None:
        """Says how the server is doing, if the client wants to be told."""
        if self.can.status:
            self.wire.notify(STATUS, params)

    async def apply(self, label: str, edit: types.WorkspaceEdit) -> str | None:
        """Has the client apply an edit. Returns why it did not, or None if it did."""
        if not self.can.applies:
            return "this editor does not let a server change documents"
        params = types.ApplyWorkspaceEditParams(edit, label)
        try:
            result = await self._ask(types.WORKSPACE_APPLY_EDIT, params)
        except Exception as error:
            return f"the editor refused the edit ({type(error).__name__})"
        if result is None:
            return "the editor did not say whether it applied the edit"
        if result.applied:
            return None
        return result.failure_reason or "the editor did not apply the edit"

    async def begin_progress(
        self, token: types.ProgressToken | None, title: str, cancel: Callable[[], None]
    ) -> WorkDone | None:
        """Begins to show progress: at the client's own token, else at one of the server's.

        None where the client shows no progress. cancel: called if the user ends the work.
        """
        if not _is_token(token):
            if not self.can.progress:
                return None
            token = f"diffgemma/{next(self._numbers)}"
            try:
                params = types.WorkDoneProgressCreateParams(token)
                await self._ask(types.WINDOW_WORK_DONE_PROGRESS_CREATE, params)
            except Exception as error:
                logger.debug("the client shows no progress: %s", type(error).__name__)
                return None
        self._shown[token] = done = WorkDone(self.wire, token, title, cancel)
        done.at_end = lambda: self._shown.pop(token, None)
        return done

    def cancel_progress(self, token: types.ProgressToken) -> None:
        """The user ended a piece of work where its progress is shown."""
        if _is_token(token) and token in self._shown:
            self._shown[token].cancel()

    async def _ask(self, method: str, params: Any) -> Any:
        """Sends a request and waits for its answer, but not forever."""
        return await asyncio.wait_for(self.wire.ask(method, params), ANSWER_S)


class WorkDone:
    """One piece of work whose progress the client shows."""

    def __init__(
        self, wire: Wire, token: types.ProgressToken, title: str, cancel: Callable[[], None]
    ) -> None:
        self._wire, self._token = wire, token
        self.cancel = cancel
        self.at_end: Callable[[], object] = lambda: None
        self._say(types.WorkDoneProgressBegin(title=title, cancellable=True, percentage=0))

    def report(self, frame: Frame) -> None:
        """The work has come so far."""
        share = min(100, 100 * frame.step // max(1, frame.planned))
        self._say(
            types.WorkDoneProgressReport(cancellable=True, message=frame.progress, percentage=share)
        )

    def end(self, message: str | None = None) -> None:
        """The work is over."""
        self.at_end()
        self._say(types.WorkDoneProgressEnd(message=message))

    def _say(self, value: Any) -> None:
        self._wire.notify(types.PROGRESS, types.ProgressParams(self._token, value))
