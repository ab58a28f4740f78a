"""What models run on here: `python -m engine.weights.machine` says it as JSON, for programs that do
not load PyTorch themselves."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass

import torch

from engine.weights.loader import pick_device
from engine.weights.precision import device_memory


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
    names = {"cpu": "this machine", "mps": "this Mac's GPU"}
    if device.type == "cuda":
        names["cuda"] = torch.cuda.get_device_properties(device).name
    return Machine(device.type, names[device.type], device_memory(device))


if __name__ == "__main__":
    print(json.dumps(asdict(machine())))
    sys.exit(0)
