"""Byte-level BPE from vocab.json and merges.txt, as models publish it that have no tokenizer.json:
those of Dream's family, whose tokenizer is code of their repositories.

They cut text as Qwen2 does, whose pattern is the one fact that no file has.
Reference: transformers' Qwen2Tokenizer (tests/engine/test_byte_level.py holds them together).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple, cast

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

VOCAB, MERGES = "vocab.json", "merges.txt"

_CUTS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class Added(NamedTuple):
    """A token behind the vocabulary. special: whether it never stands for text."""

    name: str
    special: bool


def read_byte_level(folder: Path) -> Tokenizer:
    """The tokenizer in `folder`. Raises OSError or ValueError if a file is missing or broken."""
    vocab = cast("dict[str, int]", _object(folder / VOCAB))
    lines = (folder / MERGES).read_text(encoding="utf-8").split("\n")
    merges = [_merge(line) for line in lines if line and not line.startswith("#version")]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_CUTS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    for i, (name, special) in sorted(added_tokens(folder).items()):
        tokenizer.add_tokens([AddedToken(name, special=special, normalized=False)])
        if tokenizer.token_to_id(name) != i:
            raise ValueError(f"{name} is token {i}, but {VOCAB} has no place for it there")
    return tokenizer


def added_tokens(folder: Path) -> dict[int, Added]:
    """The tokens behind the vocabulary by their ids, from whichever file of `folder` names them.

    Raises OSError or ValueError if that is broken.
    """
    path = folder / "tokenizer_config.json"
    try:
        if listed := (_object(path) if path.is_file() else {}).get("added_tokens_decoder"):
            return {
                int(i): Added(one["content"], bool(one["special"])) for i, one in listed.items()
            }
        path = folder / "added_tokens.json"
        if path.is_file():
            return {int(i): Added(name, True) for name, i in _object(path).items()}
        path = folder / "tokenizer.json"
        listed = _object(path).get("added_tokens", []) if path.is_file() else []
        return {int(one["id"]): Added(one["content"], bool(one["special"])) for one in listed}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} names its added tokens in no known way: {error!r}") from error


def mask_token(folder: Path) -> str | None:
    """What the tokenizer in `folder` calls its mask; None if it knows none.

    Raises OSError or ValueError if a file is broken.
    """
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        path = folder / name
        found: Any = _object(path).get("mask_token") if path.is_file() else None
        found = found.get("content") if isinstance(found, dict) else found
        if isinstance(found, str) and found:
            return found
    return None


def _object(path: Path) -> dict[str, Any]:
    data: Any = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(data, dict):
        raise ValueError(f"{path.name} holds no JSON object")
    return cast("dict[str, Any]", data)


def _merge(line: str) -> tuple[str, str]:
    first, space, second = line.rstrip("\r").partition(" ")
    if not (first and space and second) or " " in second:
        raise ValueError(f"{MERGES} has the line {line!r}, which is no pair of tokens")
    return first, second
