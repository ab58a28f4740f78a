"""workspace/didChangeConfiguration and workspace/configuration: what the user wants by now.

A client has up to three ways to say it: initializationOptions, a push with didChangeConfiguration,
and an answer when it is asked ("pull"). VS Code answers, and pushes null when something changed;
Neovim and eglot push and answer; Helix does all three. `settings/effective.py` lays them
over one another.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from lsprotocol import types
from pygls.exceptions import JsonRpcException

from diffgemma_lsp.session.session import Session
from diffgemma_lsp.settings.sources import SECTION

logger = logging.getLogger(__name__)

Ask = Callable[[str, object], Awaitable[Any]]
"""Sends the client a request; its answer, or JsonRpcException. It may never come."""

# How long suggestions and the engine's warm-up wait for the client to answer: it may say that none
# is wanted.
ANSWER_S = 2.0
# More complaints than these don't fit a message.
_SHOWN = 8


class Configuration:
    """Where a session's settings come from."""

    def __init__(self, session: Session, ask: Ask, warn: Callable[[str], None]) -> None:
        self._session = session
        self._ask = ask
        self._warn = warn
        self._pulls = self._registers = False
        self._folders: list[str] = []
        self._pulling: asyncio.Task[None] | None = None
        self._told: set[str] = set()

    # ---- what the client says ----

    def initialize(self, params: types.InitializeParams) -> None:
        """Takes the initializationOptions, and what the client can do."""
        asyncio.get_running_loop().call_later(ANSWER_S, self._session.settings.known.set)
        self._session.settings.initialize(params.initialization_options)
        self._folders = [folder.uri for folder in params.workspace_folders or ()]
        if (workspace := params.capabilities.workspace) is not None:
            self._pulls = bool(workspace.configuration)
            changes = workspace.did_change_configuration
            self._registers = changes is not None and bool(changes.dynamic_registration)

    def initialized(self) -> None:
        """Asks the client, and has the engine warmed up when it is known whether to."""
        self._tell()
        if self._registers:
            self._session.requests.spawn(self._register())
        self._pull()
        self._session.requests.spawn(self._begin())

    def changed(self, params: types.DidChangeConfigurationParams) -> None:
        """Takes what was pushed, and asks the client. null is all that those push who answer."""
        if params.settings is not None or not self._pulls:
            self._session.settings.push(params.settings)
            self._apply()
        self._pull()

    @property
    def folders(self) -> list[str]:
        """The URIs of the workspace folders."""
        return self._folders

    def folders_changed(self, params: types.DidChangeWorkspaceFoldersParams) -> None:
        """Asks the client anew: each folder can have settings of its own."""
        removed = {folder.uri for folder in params.event.removed}
        added = [folder.uri for folder in params.event.added]
        kept = [uri for uri in self._folders if uri not in removed]
        self._folders = list(dict.fromkeys(kept + added))
        self._pull()

    # ---- asking the client ----

    async def _register(self) -> None:
        """Has the client tell of changes. Some do so only then."""
        options = types.DidChangeConfigurationRegistrationOptions(SECTION)
        method = types.WORKSPACE_DID_CHANGE_CONFIGURATION
        registration = types.Registration(f"{SECTION}-settings", method, options)
        try:
            await self._ask(
                types.CLIENT_REGISTER_CAPABILITY, types.RegistrationParams([registration])
            )
        except JsonRpcException as error:
            logger.warning("the client will not tell of changed settings: error %s", error.code)

    def _pull(self) -> None:
        if not self._pulls:
            self._session.settings.known.set()
            return
        if self._pulling is not None:
            self._pulling.cancel()  # its answer, if one comes at all, would be out of date
        self._pulling = self._session.requests.spawn(self._ask_settings())

    async def _ask_settings(self) -> None:
        folders = self._folders
        scopes = [None, *folders]
        items = [types.ConfigurationItem(scope, SECTION) for scope in scopes]
        try:
            answer = await self._ask(
                types.WORKSPACE_CONFIGURATION, types.ConfigurationParams(items)
            )
        except JsonRpcException as error:
            logger.warning("the client did not say its settings: error %s", error.code)
        else:
            self._take(answer, folders)
        self._session.settings.known.set()

    def _take(self, answer: object, folders: list[str]) -> None:
        parts = list(cast("Sequence[object]", answer)) if isinstance(answer, list | tuple) else []
        if len(parts) != 1 + len(folders):
            logger.warning("the client did not say its settings: its answer makes no sense")
            return
        self._session.settings.pull(parts[0], dict(zip(folders, parts[1:], strict=True)))
        self._apply()

    # ---- what follows from it ----

    def _apply(self) -> None:
        self._tell()
        self._session.end_unwanted()
        self._session.requests.at_change()
        self._session.warm_up.consider(self._session.documents.all)

    def _tell(self) -> None:
        """Tells the user what is wrong, once as long as it is."""
        complaints = self._session.settings.complaints
        new = [complaint for complaint in complaints if complaint not in self._told]
        self._told = set(complaints)
        for complaint in new:
            logger.warning("%s", complaint)
        if len(new) > _SHOWN:
            new[_SHOWN:] = [f"and {len(new) - _SHOWN} more in the log"]
        if new:
            self._warn("; ".join(new))

    async def _begin(self) -> None:
        await self._session.settings.known.wait()
        await self._session.warm_up.allow()
