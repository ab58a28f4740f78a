"""Where the body of a block belongs: several lines are likelier there than a model may think."""

from __future__ import annotations

_OPENS = (":", "{", "=>")

_COMMENTS = ("#", "//")

_DOCSTRINGS = ('"""', "'''")


def in_an_empty_body(before: str, after: str) -> bool:
    """Whether what belongs between the two is the body of a block: the last line that says anything
    opens one, but for comments and a docstring, and the next one is not indented below it."""
    rest, *below = after.split("\n")
    opener = _without_docstring(before).rpartition("\n")[2]
    if rest.strip() or not opener.endswith(_OPENS):
        return False
    following = next((line for line in below if line.strip()), "")
    return _indent(following) <= _indent(opener)


def _without_docstring(text: str) -> str:
    """A text up to the last line that is no comment, and without a docstring that it ends in."""
    text = _without_comments(text)
    quotes = text[-3:]
    if quotes not in _DOCSTRINGS:
        return text
    begin = text.rfind(quotes, 0, -3)
    owner = text[: max(begin, 0)].rstrip(" \t")
    return _without_comments(owner) if owner.endswith("\n") else text


def _without_comments(text: str) -> str:
    text = text.rstrip()
    while (line := text.rpartition("\n")[2].strip()) and line.startswith(_COMMENTS):
        text = text[: -len(text.rpartition("\n")[2])].rstrip()
    return text


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
