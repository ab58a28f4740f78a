"""What can be done to a file of configuration: one that is all ours, and a block in another's.

JSON has its own edits, in json_members.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

_OPENED, _CLOSED = ">>> diffgemma-lsp setup >>>", "<<< diffgemma-lsp setup <<<"


class Refused(Exception):
    """A file can't be changed safely; the message says why, and what is not said is left alone."""


class Edit(Protocol):
    """A change that can be made again without effect, and taken back."""

    @property
    def snippet(self) -> str:
        """What a user can put in by hand."""
        ...

    def put(self, text: str | None) -> str:
        """The text with it; None stands for no file. Raises Refused."""
        ...

    def take(self, text: str) -> str | None:
        """The text without it; None where nothing else is left. Raises Refused."""
        ...


def signature(editor: str, comment: str) -> str:
    """The first line of a file that is all ours, which tells it from others."""
    return f"{comment} Written by `diffgemma-lsp setup {editor}`, which writes it anew.\n"


@dataclass(frozen=True)
class OwnFile:
    """A file that nobody else has a line in. content: begins with a `signature`, or has it near."""

    content: str
    signature: str

    @property
    def snippet(self) -> str:
        return self.content

    def put(self, text: str | None) -> str:
        self._check(text)
        return self.content

    def take(self, text: str) -> str | None:
        self._check(text)
        return None

    def _check(self, text: str | None) -> None:
        if text and self.signature.strip() not in text:
            raise Refused("it is not from diffgemma-lsp setup")


@dataclass(frozen=True)
class Block:
    """Lines at the end of a file, between two marks.

    comment: what begins a comment there. lines: what goes in, which may depend on the rest of the
    file, and raise Refused.
    """

    comment: str
    lines: Callable[[str], str]

    @property
    def snippet(self) -> str:
        return self.lines("")

    def put(self, text: str | None) -> str:
        rest = self._without(text or "")
        block = f"{self._mark(_OPENED)}\n{self.lines(rest)}{self._mark(_CLOSED)}\n"
        if not rest:
            return block
        return f"{rest}{'' if rest.endswith(chr(10)) else chr(10)}\n{block}"

    def take(self, text: str) -> str | None:
        rest = self._without(text)
        return rest if rest.strip() else None

    def _mark(self, words: str) -> str:
        return f"{self.comment} {words}"

    def _without(self, text: str) -> str:
        opened, closed = (re.escape(self._mark(words)) for words in (_OPENED, _CLOSED))
        rest = re.sub(rf"\n?^{opened}\r?\n.*?^{closed}(?:\r?\n|\Z)", "", text, flags=re.M | re.S)
        if _OPENED in rest:
            raise Refused("a mark of diffgemma-lsp setup has lost its other half")
        return rest
