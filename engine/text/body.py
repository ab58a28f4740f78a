"""Where the body of a block belongs: several lines are likelier there than a model may think."""

from __future__ import annotations

_OPENS = (":", "{", "=>")


def in_an_empty_body(before: str, after: str) -> bool:
    """Whether what belongs between the two is the body of a block: the last line that is not blank
    opens one, and the next one is not indented below it."""
    rest, *below = after.split("\n")
    opener = before.rstrip().rpartition("\n")[2]
    if rest.strip() or not opener.endswith(_OPENS):
        return False
    following = next((line for line in below if line.strip()), "")
    return _indent(following) <= _indent(opener)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
