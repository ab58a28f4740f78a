"""The shape of the Sudoku model, the weights that it begins with, and its tokenizer.

A model so small, trained for minutes, would spend them on finding out which of 81 positions in a
row of tokens belong together. So its first weights know the geometry of the grid, and nothing of
digits: names of cells say row, column and box, a head of the first layers looks back at a cell's
name, and three heads of the others look along the row, the column and the box. All weights are
trained from there, and that digits must differ is learnt.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordLevel
from torch import Tensor

from engine.backbones.config import ModelConfig
from engine.backbones.diffusion_gemma import DiffusionGemma, Layer
from engine.sudoku import CELLS, DIGITS, EMPTY, NAMES, UNITS
from engine.training.nano import new_model, text_only

SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>")
PAD, EOS, BOS = 0, 1, 2
EMPTY_ID, FIRST_DIGIT, FIRST_NAME = 4, 5, 14
NAME_IDS = tuple(range(FIRST_NAME, FIRST_NAME + CELLS))

HEADS, HEAD_DIM, LAYERS = 4, 32, 4

SUDOKU = text_only(
    {
        # Far more than there are tokens: noise is seldom a digit then, and seldom misleads.
        "vocab_size": 512,
        "hidden_size": 96,
        "intermediate_size": 192,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "head_dim": HEAD_DIM,
        "layer_types": ["sliding_attention"] * (LAYERS - 1) + ["full_attention"],
        "sliding_window": 96,
        "per_layer_config": {str(LAYERS - 1): {"head_dim": HEAD_DIM, "num_key_value_heads": HEADS}},
        "rope_parameters": {
            "full_attention": {
                "partial_rotary_factor": 0.25,
                "rope_theta": 1e4,
                "rope_type": "proportional",
            },
            "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"},
        },
        "num_experts": 2,
        "top_k_experts": 2,
        "moe_intermediate_size": 48,
        "max_position_embeddings": 1024,
        "final_logit_softcapping": 30.0,
        "tie_word_embeddings": True,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "pad_token_id": PAD,
    },
    canvas_length=CELLS,
)

_TOKENIZER = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "pad_token": "<pad>",
    "eos_token": "<eos>",
    "bos_token": "<bos>",
    "unk_token": "<unk>",
    "clean_up_tokenization_spaces": False,
}

_PROFILE = {
    "name": "sudoku",
    "end": "<eos>",
    "context": 256,
    "canvas": CELLS,
    "hole": CELLS,
    "longest": CELLS,
    "suffix": 0,
    "prefill": 128,
    "neighbours": False,
    "languages": [],
    # At the heat of its training and with a small budget: digits that are decided side by side must
    # not contradict each other, since it seldom takes one back.
    "sampling": {
        "max_steps": 64,
        "entropy_bound": 0.01,
        "t_max": 1.0,
        "t_min": 1.0,
        "stability": 1,
        "confidence": 0.02,
        "accepted_as_tokens": True,
    },
}

_PLACE = slice(0, 27)
"""The hidden dimensions in which a cell's row, column and box stand, one of nine each."""
_ALWAYS = 27
"""The hidden dimension that is the same for all tokens."""
_STILL = [11, 12, 13, 14, 15, 27, 28, 29, 30]
"""Dimensions of a head that rotate by less than an eighth of a radian over a grid."""
_FAST = 5
"""Pairs of a head that rotate fast enough to tell a position from the next one."""


@torch.no_grad()
def new_sudoku_model(config: ModelConfig, seed: int) -> DiffusionGemma:
    """A model with fresh float32 weights that knows the geometry of the grid.

    config: SUDOKU's, or one with other sizes but the same heads.
    """
    model = new_model(config, seed)
    _name_cells(model.embed_tokens.weight)
    for index, layer in enumerate(model.layers):
        assert isinstance(layer, Layer)
        layer.self_attn.o_proj.weight[: _ALWAYS + 1] = 0
        layer.mlp.down_proj.weight[: _ALWAYS + 1] = 0
        down = layer.experts.down_proj
        assert isinstance(down, Tensor)
        down[:, : _ALWAYS + 1] = 0
        if index < 2:
            # In the second layer too, since a solution stands behind its puzzle, not the names.
            _look_back(layer, CELLS, config.layers[index].rope_theta)
        if index > 0 and config.layers[index].sliding:
            _look_along_units(layer)
    return model


def _name_cells(embeddings: Tensor) -> None:
    embeddings[:, : _ALWAYS + 1] = 0
    embeddings[:, _ALWAYS] = 0.4
    for number, unit in enumerate(UNITS):
        for cell in unit:
            embeddings[NAME_IDS[cell], _PLACE][number] = 3**-0.5


def _look_back(layer: Layer, distance: int, theta: float) -> None:
    """Has the last head read the place of what stands `distance` tokens before, and hand it on."""
    attention, last = layer.self_attn, slice((HEADS - 1) * HEAD_DIM, HEADS * HEAD_DIM)
    q, k, v = attention.q_proj.weight, attention.k_proj.weight, attention.v_proj
    assert v is not None
    for weight in (q, k, v.weight):
        weight[last] = 0
    half = HEAD_DIM // 2
    for pair in range(_FAST):
        angle = distance * theta ** (-pair / half)
        q[last][pair, _ALWAYS] = 4.0
        k[last][pair, _ALWAYS] = 4.0 * math.cos(angle)
        k[last][pair + half, _ALWAYS] = 4.0 * math.sin(angle)
    places = _PLACE.stop
    v.weight[last][:places, _PLACE] = torch.eye(places)
    attention.o_proj.weight[_PLACE, last][:, :places] = torch.eye(places)
    # Sharper than usual, since the next position looks much like this one; and louder.
    for norm in (attention.q_norm, attention.k_norm):
        norm.get_parameter("weight").mul_(1.7)
    layer.post_attention_layernorm.get_parameter("weight")[_PLACE] = 1.0


def _look_along_units(layer: Layer) -> None:
    """Has the first three heads look along the row, the column and the box of a cell."""
    for head in range(3):
        rows = slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)
        for weight in (layer.self_attn.q_proj.weight, layer.self_attn.k_proj.weight):
            weight[rows] *= 0.05
            weight[rows][_STILL, 9 * head : 9 * head + 9] += 2.0 * torch.eye(9)


def write_companions(folder: Path) -> None:
    """Writes what stands beside the weights: the tokenizer and infill.json."""
    folder.mkdir(parents=True, exist_ok=True)
    sudoku_tokenizer().save(str(folder / "tokenizer.json"))
    for name, content in (("tokenizer_config.json", _TOKENIZER), ("infill.json", _PROFILE)):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def sudoku_tokenizer() -> Tokenizer:
    """A token for each digit, the empty cell and each cell's name; all else is left out."""
    words = [*SPECIAL, EMPTY, *DIGITS, *NAMES]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(Regex(r"[^A-I1-9.]"), "")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[A-I][1-9]|."), "isolated")
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in SPECIAL])
    return tokenizer
