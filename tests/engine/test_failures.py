"""What is said of exceptions that nobody planned for."""

from __future__ import annotations

import errno

import pytest

from engine.errors import ModelError, OutOfMemory
from engine.serve.failures import of_loading


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(MemoryError(), id="python"),
        pytest.param(OSError(errno.ENOMEM, "Cannot allocate memory"), id="the system"),
        pytest.param(
            ImportError("libtorch_cpu.so: failed to map segment from shared object"), id="a library"
        ),
        pytest.param(
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8"),
            id="torch",
        ),
    ],
)
def test_too_little_memory_is_named_whoever_finds_it(error: Exception) -> None:
    failure = of_loading(error)
    assert isinstance(failure, OutOfMemory)
    assert "choose a smaller model" in str(failure)


def test_what_else_goes_wrong_is_one_line() -> None:
    broken = of_loading(ImportError("No module named 'torch'\n\nmany\nlines"))
    assert type(broken) is ModelError
    assert str(broken) == (
        "the engine can't be imported (No module named 'torch'): install the package again"
    )
    strange = of_loading(ValueError("one\ntwo"))
    assert "ValueError: one)" in str(strange)
