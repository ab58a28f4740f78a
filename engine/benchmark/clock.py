"""Time on a device: medians of events there, and of the clock where there are none."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch

COPIED = 2**31
"""Bytes of the copy that tells a GPU's bandwidth: many times what its caches hold."""


def milliseconds(
    work: Callable[[], object], device: torch.device, repeats: int, warm: int = 2
) -> float:
    """The median time of `work` on the device, after a few runs that do not count."""
    for _ in range(warm):
        work()
    taken = [_once(work, device) for _ in range(repeats)]
    return median(taken)


def host_milliseconds(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """The median time until `work` returns: what the host needs to start it."""
    taken: list[float] = []
    for _ in range(repeats):
        wait(device)
        began = time.perf_counter()
        work()
        taken.append(1000 * (time.perf_counter() - began))
    wait(device)
    return median(taken)


def bandwidth(device: torch.device, repeats: int) -> float:
    """Bytes a second that a large copy reads and writes together."""
    count = COPIED if device.type == "cuda" else 2**27
    source = torch.empty(count, dtype=torch.uint8, device=device).random_()
    target = torch.empty_like(source)
    return 2 * count / (milliseconds(lambda: target.copy_(source), device, repeats) / 1000)


def wait(device: torch.device) -> None:
    """Returns when the device has done all that was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _once(work: Callable[[], object], device: torch.device) -> float:
    if device.type != "cuda":
        began = time.perf_counter()
        work()
        return 1000 * (time.perf_counter() - began)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    work()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)
