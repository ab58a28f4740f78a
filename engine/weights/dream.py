"""Reads the folders of Dream's family: Qwen2 networks that were made to fill masks, with everything
seeing everything and slot i read from row i - 1. Their layers, names and shapes are Qwen2's.

    Dream-Coder, Dream, DiffuCoder   model_type Dream, mask <|mask|> (arXiv 2508.15487, 2509.01142)
    DreamOn                          the same, and <|expand|>; the end of a text deletes a mask
    d3LLM-Dream-Coder                the same, distilled to decide several tokens in a pass
    Open-dCoder                      model_type qwen2, and a tokenizer with a mask

How each is sampled is as its card says: what generation_config.json of these holds is what their
code falls back to (`alg` "origin"), and only counts where it says something else.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from engine.backbones.base import Backbone
from engine.backbones.dense_config import DenseConfig, parse_dense
from engine.backbones.quantized import Format
from engine.errors import ModelError
from engine.profile import Profile, Sampling
from engine.text.byte_level import added_tokens, mask_token
from engine.weights import dense
from engine.weights.families import read_json
from engine.weights.hub import name_of
from engine.weights.loader import Progress

EXPAND = "<|expand|>"
"""Marks a model that can lengthen and shorten a hole; it is never written here: a hole begins with
as many masks as it may have tokens, and what is too many is deleted."""

POSITIONS = 2048
"""Tokens that these models were trained on at once, whatever their config.json has room for."""

WINDOW = Profile(
    name="dream",
    context=640,
    canvas=384,
    hole=16,
    longest=128,
    suffix=128,
    neighbours=False,
    window=True,
    shifted=True,
)

DREAM = Sampling(128, 0.0, 0.1, 0.1, stability=0, confidence=0.0, top_p=0.95, final=True)
"""One token a pass, by lowest entropy (Dream-Coder's card)."""

DREAMON = replace(DREAM, t_max=0.2, t_min=0.2, top_p=0.9)
"""The same as DreamOn's evaluation has it. Two and four tokens a pass cost it 5 and 13 points of
HumanEval-Infilling (single line)."""

D3LLM = replace(DREAM, entropy_bound=0.4, t_max=1e-3, t_min=1e-3, top_p=1.0)
"""All tokens of less entropy at once, the likeliest ones (d3LLM-Dream's threshold)."""

OPEN_DCODER = replace(DREAM, t_max=0.6, t_min=0.6)
"""The temperature of its README; decided by entropy, as its code can, and not by path planning,
which takes decided tokens back."""


def read_config(folder: Path) -> DenseConfig:
    """The shape of the network in `folder`. Raises ModelError."""
    path = folder / "config.json"
    data = read_json(path)
    config = parse_dense({"canvas_length": WINDOW.canvas, **data}, str(path))
    bos = config.bos_id if data["model_type"] != "qwen2" else None
    return replace(config, bos_id=bos, max_positions=min(config.max_positions, POSITIONS))


def check_weights(folder: Path, config: DenseConfig) -> None:
    """Raises ModelError if the files of weights are not there, or of another shape."""
    dense.check_weights(folder, config)
    dense.check_shapes(folder, config)


def load_model(
    folder: Path,
    device: torch.device,
    dtype: torch.dtype,
    progress: Progress | None = None,
    format: Format | None = None,
) -> Backbone:
    """The network. Raises ModelError if it can't be read, OutOfMemory if it does not fit."""
    return dense.load_from(folder, read_config(folder), device, dtype, progress, format)


def default_profile(folder: Path, config: DenseConfig) -> Profile:
    """How to use the model in `folder`, by its config and tokenizer. Raises ModelError."""
    data = read_json(folder / "config.json")
    try:
        added = added_tokens(folder)
        mask = mask_token(folder)
    except (OSError, ValueError) as error:
        raise ModelError(f"the tokenizer in {folder} is broken: {error}") from error
    names = {i: one.name for i, one in added.items()}
    mask = _agreed(folder, mask, data.get("mask_token_id"), names)
    name = name_of(folder)
    room = min(WINDOW.context, config.max_positions - WINDOW.canvas)
    known = replace(WINDOW, name=name, mask=mask, context=room, sampling=DREAM)
    if EXPAND in names.values():
        end = names.get(config.eos_ids[0]) if config.eos_ids else None
        if end is None:
            raise ModelError(f"the tokenizer in {folder} does not know the model's eos_token_id")
        known = replace(known, slack=end, close=end, hole=64, lines=True, sampling=DREAMON)
        known = replace(known, languages=("python",))
    elif data["model_type"] == "qwen2":
        # 1 GB of weights: what runs it is a small card or a CPU, where a window costs most.
        known = replace(known, context=min(320, room), canvas=192, suffix=64, sampling=OPEN_DCODER)
    elif "d3llm" in name.lower():
        known = replace(known, sampling=D3LLM)
    return replace(known, sampling=_generation(folder, known.sampling))


def _agreed(folder: Path, mask: str | None, config_id: object, names: dict[int, str]) -> str:
    """The mask by the tokenizer's name. Raises ModelError if there is none, or config.json says
    another."""
    by_id = names.get(config_id) if isinstance(config_id, int) else None
    if isinstance(config_id, int) and by_id is None:
        raise ModelError(f"the mask of {folder} is token {config_id}, which its tokenizer lacks")
    if mask is None:
        if by_id is None:
            raise ModelError(f"{folder} names no mask: it needs mask_token_id in its config.json")
        return by_id
    if mask not in names.values():
        raise ModelError(f"the mask of {folder} is {mask}, which its tokenizer has no id for")
    if by_id not in (None, mask):
        raise ModelError(f"{folder} has two masks: {mask} by its tokenizer, {by_id} by config.json")
    return mask


def _generation(folder: Path, known: Sampling) -> Sampling:
    """`known`, unless generation_config.json says more than its code's defaults."""
    path = folder / "generation_config.json"
    data: dict[str, Any] = read_json(path) if path.is_file() else {}
    if data.get("alg") in (None, "origin"):
        return known
    try:
        heat, share = data.get("temperature"), data.get("top_p")
        if heat is not None:
            heat = max(float(heat), COLDEST)
            known = replace(known, t_max=heat, t_min=heat)
        if share is not None:
            if not 0 < float(share) <= 1:
                raise ValueError(f"top_p must lie above 0 and up to 1, not {share}")
            known = replace(known, top_p=float(share))
        return known
    except (TypeError, ValueError) as error:
        raise ModelError(f"{path} is broken: {error}") from error


COLDEST = 1e-3
"""A temperature of 0 takes the likeliest token, as one this low does."""
