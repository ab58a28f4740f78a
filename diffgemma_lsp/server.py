"""The language server: which method is handled where, and its life on standard input and output.

Importing this loads neither an HTTP client nor anything of torch: `initialize` is answered first,
and the engine's client is made in the background.
"""

# ruff: noqa: E402
from __future__ import annotations

import gc

# The protocol's classes are very many objects that stay. Looking through them again and again while
# they are made would take a quarter of the time until `initialize` is answered.
gc.disable()

import asyncio
import logging
import math
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

from lsprotocol import types
from pygls.exceptions import JsonRpcMethodNotFound
from pygls.lsp.server import LanguageServer

from diffgemma_lsp.features import (
    code_action,
    completion,
    execute_command,
    inline_completion,
    inline_edit,
    notebook_sync,
    refuse_next_edit,
    status,
    text_sync,
)
from diffgemma_lsp.features.configuration import Configuration
from diffgemma_lsp.lsp import log
from diffgemma_lsp.lsp.client import Abilities, Client
from diffgemma_lsp.lsp.positions import to_path
from diffgemma_lsp.lsp.rpc import Protocol, converter
from diffgemma_lsp.lsp.stdio import Stdio
from diffgemma_lsp.session.engine import Engine, MakeEngine
from diffgemma_lsp.session.session import Session
from diffgemma_lsp.session.status import News
from diffgemma_lsp.settings.schema import Settings
from engine.paths import package_version
from engine.program import INTERRUPTED

gc.freeze()
gc.enable()

logger = logging.getLogger(__name__)

# After `exit`, whatever still holds the process up is given this long.
EXIT_S = 2.0
# Within that, what is still to be written to a client that reads slowly.
FLUSH_S = 1.0


# How often it is looked whether the client's process is still there.
WATCH_S = 2.0


def run_stdio(client: int | None = None) -> int:
    """Serves the client on standard input and output until it is done. The exit code.

    client: the process to serve, if that is known before it says so.
    """
    server = build_server()
    server.client_process = client
    return serve(server)


def engine_client(settings: Settings) -> Engine:
    """The client of the engine service, or of the engine on another machine."""
    if settings.engine_url is not None:
        from diffgemma_lsp.remote_engine import RemoteEngine

        return RemoteEngine(settings.engine_url, settings.engine_token_file)
    # Imported here: it brings an HTTP client, which `initialize` need not wait for.
    from diffgemma_lsp.engine_client import EngineClient
    from diffgemma_lsp.engine_process import EngineOptions

    options = EngineOptions(
        model=settings.model,
        device=settings.device,
        idle_unload_s=math.inf if settings.idle_unload_s is None else settings.idle_unload_s,
        idle_exit_s=math.inf if settings.idle_exit_s is None else settings.idle_exit_s,
    )
    return EngineClient(options)


class Server(LanguageServer):
    """pygls's server with this server's protocol, and the session behind it."""

    def __init__(self, make_engine: MakeEngine) -> None:
        super().__init__(  # pyright: ignore[reportUnknownMemberType]
            "diffgemma-lsp",
            package_version(),
            notebook_document_sync=notebook_sync.SYNC,
            protocol_cls=Protocol,
            converter_factory=converter,
        )
        self.rpc = cast(Protocol, self.protocol)
        self.client = Client(self.rpc)
        self.session = Session(make_engine, self.client)
        self.session.requests.arrived = self.rpc.arrived
        warn = partial(self.client.show, types.MessageType.Warning)
        self.configuration = Configuration(self.session, self.rpc.ask, warn)
        self.stopped = asyncio.Event()
        self.client_process: int | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def connected(self, params: types.InitializeParams) -> None:
        """Takes over what `initialize` settles."""
        self._loop = asyncio.get_running_loop()
        self.client.can = Abilities.of(params.capabilities)
        if self.client.can.status:
            self.session.requests.at_change = News(self.session).changed
        if not completion.wanted(params.capabilities):
            # Before pygls makes the list of what is offered from its features.
            cast("dict[str, Any]", self.rpc.fm.features).pop(types.TEXT_DOCUMENT_COMPLETION)
        if not self.client.can.literals:  # it can be told that there are actions, and no more
            cast("dict[str, Any]", self.rpc.fm.feature_options).pop(types.TEXT_DOCUMENT_CODE_ACTION)
        chosen = types.PositionEncodingKind(self.workspace.position_encoding)
        self.session.encoding = chosen.value
        self.configuration.initialize(params)
        self.session.neighbours.folders = self._folders
        self.client_process = params.process_id or self.client_process

    def initialized(self, params: types.InitializedParams) -> None:
        """Begins what needs a client that is ready."""
        logger.info("diffgemma-lsp %s, positions in %s", self.version, self.session.encoding)
        self.configuration.initialized()
        self.session.requests.at_change()

    def cancel_progress(self, params: types.WorkDoneProgressCancelParams) -> None:
        """The user ended a piece of work where its progress is shown."""
        self.client.cancel_progress(params.token)

    def exit(self, params: None) -> None:
        """The client is done."""
        self.stopped.set()

    async def watch_client(self) -> None:
        """Ends the server with its client's process, whoever else may hold the pipe open."""
        watched = None
        while True:
            if (process := self.client_process) is not None and _is_alive(process):
                watched = process  # else it is none of this machine, or of this container
            elif process is not None and process == watched:
                logger.warning("the client's process is gone")
                self.stopped.set()
            await asyncio.sleep(WATCH_S)

    def _folders(self) -> list[Path]:
        uris = self.configuration.folders or [self.workspace.root_uri]
        return [path for uri in uris if uri and (path := to_path(uri)) is not None]

    def log_to_client(self, kind: int, message: str) -> None:
        """Sends a line to the client's log; from any thread, and not before `initialize`."""
        params = types.LogMessageParams(types.MessageType(kind), message)
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.window_log_message, params)

    def report_server_error(self, error: Exception, source: Any) -> None:
        """What pygls reports of its own: logged without the text, which may quote a document."""
        if isinstance(error, JsonRpcMethodNotFound):
            logger.warning("refused: a method that is not known")
        else:
            logger.error("internal error: %s", log.describe(error))


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)  # only asks
    except PermissionError:
        return True  # somebody else's
    except (OSError, OverflowError):
        return False
    return True


def build_server(make_engine: MakeEngine = engine_client) -> Server:
    """A server with everything registered, ready for a transport."""
    server = Server(make_engine)
    session, configuration = server.session, server.configuration

    def unreadable(method: str, params: Any, whole: bool) -> None:
        text_sync.unreadable(session, method, params, whole)
        notebook_sync.unreadable(session, method, params, whole)

    server.rpc.at_unreadable = unreadable
    server.rpc.experimental = {"diffgemma": {"nextEdits": inline_edit.METHOD}}

    def on(method: str, handler: Callable[..., Any], options: Any = None) -> None:
        # A partial, since pygls writes its notes on what it is given.
        server.feature(method, options)(partial(handler))

    def of_session(method: str, handler: Callable[..., Any], options: Any = None) -> None:
        on(method, partial(handler, session), options)

    @server.feature(types.SHUTDOWN)
    async def _(params: None) -> None:
        await session.close()

    on(types.INITIALIZE, server.connected)
    on(types.INITIALIZED, server.initialized)
    on(types.EXIT, server.exit)
    on(types.WORKSPACE_DID_CHANGE_CONFIGURATION, configuration.changed)
    on(types.WORKSPACE_DID_CHANGE_WORKSPACE_FOLDERS, configuration.folders_changed)
    on(types.WINDOW_WORK_DONE_PROGRESS_CANCEL, server.cancel_progress)

    of_session(types.TEXT_DOCUMENT_DID_OPEN, text_sync.did_open)
    of_session(types.TEXT_DOCUMENT_DID_CHANGE, text_sync.did_change)
    of_session(types.TEXT_DOCUMENT_DID_SAVE, text_sync.did_save)
    of_session(types.TEXT_DOCUMENT_DID_CLOSE, text_sync.did_close)
    of_session(types.NOTEBOOK_DOCUMENT_DID_OPEN, notebook_sync.did_open)
    of_session(types.NOTEBOOK_DOCUMENT_DID_CHANGE, notebook_sync.did_change)
    of_session(types.NOTEBOOK_DOCUMENT_DID_SAVE, notebook_sync.did_save)
    of_session(types.NOTEBOOK_DOCUMENT_DID_CLOSE, notebook_sync.did_close)

    # With options, since pygls advertises the method only then. Not asked for by some clients
    # that use it, so it is offered to all.
    inline = types.InlineCompletionOptions()
    of_session(types.TEXT_DOCUMENT_INLINE_COMPLETION, inline_completion.inline_completion, inline)
    entries = types.CompletionOptions()
    of_session(types.TEXT_DOCUMENT_COMPLETION, completion.completion, entries)
    on(types.COMPLETION_ITEM_RESOLVE, completion.resolve)
    actions = types.CodeActionOptions(code_action_kinds=code_action.KINDS, resolve_provider=True)
    of_session(types.TEXT_DOCUMENT_CODE_ACTION, code_action.code_action, actions)
    of_session(types.CODE_ACTION_RESOLVE, code_action.resolve)
    of_session(types.WORKSPACE_EXECUTE_COMMAND, execute_command.execute)
    for name in execute_command.NAMES:
        # For the list that `initialize` answers with; the commands come to the feature above.
        server.command(name)(execute_command.listed)
    of_session(status.METHOD, status.status)
    of_session(inline_edit.METHOD, inline_edit.inline_edit)
    of_session(refuse_next_edit.METHOD, refuse_next_edit.refuse_next_edit)
    for name in inline_edit.UNHEARD:
        on(name, inline_edit.unheard)
    return server


def serve(server: Server) -> int:
    """Serves standard input and output. 0 after `shutdown`, 1 if the client just left."""
    log.set_up(server.log_to_client)
    try:
        return asyncio.run(_serve(server))
    except KeyboardInterrupt:
        return INTERRUPTED


async def _serve(server: Server) -> int:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(log.unhandled)
    stdio = Stdio(loop, at_end=server.stopped.set)
    server.rpc.set_writer(stdio)
    stdio.read(server.rpc.receive)
    server.session.requests.spawn(server.watch_client())
    await server.stopped.wait()
    code = 0 if server.rpc.was_shut_down else 1
    # An editor that is closed must not leave a process behind, whatever hangs.
    timer = threading.Timer(EXIT_S, os._exit, [code])
    timer.daemon = True
    timer.start()
    await server.session.close()
    stdio.flush(FLUSH_S)
    return code
