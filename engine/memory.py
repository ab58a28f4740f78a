"""Memory that is free goes back to the system, where the C library is one that would keep it."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Callable, Generator

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_SMALL, _LARGEST = 64 * 2**10, 32 * 2**20
"""From this size on a block of weights has a mapping of its own; the C library's own limit."""


def trim_memory() -> None:
    """Gives back to the system what freed tensors have left behind: packing weights leaves
    hundreds of megabytes."""
    _call("malloc_trim", 0)


@contextlib.contextmanager
def large_blocks_apart() -> Generator[None]:
    """For loading: packed weights stay, and what they were made of goes. From one heap, each would
    keep pages of the other."""
    _call("mallopt", _MMAP_THRESHOLD, _SMALL)
    try:
        yield
    finally:
        # As high as the C library would have come by itself: what a pass takes is not mapped anew.
        _call("mallopt", _MMAP_THRESHOLD, _LARGEST)
        _call("mallopt", _TRIM_THRESHOLD, 2 * _LARGEST)


def _call(name: str, *arguments: int) -> None:
    """Calls a function of glibc; where there is another C library, nothing happens."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            function: Callable[..., int] = getattr(ctypes.CDLL("libc.so.6"), name)
            function(*arguments)
