"""Documents and positions in the most obvious way: what the real ones are compared to."""

from __future__ import annotations


def naive_lines(text: str) -> list[str]:
    """Without line ends."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def naive_line_starts(text: str) -> list[int]:
    starts = [0]
    for at, char in enumerate(text):
        if char == "\n" or (char == "\r" and text[at + 1 : at + 2] != "\n"):
            starts.append(at + 1)
    return starts


def size(text: str, encoding: str) -> int:
    unit = {"utf-8": ("utf-8", 1), "utf-16": ("utf-16-le", 2), "utf-32": ("utf-32-le", 4)}
    codec, width = unit[encoding]
    return sum(len(char.encode(codec, "surrogatepass")) for char in text) // width


def naive_offset(text: str, line: int, character: int, encoding: str) -> int:
    lines = naive_lines(text)
    if line >= len(lines):
        return len(text)
    fitting = [
        n for n in range(len(lines[line]) + 1) if size(lines[line][:n], encoding) <= character
    ]
    return naive_line_starts(text)[line] + max(fitting, default=0)


def naive_position(text: str, offset: int, encoding: str) -> tuple[int, int]:
    """The line and the character of an offset that is not inside a line end."""
    starts = naive_line_starts(text)
    line = max(n for n, start in enumerate(starts) if start <= offset)
    return line, size(text[starts[line] : offset], encoding)


def cursors(text: str) -> list[int]:
    """The offsets at which a cursor can stand."""
    return [n for n in range(len(text) + 1) if text[max(n - 1, 0) : n + 1] != "\r\n"]


def plain(text: str) -> str:
    """With "\n" for every line end."""
    return text.replace("\r\n", "\n").replace("\r", "\n")
