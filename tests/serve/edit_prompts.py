"""Prompts of Zed for a part of a file, written as it does it, and its answers read as it does."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

CURSOR = "<|user_cursor|>"


@dataclass(frozen=True)
class Place:
    """A document, the lines `first` to `last` of which may be rewritten, and a cursor in them. old:
    the document as it was before the last edit."""

    text: str
    first: int
    last: int
    line: int
    column: int
    old: str = ""
    path: str = "shapes/area.py"

    @property
    def part(self) -> str:
        """The lines, without the last one's end."""
        return "\n".join(self.text.split("\n")[self.first : self.last + 1])

    @property
    def _around(self) -> tuple[str, str]:
        lines = self.text.split("\n")
        before = "".join(f"{line}\n" for line in lines[: self.first])
        return before, "".join(f"\n{line}" for line in lines[self.last + 1 :])

    @property
    def _at(self) -> int:
        lines = self.text.split("\n")[self.first : self.line]
        return sum(len(line) + 1 for line in lines) + self.column

    @property
    def _head(self) -> str:
        lines = (self.old or self.text).splitlines(), self.text.splitlines()
        diff = "\n".join([*difflib.unified_diff(*lines, lineterm="")][2:])
        history = f"--- a/{self.path}\n+++ b/{self.path}\n{diff}\n"
        other = "--- a/other.py\n+++ b/other.py\n@@ -1,1 +1,1 @@\n-a\n+b\n"
        files = f"<filename>lib.py\ndef helper(): ...\n\n<filename>edit_history\n{other}{history}\n"
        return f"{files}<filename>{self.path}\n"

    def zeta2(self) -> str:
        before, behind = self._around
        part = f"{self.part[: self._at]}{CURSOR}{self.part[self._at :]}"
        return (
            f"<[fim-suffix]>{_ended(behind)}<[fim-prefix]>{self._head}{before}"
            f"<<<<<<< CURRENT\n{_ended(part)}=======\n<[fim-middle]>"
        )

    def zeta21(self) -> str:
        before, behind = self._around
        part = f"{self.part[: self._at]}{CURSOR}{self.part[self._at :]}"
        middle = part.find("\n") + 1
        marked = f"<|marker_1|>{part[:middle]}<|marker_2|>{part[middle:]}<|marker_3|>\n"
        front = f"<[fim-prefix]>{self._head}{before}"
        return f"<[fim-suffix]>{_ended(behind)}{front}{marked}<[fim-middle]>"

    def sweep(self) -> str:
        lines = self.old.split("\n") if self.old else self.text.split("\n")
        original = "\n".join(lines[self.first : self.last + 1])
        blocks = {
            "lib.py": "def helper(): ...",
            "other.py.diff": "original:\na\nupdated:\nb",
            f"{self.path}.diff": f"original:\n{original}\nupdated:\n{self.part}",
            f"original/{self.path}": original,
            f"current/{self.path}": self.part,
        }
        told = "".join(f"<|file_sep|>{path}\n{_ended(text)}" for path, text in blocks.items())
        return f"{told}<|file_sep|>updated/{self.path}\n"

    def read_zeta2(self, answer: str) -> str:
        """The part that an answer makes of this one, with a line end."""
        return _ended(answer.removesuffix(">>>>>>> UPDATED\n"))

    def read_zeta21(self, answer: str) -> str:
        numbers = re.findall(r"<\|marker_(\d)\|>", answer)
        first, last = numbers[0], numbers[-1]
        if first == last:
            return _ended(self.part)
        assert (first, last) == ("1", "3")
        return _ended(re.sub(r"<\|marker_\d\|>", "", answer))

    def read_sweep(self, answer: str) -> str:
        return _ended(answer or self.part)


def _ended(text: str) -> str:
    return text if text.endswith("\n") else f"{text}\n"
