"""Every error that the engine raises on purpose. Imports nothing heavy, so that clients can use it.

EngineError
├── BadRequest          what was asked for makes no sense (an empty template, a strength of 3)
├── ModelError          the model can't be found, read or run
│   └── OutOfMemory     it doesn't fit on the device
├── TrainingError       a training run can't begin or go on (a wrong config, a full disk)
├── Cancelled           the caller withdrew, or a newer request took its place
├── DeadlineExceeded    time ran out before there was anything to show
└── EngineUnavailable   the service can't be started or reached, or died in the middle

Each has a stable `code`, which is what travels between the service and its clients, and a message
of one line that says what to do. What is said of an error that nobody planned for is here, too.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any


class EngineError(Exception):
    """Base of all errors of the engine. `str(error)` is one line that a user can act on."""

    code = "engine_error"


class BadRequest(EngineError):
    """The request itself is wrong; the same request will fail again."""

    code = "bad_request"


class ModelError(EngineError):
    """The model can't be found, read or run."""

    code = "model_error"


class OutOfMemory(ModelError):
    """The model or the request doesn't fit into the device's memory."""

    code = "out_of_memory"


class TrainingError(EngineError):
    """A training run can't begin, or can't go on. What was saved stays as it is."""

    code = "training_error"


class Cancelled(EngineError):
    """The caller withdrew the request. Nothing is wrong."""

    code = "cancelled"


class DeadlineExceeded(EngineError):
    """The deadline came before the first pass was done, so there is nothing to show."""

    code = "deadline_exceeded"


class EngineUnavailable(EngineError):
    """The engine service can't be started or reached, or it died while it worked."""

    code = "engine_unavailable"


def _tree(root: type[EngineError]) -> list[type[EngineError]]:
    return [root, *(leaf for child in root.__subclasses__() for leaf in _tree(child))]


_BY_CODE = {cls.code: cls for cls in _tree(EngineError)}


def complaint(error: Exception | str) -> str:
    """What every command writes to stderr about what can't be done: one line."""
    return f"diffgemma-lsp: {' '.join(str(error).split())}"


def describe(error: BaseException) -> str:
    """The kind of an error and the line that raised it, without its text, which might quote a
    document."""
    frames = [*traceback.walk_tb(error.__traceback__)]
    if not frames:
        return type(error).__name__
    frame, line = frames[-1]
    return f"{type(error).__name__} at {Path(frame.f_code.co_filename).name}:{line}"


def unhandled(context: dict[str, Any]) -> str:
    """A line for the log about an error in an event loop that nobody took: asyncio's own would
    have the callback's arguments, and with them documents."""
    message: str = context["message"]
    error: BaseException | None = context.get("exception")
    what = "nothing more is known" if error is None else describe(error)
    return f"unhandled: {message.partition('(')[0]}: {what}"


def error_from_code(code: str, message: str) -> EngineError:
    """The error that a service reported as (`code`, `message`); unknown codes give EngineError."""
    return _BY_CODE.get(code, EngineError)(message)
