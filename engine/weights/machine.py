"""What models run on here: `python -m engine.weights.machine` says it as JSON, for programs that do
not load PyTorch themselves."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass

import torch

from engine.weights.loader import pick_device


@dataclass(frozen=True, slots=True)
class Machine:
    """The device that a model runs on where nothing is said.

    device: "cuda", "mps" or "cpu". name: what messages call it. memory: bytes that it has in all.
    """

    device: str
    name: str
    memory: int


def machine() -> Machine:
    """The best device of this machine."""
    device = pick_device(None)
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        return Machine("cuda", found.name, found.total_memory)
    if device.type == "mps":
        return Machine("mps", "this Mac's GPU", torch.mps.recommended_max_memory())
    pages: int = os.sysconf("SC_PHYS_PAGES")
    return Machine("cpu", "this machine", pages * os.sysconf("SC_PAGE_SIZE"))


if __name__ == "__main__":
    print(json.dumps(asdict(machine())))
    sys.exit(0)
