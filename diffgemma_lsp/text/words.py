"""Words as editors see them."""

from __future__ import annotations


def word_before(line: str) -> str:
    """The part of a word that ends the line. Combining marks belong to it."""
    start = len(line)
    while start and f"_{line[start - 1]}".isidentifier():
        start -= 1
    return line[start:]
