"""What to say when something fails that nobody planned for, and how to get its memory back.

Imports no torch.

A foreign exception's text may quote the document, so of a pass that failed only the kind and the
place are told and logged; of a model that can't be loaded the text is told, since it names files.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import traceback
from typing import Any

from engine.errors import (
    EngineError,
    EngineUnavailable,
    ModelError,
    OutOfMemory,
    describe,
    unhandled,
)

log = logging.getLogger(__name__)

# What the dynamic loader and torch's allocator say; they have no kind of exception for it.
_NO_MEMORY = (
    "failed to map segment",
    "annot allocate memory",
    "can't allocate memory",
    "CUDA error: out of memory",
    "HIP error: out of memory",
    "MPS backend out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",  # the library found no room for its workspace
    "CUDNN_STATUS_ALLOC_FAILED",
)
# What CUDA says once a kernel has gone astray or the card is gone. After one of these every later
# call of the process fails with the same words (CUDA Runtime API, cudaError_t: "the process must
# be terminated and relaunched").
_LOST = (
    "device-side assert",
    "illegal memory access",
    "misaligned address",
    "illegal instruction",
    "invalid program counter",
    "unspecified launch failure",
    "launch timed out",
    "hardware stack error",
    "uncorrectable ECC error",
    "uncorrectable NVLink error",
    "context is destroyed",
    "GPU is lost",
)
# What may have been one of them, or a mistake in a single call: the device is asked.
_OF_THE_DEVICE = ("CUDA error", "HIP error", "CUBLAS", "HIPBLAS", "CUDNN", "cuDNN error")
# Made beforehand: there may be no memory to make it with.
_LAST_WORDS = b"there is no memory left to go on with: the service ends\n"

_HINT = "close other programs that use the device, or choose a smaller model"
_LIMIT_HINT = "raise the limit of %d MiB (ulimit -v) on it, or choose a smaller model"


def of_a_pass(error: Exception) -> EngineError:
    """What the requester is told about an exception while its request was running."""
    if isinstance(error, EngineError):
        return error
    log.error("a request failed: %s\n%s", describe(error), _frames(error))
    if _is_out_of_memory(error):
        return OutOfMemory(f"the request doesn't fit into memory: {_hint()}")
    return EngineError(f"the engine failed with {describe(error)}: its log has the details")


def lost_device(error: Exception) -> bool:
    """Whether an exception says that this process can't use its device any more."""
    chain: BaseException | None = error
    while chain is not None:
        if _lost(chain):
            return True
        chain = chain.__cause__ or chain.__context__
    return False


def of_a_lost_device(error: Exception) -> EngineUnavailable:
    """What all requesters are told of an exception for which `lost_device` is true."""
    log.error("the device is lost: %s\n%s", describe(error), _frames(error))
    return EngineUnavailable(
        f"the device failed ({describe(error)}), and the engine ends with it: ask again to start "
        "another one; its log has the details"
    )


def of_loading(error: Exception) -> ModelError:
    """What all requesters are told about an exception while the model was loading."""
    if isinstance(error, ModelError):
        return error
    log.error("loading failed\n%s", _frames(error))
    if _is_out_of_memory(error):
        return OutOfMemory(f"the model doesn't fit into memory: {_hint()}")
    lines = str(error).strip().splitlines()
    if isinstance(error, ImportError):
        cause = lines[0] if lines else "ImportError"
        return ModelError(f"the engine can't be imported ({cause}): install the package again")
    cause = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return ModelError(f"the model can't be loaded ({cause}): `diffgemma-lsp doctor` looks into it")


def of_the_loop(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """An error in the service's event loop that nobody took. For `set_exception_handler`.

    Without memory for its own wake-up call a loop turns as fast as it can and does nothing else, so
    the process ends; whoever needs it next starts another one.
    """
    error = context.get("exception")
    if isinstance(error, MemoryError):
        os.write(2, _LAST_WORDS)
        os._exit(1)
    log.error("%s", unhandled(context))


def of_a_watch(watch: asyncio.Task[None]) -> None:
    """The error that ended a task for which nobody waits. For `add_done_callback`."""
    if not watch.cancelled() and (error := watch.exception()) is not None:
        context = {"message": "a watch has ended", "exception": error}
        watch.get_loop().call_exception_handler(context)


def forget_frames(error: BaseException) -> None:
    """Lets go of the variables (tensors, mostly) that an exception's traceback keeps alive."""
    chain: BaseException | None = error
    while chain is not None:
        traceback.clear_frames(chain.__traceback__)
        chain = chain.__context__


def release_memory() -> None:
    """Gives freed memory back to the device, without importing torch for it."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is None:
        return
    try:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        elif torch.backends.mps.is_available():
            torch.mps.empty_cache()
    except Exception as error:
        # A device that is beyond repair must not take the caller's thread with it.
        log.warning("the device's memory can't be freed: %s", describe(error))


def _lost(error: BaseException) -> bool:
    text = str(error)
    if not isinstance(error, RuntimeError) or _is_out_of_memory(error):
        return False
    # torch.AcceleratorError by its name, since torch must not be imported here.
    named = any(cls.__name__ == "AcceleratorError" for cls in type(error).__mro__)
    if not named and not any(words in text for words in _OF_THE_DEVICE):
        return False
    return any(words in text for words in _LOST) or not _device_answers()


def _device_answers() -> bool:
    """Whether a small piece of work on the device comes to an end."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return True
    try:
        torch.ones(8, device="cuda").sum().item()
    except Exception as error:
        # A build of torch without kernels for this card would have none in another process either.
        return _is_out_of_memory(error) or "no kernel image" in str(error)
    return True


def _is_out_of_memory(error: BaseException) -> bool:
    # torch.OutOfMemoryError by its name, since torch must not be imported here.
    kinds = {cls.__name__ for cls in type(error).__mro__}
    text = str(error)
    return bool(kinds & {"MemoryError", "OutOfMemoryError"}) or any(
        words in text for words in _NO_MEMORY
    )


def _hint() -> str:
    """The way out of too little memory."""
    if sys.platform == "win32":
        return _HINT
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return _HINT if limit == resource.RLIM_INFINITY else _LIMIT_HINT % (limit // 2**20)


def _frames(error: Exception) -> str:
    return "".join(traceback.format_tb(error.__traceback__)).rstrip()
