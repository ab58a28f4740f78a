"""What a model's weights are kept in, where nobody says: what is fast if there is room for it, else
the most bits that fit."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

import torch

from engine.backbones.quantized import Format

_log = logging.getLogger(__name__)

ROOM = 0.85
"""The share of a device's memory that weights may take: passes, caches and others need the rest."""


def pick_format(
    device: torch.device, dtype: torch.dtype, needs: Callable[[Format], int], fast: bool
) -> Format:
    """The format of a model on `device`. needs: bytes that its weights take in a format. fast:
    whether 8 bits are faster where rows are multiplied in 8 bits, too."""
    room = int(device_memory(device) * ROOM)
    formats: list[Format] = ["plain", "int8", "int4"]
    if fast and device.type == "cpu" and dtype == torch.bfloat16:
        formats.remove("plain")
    for format in formats:
        if needs(format) <= room:
            break
    else:
        format = formats[-1]
    if format != formats[0]:
        _log.info("%s: its weights would take %.1f GB", format, needs(formats[0]) / 1e9)
    return format


def device_memory(device: torch.device) -> int:
    """Bytes that a device has in all."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if device.type == "mps":
        return torch.mps.recommended_max_memory()
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
