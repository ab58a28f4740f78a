"""What is said of exceptions that nobody planned for."""

from __future__ import annotations

import errno

import pytest

from engine.errors import ModelError, OutOfMemory
from engine.serve.failures import lost_device, of_a_lost_device, of_a_pass, of_loading


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


class AcceleratorError(RuntimeError):
    """Named as torch's is."""


ADVICE = "\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1"


@pytest.mark.parametrize(
    "error",
    [
        AcceleratorError("CUDA error: device-side assert triggered" + ADVICE),
        RuntimeError("CUDA error: an illegal memory access was encountered" + ADVICE),
        AcceleratorError("CUDA error: unspecified launch failure" + ADVICE),
        RuntimeError("CUDA error: uncorrectable ECC error encountered"),
        RuntimeError("HIP error: an illegal memory access was encountered"),
    ],
)
def test_a_device_that_is_beyond_repair_is_recognised(error: Exception) -> None:
    assert lost_device(error)
    wrapped = ModelError("the model can't be read")
    wrapped.__cause__ = error
    assert lost_device(wrapped)
    told = of_a_lost_device(error)
    assert told.code == "engine_unavailable"
    assert len(str(told).splitlines()) == 1


@pytest.mark.parametrize(
    "error",
    [
        ValueError("CUDA error: device-side assert triggered"),  # a document may say so
        RuntimeError("x = 'an illegal memory access'"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: invalid argument"),  # the device answers (there is none here)
        ModelError("this machine has no cuda that PyTorch can use"),
    ],
)
def test_what_does_not_cost_the_device_does_not_end_the_process(error: Exception) -> None:
    assert not lost_device(error)


def test_a_call_that_the_device_refused_is_asked_after(monkeypatch: pytest.MonkeyPatch) -> None:
    """cuBLAS says the same of a wrong argument and of a device that is gone: work tells."""
    import torch

    refused = RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`")

    def gone(*sizes: int, **options: str) -> torch.Tensor:
        raise AcceleratorError("CUDA error: unknown error")

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with monkeypatch.context() as patched:
        patched.setattr(torch, "ones", gone)
        assert lost_device(refused)
    with monkeypatch.context() as patched:
        patched.setattr(torch, "ones", lambda *sizes, **options: torch.zeros(*sizes))
        assert not lost_device(refused)


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "MPS backend out of memory (MPS allocated: 9 GB)",
    ],
)
def test_a_pass_that_finds_no_memory_says_so(text: str) -> None:
    assert isinstance(of_a_pass(RuntimeError(text)), OutOfMemory)
