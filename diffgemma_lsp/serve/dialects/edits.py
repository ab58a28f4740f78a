"""Prompts for the models that rewrite a part of a file with its last edits in view, as Zed writes
them for any server: Sweep's (its `sweep_prompt.rs`), and Zed's own Zeta 2 and 2.1 (`zeta_prompt`).

    Sweep    <|file_sep|>PATH blocks: other files, `.diff` with changes, then the part of the file
             as it was (original/PATH) and as it is (current/PATH); updated/PATH is for the model
    Zeta     what follows the part, files and the edit history in front of it, then the part with
             <|user_cursor|>: 2 has it between marks of a merge conflict, 2.1 cut by <|marker_N|>

Sweep's says neither where the cursor is nor whether the part ends in an empty line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from diffgemma_lsp.serve.ask import Rewrite
from diffgemma_lsp.serve.dialects.templates import Split
from diffgemma_lsp.text.diff import difference
from engine.types import Snippet

_SEPARATOR = "<|file_sep|>"
_CHANGE = re.compile(r"original:\n(.*?)\nupdated:\n(.*)", re.DOTALL)
_HALF = 10
"""Lines of the part above and below the cursor, unless the file begins or ends there."""

_SUFFIX, _PREFIX, _MIDDLE = "<[fim-suffix]>", "<[fim-prefix]><filename>", "<[fim-middle]>"
_CURSOR = "<|user_cursor|>"
_CURRENT, _END = "<<<<<<< CURRENT\n", "=======\n"
_MERGED = ">>>>>>> UPDATED\n"
_MARKER = re.compile(r"<\|marker_\d+\|>")
_DIFF = re.compile(r"^--- a/.*\n\+\+\+ b/(.*)\n", re.MULTILINE)
_HUNK = re.compile(r"^@@.*\n", re.MULTILINE)


def rewriting(prompt: str) -> Split | None:
    """The prompt taken apart, if it is one of these."""
    return _sweep(prompt) or _zeta(prompt)


def _sweep(prompt: str) -> Split | None:
    begin, *blocks = prompt.split(_SEPARATOR)
    if begin or len(blocks) < 3:
        return None
    files = [
        (path, text.removesuffix("\n")) for path, _, text in (b.partition("\n") for b in blocks)
    ]
    *others, (was, original), (now, current), (then, nothing) = files
    path = now.removeprefix("current/")
    if (was, now, then) != (f"original/{path}", f"current/{path}", f"updated/{path}") or nothing:
        return None
    changes = [
        (change[1], change[2])
        for name, text in others
        if name == f"{path}.diff" and (change := _CHANGE.fullmatch(text))
    ]
    if original != current:
        changes.append((original, current))
    change = difference(original, current)
    at = change.start + len(change.new)  # where the last key was
    part = current + "\n" * _ends_in_an_empty_line(current, current.count("\n", 0, at))
    context = tuple(Snippet(*file) for file in others if not file[0].endswith(".diff"))
    rewrite = Rewrite(0, len(part), tuple(changes), cursor=original != current, unchanged="")
    return Split(part[:at], part[at:], context, path, rewrite)


def _ends_in_an_empty_line(part: str, cursor: int) -> bool:
    """Whether a part whose last line end was lost among those of the prompt had one more line, if
    `cursor` is the line that the client's cursor is in."""
    lines = part.count("\n") + 1
    return lines not in (2 * _HALF + 1, min(cursor, _HALF) + _HALF + 1)


def _zeta(prompt: str) -> Split | None:
    suffix, known, rest = prompt.partition(_PREFIX)
    if not (known and suffix.startswith(_SUFFIX) and rest.endswith(_MIDDLE)):
        return None
    suffix = suffix.removeprefix(_SUFFIX)
    *others, last = rest.removesuffix(_MIDDLE).split("\n<filename>")
    path, _, text = last.partition("\n")
    if (begin := text.rfind(_CURRENT)) >= 0 and text.endswith(_END):
        # Whether the part had a line end of its own makes no difference to the client.
        marked = text[begin + len(_CURRENT) :].removesuffix(_END).removesuffix("\n")
        suffix = suffix if suffix.startswith("\n") else f"\n{suffix}"
        lead, tail, unchanged = "", f"\n{_MERGED}", None
    elif len(markers := [*_MARKER.finditer(text)]) > 1:
        first, end = markers[0], markers[-1]
        begin, marked = first.start(), _MARKER.sub("", text[first.end() : end.start()])
        lead, tail, unchanged = first[0], end[0], first[0] * 2
    else:
        return None
    if marked.count(_CURSOR) != 1:
        return None
    before, behind = marked.split(_CURSOR)
    files = [(name, body) for name, _, body in (file.partition("\n") for file in others)]
    edits = tuple(e for name, body in files if name == "edit_history" for e in _changes(body, path))
    context = tuple(
        Snippet(name, body.strip("\n")) for name, body in files if name != "edit_history"
    )
    end = begin + len(before + behind)
    rewrite = Rewrite(begin, end, edits, lead=lead, tail=tail, unchanged=unchanged)
    return Split(text[:begin] + before, behind + suffix, context, path, rewrite)


def _changes(history: str, path: str) -> Iterator[tuple[str, str]]:
    """The hunks of unified diffs that are of one file."""
    _, *diffs = _DIFF.split(history)
    for name, diff in zip(diffs[::2], diffs[1::2], strict=True):
        if not (name == path or name.endswith(f"/{path}") or path.endswith(f"/{name}")):
            continue
        for hunk in _HUNK.split(diff):
            lines = hunk.split("\n")
            old = [line[1:] for line in lines if line[:1] in (" ", "-") and line]
            new = [line[1:] for line in lines if line[:1] in (" ", "+") and line]
            if old != new:
                yield "\n".join(old), "\n".join(new)
