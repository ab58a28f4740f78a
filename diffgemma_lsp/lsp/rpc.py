"""JSON-RPC as this server wants it: every request gets exactly one answer, whatever it looks like.

A subclass of pygls's protocol. What it changes, and why:

- pygls 2.1.1 does not answer a request whose parameters are wrong, nor one after `shutdown`, and
  it serves requests before `initialize`. Here each of them gets the error that LSP names for it.
- A handler may do its first part at once and return a task for the rest. pygls starts a coroutine
  some time later, when newer messages may already have changed the document.
- pygls's own store of documents is left out: it splits lines where LSP doesn't, and builds the
  whole text anew at each change.
- pygls logs whole messages, and an exception's text may quote one. Neither happens here (log.py).
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import time
import uuid
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, cast

from cattrs import Converter
from lsprotocol import types
from pygls.exceptions import JsonRpcException
from pygls.protocol import LanguageServerProtocol, default_converter

from diffgemma_lsp.lsp.log import describe
from diffgemma_lsp.lsp.mending import DEEPEST, depth, finite, mended, no_json, whole_part
from diffgemma_lsp.lsp.stdio import LONGEST, TooLong

logger = logging.getLogger(__name__)

_OWN = (
    types.TEXT_DOCUMENT_DID_OPEN,
    types.TEXT_DOCUMENT_DID_CHANGE,
    types.TEXT_DOCUMENT_DID_CLOSE,
    types.NOTEBOOK_DOCUMENT_DID_OPEN,
    types.NOTEBOOK_DOCUMENT_DID_CHANGE,
    types.NOTEBOOK_DOCUMENT_DID_CLOSE,
    types.WORKSPACE_EXECUTE_COMMAND,
    types.WINDOW_WORK_DONE_PROGRESS_CANCEL,
    types.WORKSPACE_DID_CHANGE_WORKSPACE_FOLDERS,
    types.SHUTDOWN,
    types.EXIT,
)
"""What pygls handles by itself and this server handles in its own way."""

_MOST_GIVEN_UP = 64
"""Of so many requests for whose answers nobody waits any more it is known that they were asked."""

Codes = types.ErrorCodes


class Protocol(LanguageServerProtocol):
    """The protocol of one client. `receive` takes each message as it came."""

    experimental: dict[str, Any] | None = None
    """What is offered beyond the standard, as `initialize` tells it."""

    _capabilities = types.ServerCapabilities()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._arrived = 0.0
        self._given_up: deque[str] = deque(maxlen=_MOST_GIVEN_UP)
        self.at_unreadable: Callable[[str, Any, bool], None] = lambda method, params, whole: None
        """Told of a notification that is ignored: its method ("" if that can't be known), its
        parameters, and whether these are here as a whole."""
        builtin = cast("dict[str, Any]", self.fm.builtin_features)  # pyright: ignore
        for method in _OWN:
            del builtin[method]

    @property
    def server_capabilities(self) -> types.ServerCapabilities:
        """What `initialize` answers, with what is offered beyond the standard."""
        return self._capabilities

    @server_capabilities.setter
    def server_capabilities(self, made: types.ServerCapabilities) -> None:
        self._capabilities = made
        made.experimental = self.experimental

    @property
    def _initialized(self) -> bool:
        return self._workspace is not None

    def arrived(self) -> float:
        """When the message that is being dispatched arrived, by time.monotonic()."""
        return self._arrived

    @property
    def was_shut_down(self) -> bool:
        """Whether the client asked for `shutdown`."""
        return self._shutdown

    async def ask(self, method: str, params: object) -> Any:
        """The client's answer to a request. Raises JsonRpcException if that is an error.

        It may never come, so whoever asks must expect to be cancelled. The request is forgotten
        then: pygls 2.1.1 keeps it, and fails on an answer that comes after all (its issue 621).
        """
        id = str(uuid.uuid4())
        try:
            return await self.send_request_async(method, params, id)
        except asyncio.CancelledError:
            self._given_up.append(id)
            raise
        finally:
            self._request_futures.pop(id, None)
            self._result_types.pop(id, None)

    def receive(self, body: bytes | TooLong, arrived: float | None = None) -> None:
        """Handles one message."""
        self._arrived = time.monotonic() if arrived is None else arrived
        if isinstance(body, TooLong):
            self._receive_too_long(body)
            return
        try:
            raw: object = json.loads(body, parse_constant=no_json, parse_float=finite)
        except (ValueError, RecursionError):
            self._refuse(None, Codes.ParseError, "the message is not JSON")
            return
        data = cast("dict[str, Any]", raw) if isinstance(raw, dict) else {}
        method, id = data.get("method"), data.get("id")
        if "id" in data and "method" not in data:
            self._receive_answer(_usable(id), data)
        elif not isinstance(method, str) or data.get("jsonrpc") != self.VERSION:
            self._refuse(_usable(id), Codes.InvalidRequest, "that is not a JSON-RPC 2.0 message")
        elif body.count(b"{") + body.count(b"[") > DEEPEST and depth(data) > DEEPEST:
            self._too_deep(method, data)
        elif "id" in data:
            self._receive_request(method, id, data)
        else:
            self._receive_notification(method, data)

    def _receive_answer(self, id: str | int | None, data: dict[str, Any]) -> None:
        # pygls keeps the type of the answer to each request that it sent.
        known = id is not None and id in self._result_types
        waiting = self._request_futures.get(id) if id is not None and known else None
        if id in self._given_up:
            logger.debug("an answer came too late")
        elif id is None or waiting is None or waiting.done():
            logger.warning("an answer that nobody waits for was ignored")
        elif (message := self._structured(data)) is not None:
            self.handle_message(message)
        else:
            # Whoever waits need not go on: there will be no other answer.
            error = types.ResponseError(Codes.InvalidRequest.value, "nobody can read the answer")
            self._handle_response(id, error=error)

    def _receive_request(self, method: str, id: object, data: dict[str, Any]) -> None:
        if (usable := _usable(id)) is None:
            self._refuse(None, Codes.InvalidRequest, f"{method}: an id is a number or a text")
        elif _is_notification(method):
            self._refuse(usable, Codes.InvalidRequest, f"{method}: a notification has no id")
        elif usable in self._request_futures:
            self._refuse(usable, Codes.InvalidRequest, f"{method}: this id is still in use")
        elif self._shutdown:
            self._refuse(usable, Codes.InvalidRequest, f"{method}: the server was shut down")
        elif (method == types.INITIALIZE) == self._initialized:
            code = Codes.InvalidRequest if self._initialized else Codes.ServerNotInitialized
            self._refuse(usable, code, f"{method}: initialize comes first, and once")
        elif not self._dispatch(data):
            self._refuse(usable, Codes.InvalidParams, f"{method}: the parameters are wrong")
        elif method == types.SHUTDOWN:
            self._shutdown = True  # from here on, and not only when all is done

    def _receive_notification(self, method: str, data: dict[str, Any]) -> None:
        if method != types.EXIT and (self._shutdown or not self._initialized):
            logger.warning("%s ignored: not between initialize and shutdown", method)
        elif not self._dispatch(data):
            logger.warning("%s ignored: the parameters are wrong", method)
            self.at_unreadable(method, data.get("params"), True)

    def _receive_too_long(self, message: TooLong) -> None:
        data = whole_part(message.head)
        method, id = str(data.get("method", "")), _usable(data.get("id"))
        what = f"{method or 'a message'}: {message.length:,} bytes, and the most are {LONGEST:,}"
        if id is not None and id in self._result_types:
            self._receive_answer(id, {"id": id})  # which nobody can read
        elif id is not None:
            self._refuse(id, Codes.InvalidRequest, what)
        else:
            logger.warning("ignored: %s", what)
            self.at_unreadable(method, data.get("params"), False)

    def _too_deep(self, method: str, data: dict[str, Any]) -> None:
        if "id" in data:
            why = f"{method}: nested deeper than {DEEPEST} levels"
            self._refuse(_usable(data["id"]), Codes.InvalidRequest, why)
        else:
            logger.warning("%s ignored: nested deeper than %d levels", method, DEEPEST)
            self.at_unreadable(method, data.get("params"), True)

    def _dispatch(self, data: dict[str, Any]) -> bool:
        """Handles a message; False if its parameters are not what its method takes."""
        data.setdefault("params", None)
        message: Any = self._structured(data) or self._structured(mended(data, self._converter))
        if message is not None:
            self.handle_message(message)
        return message is not None

    def _structured(self, data: dict[str, Any]) -> Any:
        try:
            return self.structure_message(data)
        except (JsonRpcException, RecursionError):
            return None

    def _refuse(self, id: str | int | None, code: types.ErrorCodes, message: str) -> None:
        logger.warning("refused: %s", message)
        # Not lsprotocol's message, which leaves an id of null out.
        error = {"code": code.value, "message": message}
        self._send_data({"jsonrpc": self.VERSION, "id": id, "error": error})

    def _handle_cancel_notification(self, msg_id: Any) -> None:
        # pygls looks it up as it is, and among the server's own requests too.
        if _usable(msg_id) is not None and msg_id not in self._result_types:
            super()._handle_cancel_notification(msg_id)

    # ---- how pygls runs handlers ----

    def _execute_handler(
        self,
        msg_id: str | int,
        handler: Callable[..., Any],
        callback: Callable[[Any], None],
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
    ) -> None:
        def done(future: Any) -> None:
            # pygls forgets the future of a request, but never that of a notification.
            self._request_futures.pop(msg_id, None)
            callback(future)

        args, kwargs = args or (), kwargs or {}
        if inspect.iscoroutinefunction(handler) or inspect.isgeneratorfunction(handler):
            super()._execute_handler(msg_id, handler, done, args, kwargs)
            return
        future: Future[Any] = Future()
        try:
            result = handler(*args, **kwargs)
        except Exception as error:
            future.set_exception(error)
        else:
            if isinstance(result, asyncio.Task):
                task = cast("asyncio.Task[Any]", result)
                self._request_futures[msg_id] = cast("Future[Any]", task)
                task.add_done_callback(done)
                return
            future.set_result(result)
        done(future)

    def _send_handler_result(self, future: Future[Any], *, msg_id: str | int) -> None:
        error = None if future.cancelled() else future.exception()
        if error is None or isinstance(error, JsonRpcException):
            super()._send_handler_result(future, msg_id=msg_id)
        else:
            self._refuse(msg_id, Codes.InternalError, f"internal error: {describe(error)}")

    def _check_handler_result(self, future: Future[Any]) -> None:
        error = None if future.cancelled() else future.exception()
        if error is not None:
            logger.error("internal error: %s", describe(error))


def converter() -> Converter:
    """lsprotocol's, but done at the first thing that is wrong: a long text in the place of a list
    would be as many wrong items, each with an error of its own."""
    made = default_converter()
    made.detailed_validation = False
    return made


def _is_notification(method: str) -> bool:
    # (request or notification, response or None, ...), and not as lsprotocol's annotation has it.
    known = cast("dict[str, tuple[Any, ...]]", types.METHOD_TO_TYPES).get(method)
    return known is not None and known[1] is None


def _usable(id: object) -> str | int | None:
    return id if isinstance(id, str) or type(id) is int else None
