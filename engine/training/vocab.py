"""What each token of a byte-level vocabulary is made of, as arrays indexed by token id."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from engine.text.tokenizer import TextTokenizer

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

_WORD, _DIGIT, _OTHER = 1, 2, 0


def _letter_class(byte: int) -> int:
    if chr(byte).isascii():
        char = chr(byte)
        return _WORD if char.isalpha() or char == "_" else _DIGIT if char.isdigit() else _OTHER
    return _WORD


@dataclass(frozen=True)
class Vocabulary:
    """Tables over the V tokens, and the ids of the special ones.

    ``raw`` holds each token's bytes (nothing for special tokens). ``newline`` (one or several),
    ``blank`` (only
    spaces and tabs), ``comment`` (starts with ``#``) and ``triples`` (triple quotes in it) are
    arrays [V]; ``first`` and ``last`` [V] tell whether a token's outer bytes are word
    characters (1), digits (2) or anything else (0).
    """

    tokenizer: Tokenizer
    raw: tuple[bytes, ...]
    newline: BoolArray
    blank: BoolArray
    comment: BoolArray
    triples: IntArray
    first: IntArray
    last: IntArray
    eos: int
    bos: int
    slack: int

    def bytes_of(self, ids: IntArray) -> bytes:
        """The bytes of ids; special tokens are nothing."""
        numbers: list[int] = ids.tolist()
        return b"".join([self.raw[i] for i in numbers])

    def text(self, ids: IntArray) -> str:
        """The text of ids; special tokens are nothing, a torn character is U+FFFD."""
        return self.bytes_of(ids).decode("utf-8", "replace")

    def encode(self, text: str) -> IntArray:
        """The ids of a text, int64 [T]; text that spells a special token stays text."""
        return np.array(self.tokenizer.encode(text, add_special_tokens=False).ids, np.int64)


def read_vocabulary(
    tokenizer: Tokenizer, *, bos: str = "<bos>", eos: str = "<eos>", slack: str = "<slack>"
) -> Vocabulary:
    """Build the tables of a tokenizer; the names of its special tokens are those of ``bpe.py``.

    The tokenizer is set to read ``<slack>`` and the like in a document as ordinary text.

    Raises:
        KeyError: a special token is missing.
    """
    ids: dict[str, int] = tokenizer.get_vocab()
    text = TextTokenizer(tokenizer)
    raw = [text.bytes_of((number,)) for number in range(len(text))]
    return Vocabulary(
        tokenizer=tokenizer,
        raw=tuple(raw),
        newline=np.array([bool(r) and not r.strip(b"\r\n") for r in raw]),
        blank=np.array([bool(r) and not r.strip(b" \t") for r in raw]),
        comment=np.array([r.lstrip(b" \t").startswith(b"#") for r in raw]),
        triples=np.array([r.count(b'"""') + r.count(b"'''") for r in raw], np.int64),
        first=np.array([_letter_class(r[0]) if r else _OTHER for r in raw], np.int64),
        last=np.array([_letter_class(r[-1]) if r else _OTHER for r in raw], np.int64),
        eos=ids[eos],
        bos=ids[bos],
        slack=ids[slack],
    )
