"""Text to token ids and back, for text that is cut wherever a cursor happens to stand.

Document text is never parsed for special tokens: a file that spells `<eos>` is ordinary text. What
comes back is built from the bytes of tokens, and bytes that are not whole UTF-8 are left out.

The `tokenizers` library does the encoding; transformers, which is slow to import, is not needed.
"""

from __future__ import annotations

import codecs
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from engine.errors import ModelError
from engine.text.byte_level import VOCAB, read_byte_level

_LOOK_BACK = 160
"""Characters before a cursor that healing looks at; longer words are not healed as a whole."""

_TYPED = re.compile(r" ?\w+\Z| \Z")
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_UNTRAINED = re.compile(r"<unused\d+>|\[multimodal\]")
"""Tokens of Gemma's vocabularies that stand for nothing, though they are not flagged as special."""


class TextTokenizer:
    """A checkpoint's tokenizer. `special` are the ids that never stand for text; `unwritable` are
    those and the ones that no model was trained to write."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.encode_special_tokens = True
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder()
        self.special = frozenset(i for i, token in added.items() if token.special)
        self.unwritable = self.special | {
            i for i, token in added.items() if _UNTRAINED.fullmatch(token.content)
        }
        self._bytes = _token_bytes(tokenizer, self.special)
        self._sorted = sorted(range(len(self._bytes)), key=self._bytes.__getitem__)

    @classmethod
    def load(cls, folder: Path, extra: Sequence[str] = ()) -> TextTokenizer:
        """Reads `folder`/tokenizer.json, or vocab.json and merges.txt where it has none of that.
        extra: special tokens that it does not know, which get the ids behind its last one. Raises
        ModelError if it is missing or broken."""
        path, vocab = folder / "tokenizer.json", folder / VOCAB
        if not path.is_file() and not vocab.is_file():
            raise ModelError(f"{path} is missing; download the model again")
        try:
            if path.is_file():
                tokenizer = Tokenizer.from_file(str(path))
            else:
                path = vocab
                tokenizer = read_byte_level(folder)
            tokenizer.add_special_tokens([AddedToken(name, special=True) for name in extra])
            return cls(tokenizer)
        except Exception as error:  # the library raises bare Exceptions
            raise ModelError(f"{path} can't be read: {error}") from error

    def __len__(self) -> int:
        return len(self._bytes)

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, none of them special. A lone surrogate is read as "?"."""
        text = text.encode("utf-8", errors="replace").decode()
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def encode_with_starts(self, text: str) -> tuple[list[int], list[int]]:
        """The ids of `text`, and the character at which each begins."""
        text = text.encode("utf-8", errors="replace").decode()
        encoded = self._tokenizer.encode(text, add_special_tokens=False)
        return encoded.ids, [start for start, _ in encoded.offsets]

    def encode_markup(self, text: str) -> list[int]:
        """The ids of text that a model's own template wrote, in which special tokens count."""
        self._tokenizer.encode_special_tokens = False
        try:
            return self._tokenizer.encode(text, add_special_tokens=False).ids
        finally:
            self._tokenizer.encode_special_tokens = True

    def id_of(self, token: str) -> int | None:
        """The id of a token by its name, such as "<slack>"."""
        return self._tokenizer.token_to_id(token)

    def marks(self, names: tuple[str, str] | None) -> tuple[int, int] | None:
        """The ids of two tokens by their names. Raises ModelError if one is not known."""
        if names is None:
            return None
        first, second = (self.id_of(name) for name in names)
        if first is None or second is None:
            raise ModelError(f"the tokenizer knows no {' or no '.join(names)}: see infill.json")
        return first, second

    def bytes_of(self, ids: Iterable[int]) -> bytes:
        """The bytes that `ids` stand for; special ids stand for none."""
        return b"".join(self._bytes[i] for i in ids)

    def text_of(self, ids: Iterable[int], skip: int = 0) -> str:
        """The text of `ids` without its first `skip` bytes and without broken UTF-8."""
        return self.bytes_of(ids)[skip:].decode("utf-8", errors="ignore")

    def pieces_of(self, ids: Sequence[int], skip: int = 0) -> list[str]:
        """The text that each token completes; joined, they are `text_of(ids, skip)`.

        A token that only begins a character gives "", and the one that ends it gives it whole.
        """
        decoder = codecs.getincrementaldecoder("utf-8")(errors="ignore")
        pieces: list[str] = []
        for i in ids:
            data = self._bytes[i]
            pieces.append(decoder.decode(data[skip:]))
            skip = max(0, skip - len(data))
        return pieces

    def starting_with(self, start: bytes) -> tuple[int, ...]:
        """All ids whose bytes begin with `start`."""
        low = bisect_left(self._sorted, start, key=self._bytes.__getitem__)
        high = bisect_right(self._sorted, start, lo=low, key=lambda i: self._bytes[i][: len(start)])
        return tuple(self._sorted[low:high])

    def along(self, start: bytes) -> tuple[int, ...]:
        """All ids whose bytes begin with `start`, or that `start` begins with."""
        shorter: list[int] = []
        for end in range(1, len(start)):
            low = bisect_left(self._sorted, start[:end], key=self._bytes.__getitem__)
            while low < len(self._sorted) and self._bytes[self._sorted[low]] == start[:end]:
                shorter.append(self._sorted[low])
                low += 1
        return (*shorter, *self.starting_with(start))

    def heal_blank(self, text: str) -> tuple[str, bytes]:
        """As `heal`, but white space at the end of `text` is split off, too, down to the last
        visible character: for vocabularies that join line ends with what follows them."""
        stays, typed = self.heal(text)
        bare = stays.rstrip()
        return bare, stays[len(bare) :].encode() + typed

    def heal(self, text: str) -> tuple[str, bytes]:
        """Splits off the part of a word that was typed before a cursor at the end of `text`.

        Returns what stays in front and the typed bytes that the hole's first token has to extend.
        The split lies between tokens of `text`, as far left in the word as there are tokens that
        begin with all of what is split off; without any the typed part is empty. So it is where no
        token says more than what was typed: there is nothing to extend.
        """
        tail = text[-_LOOK_BACK:]
        match = _TYPED.search(tail)
        if match is None:
            return text, b""
        typed = match.group().encode()
        ids = self.encode(tail)
        best = b""
        taken = b""
        for i in reversed(ids):
            taken = self._bytes[i] + taken
            if not typed.endswith(taken):
                break
            if self.starting_with(taken) and _whole(taken):
                best = taken
        if not best:
            best = self._blank_of_a_word(tail)
        if all(len(self._bytes[i]) == len(best) for i in self.starting_with(best)):
            return text, b""
        return text[: len(text) - len(best.decode())], best

    def _blank_of_a_word(self, tail: str) -> bytes:
        """The white space at the end of `tail` that would be one token with a word behind it: of
        several blanks many vocabularies leave the last one to the word."""
        if not tail.endswith((" ", "\t")):
            return b""
        starts = self.encode_with_starts(tail + "a")[1]
        begun = tail[starts[-1] :] if starts else ""  # a vocabulary of digits knows no "a"
        return begun.encode() if begun.isspace() else b""


def _whole(data: bytes) -> bool:
    """Whether `data` is UTF-8 that does not begin or end inside a character."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _token_bytes(tokenizer: Tokenizer, special: frozenset[int]) -> list[bytes]:
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    decoder = tokenizer.decoder
    byte_level = decoder is not None and decoder.decode(["\u0120"]) == " "  # Ġ
    to_bytes = _from_byte_level if byte_level else _from_sentencepiece
    table: list[bytes] = []
    for i in range(size):
        token: Any = tokenizer.id_to_token(i)
        table.append(b"" if token is None or i in special else to_bytes(token))
    return table


def _from_sentencepiece(token: str) -> bytes:
    match = _BYTE.fullmatch(token)
    return bytes([int(match[1], 16)]) if match else token.replace("▁", " ").encode()


def _from_byte_level(token: str) -> bytes:
    try:
        return token.translate(_AS_LATIN).encode("latin-1")
    except UnicodeEncodeError:  # an added token may have characters that stand for no byte
        return b"".join(bytes([_BYTE_OF[c]]) if c in _BYTE_OF else c.encode() for c in token)


def _byte_alphabet() -> dict[str, int]:
    """The characters that byte-level BPE writes bytes as: printable ones are themselves."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(rest)}


_BYTE_OF = _byte_alphabet()
# A whole token at once: there are 150,000. What Latin-1 would take for a byte, it must not.
_AS_LATIN = dict.fromkeys(range(0x80, 0x100), 0x100) | {ord(c): b for c, b in _BYTE_OF.items()}
