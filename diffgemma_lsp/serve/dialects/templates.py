"""Prompts that say "fill in the middle" in one text, by the marks of some model.

Clients choose the marks by the model that they believe to talk to. A prompt is split where each
mark of one kind occurs exactly once and in its order; any other is plain text. Marks are those of
the models' own documentation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from diffgemma_lsp.serve.ask import Rewrite
from engine.types import Snippet


@dataclass(frozen=True, slots=True)
class Marks:
    """The three marks, in the order in which they stand."""

    first: str
    second: str
    last: str
    suffix_first: bool = False


_MARKS = (
    Marks("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),  # Qwen, CodeGemma, Granite
    Marks("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),  # StarCoder, Stable Code
    Marks("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),  # SantaCoder
    Marks("<|fim_suffix|>", "<|fim_prefix|>", "<|fim_middle|>", suffix_first=True),
    Marks("<PRE> ", " <SUF>", " <MID>"),  # CodeLlama
    Marks("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),  # DeepSeek
    Marks("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"),  # GLM
    Marks("<|code_suffix|>", "<|code_prefix|>", "<|code_middle|>", suffix_first=True),  # CodeGeeX
    Marks("<[fim-suffix]>", "<[fim-prefix]>", "<[fim-middle]>", suffix_first=True),  # Seed-Coder
    Marks("<[fim-prefix]>", "<[fim-suffix]>", "<[fim-middle]>"),
    Marks("[SUFFIX]", "[PREFIX]", "", suffix_first=True),  # Codestral
)

_FILE = re.compile(r"(?:<\|file_sep\|>|<file_sep>|^\+{5} )([^\n]*)\n", re.MULTILINE)
_END = re.compile(r"(?:<\|endoftext\|>|<\|file_sep\|>|<file_sep>)\Z")
_COMMENT = re.compile(r"\W{1,4} ?language: ([\w+#-]+)")


class Split(NamedTuple):
    """A prompt taken apart. path: what it says of the file of the hole. rewrite: what is wanted, if
    that is a part of the file and not the middle."""

    prefix: str
    suffix: str
    context: tuple[Snippet, ...] = ()
    path: str = ""
    rewrite: Rewrite | None = None


def split(prompt: str) -> Split:
    """The prompt taken apart by the marks in it; all of it is the prefix if there are none."""
    for marks in _MARKS:
        found = _by(prompt, marks)
        if found is not None:
            return found
    return Split(prompt, "")


def language_in(prefix: str) -> str:
    """The language that one of the first two lines names in a comment, as minuet's do."""
    for line in prefix.split("\n", 2)[:2]:
        if found := _COMMENT.match(line):
            return found[1].lower()
    return ""


def _by(prompt: str, marks: Marks) -> Split | None:
    places: list[int] = []
    for mark in (marks.first, marks.second, marks.last):
        if mark and prompt.count(mark) != 1:
            return None
        places.append(prompt.index(mark) if mark else len(prompt))
    if places != sorted(places):
        return None
    one, two, three = places
    parts = (prompt[one + len(marks.first) : two], prompt[two + len(marks.second) : three])
    suffix, prefix = parts if marks.suffix_first else (parts[1], parts[0])
    context, path = _files(prompt[:one])
    if _FILE.match(prefix):  # some put the files behind the first mark, the hole's own one last
        *inside, own = [*_FILE.finditer(prefix)]
        context += _files(prefix[: own.start()])[0] if inside else ()
        prefix, path = prefix[own.end() :], own[1].strip()
    return Split(prefix, _END.sub("", suffix), context, path)


def _files(head: str) -> tuple[tuple[Snippet, ...], str]:
    """The files in front of the hole's, and the path of that, which is the last and has no text."""
    found = [*_FILE.finditer(head)]
    ends = [*(one.start() for one in found[1:]), len(head)]
    files = [
        Snippet(one[1].strip(), head[one.end() : end].strip("\n"))
        for one, end in zip(found, ends, strict=False)
    ]
    path = files[-1].path if files and not files[-1].text else ""
    return tuple(one for one in files if one.text), path
