"""Models that have a name here though they don't ship: where the hub has them, what they take and
what they are good at.

Vocabulary only. `diffgemma-lsp pull NAME` brings them (engine.weights.pull_model), `models` lists
them. None was ever loaded here: memory is two bytes a parameter, or what 4 bits make of it, and
what a pass takes; quality is what their authors published.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Known:
    """A model of the hub.

    repo: owner/name there. weights: bytes of its files of weights, about. needs: bytes of memory
    of the device that it runs on as it is; least: with weights in 4 bits (engine.weights.precision
    takes the most that fit). on_cpu: whether it is fast enough for anything without a GPU.
    better: whether its published figures of infilling
    are above what mini was measured at.
    """

    name: str
    repo: str
    weights: int
    needs: int
    least: int
    good_at: str
    licence: str = "Apache-2.0"
    on_cpu: bool = False
    better: bool = False

    def fits(self, device: str, memory: int) -> bool:
        """Whether a device ("cuda", "mps", "cpu") of so many bytes can run it."""
        return (self.on_cpu or device != "cpu") and self.least <= memory


_7B, _7B_NEEDS, _7B_LEAST = 15_200_000_000, 18_000_000_000, 7_000_000_000

KNOWN = (
    Known(
        "dreamon",
        "Dream-org/DreamOn-v0-7B",
        _7B,
        _7B_NEEDS,
        _7B_LEAST,
        "whole lines of Python, of any length (published: single line 92.1, multi-line 63.8)",
        better=True,
    ),
    Known(
        "diffusiongemma",
        "google/diffusiongemma-26B-A4B-it",
        52_000_000_000,
        56_000_000_000,
        20_000_000_000,
        "instructions; how well it fills holes was not measured",
    ),
    Known(
        "dream-coder",
        "Dream-org/Dream-Coder-v0-Instruct-7B",
        _7B,
        _7B_NEEDS,
        _7B_LEAST,
        "code (published: single line 55.5 at one fixed length)",
    ),
    Known(
        "d3llm-dream-coder",
        "d3LLM/d3LLM_Dream_Coder",
        _7B,
        _7B_NEEDS,
        _7B_LEAST,
        "code, several tokens a pass (no figures of infilling)",
    ),
    Known(
        "open-dcoder",
        "fredzzp/open-dcoder-0.5B",
        1_000_000_000,
        2_000_000_000,
        2_000_000_000,
        "small cards (published: single line 32.5 over fixed lengths)",
        on_cpu=True,
    ),
)


NAMES = tuple(one.name for one in KNOWN)


def known(model: str) -> Known | None:
    """The model that is called so, here or on the hub."""
    return next((one for one in KNOWN if model in (one.name, one.repo)), None)


def folder_name(model: str) -> str:
    """What the folder of a fetched model is called, by its name here or on the hub."""
    found = known(model)
    return found.name if found else model.replace("/", "--")


def recommended(device: str, memory: int) -> Known | None:
    """The model to take on such a machine, if one fits that is better than mini."""
    return next((one for one in KNOWN if one.better and one.fits(device, memory)), None)
