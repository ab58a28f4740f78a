"""A place to be filled, and what is made of a filling before it is put there."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from diffgemma_lsp.polish.polish import first_of_its_lines
from diffgemma_lsp.text.text import Point

Shape = Callable[[str], "str | None"]
"""Makes what the model filled in what is put into the document, or None to leave it as it was."""


@dataclass(frozen=True, slots=True)
class Blank:
    """A place to be filled: what stands from `start` to `end` becomes before + filling + after.

    draft, strength: what to start from, and how much of it may change, from 0 to 1.
    max_tokens: the most tokens of the filling; None leaves it to the model.
    inside: its lines stay in the block that the first one begins.
    """

    start: Point
    end: Point
    before: str = ""
    after: str = ""
    draft: str | None = None
    strength: float = 1.0
    max_tokens: int | None = None
    inside: bool = False
    shape: Shape = str.rstrip

    @property
    def is_prose(self) -> bool:
        """Whether it is words and no code."""
        return self.shape is in_docstring

    def texts(self, filling: str) -> Iterator[str]:
        """What can be put in the place of what stands there, the best first; nothing leaves it."""
        shaped = self.shape(filling)
        if shaped is None:
            return
        yield self.before + shaped + self.after
        if self.draft is None:  # of a rewrite, a part would lose what was selected
            for part in first_of_its_lines(shaped):
                yield self.before + part + self.after


# ---- shapes ----


def something(filling: str) -> str | None:
    """All of it, if it is anything."""
    return filling.rstrip() or None


def part_of_a_line(filling: str) -> str | None:
    """Its first line."""
    return filling.partition("\n")[0].strip() or None


def in_docstring(filling: str) -> str | None:
    """The text of a docstring, which must not end it."""
    said = filling.partition('"""')[0].strip().rstrip('\\"')
    return said or None


def as_hint(filling: str) -> str | None:
    """The type that it begins with, if it does with one: a model that sees a parameter's default
    behind the hole may write one, too, and the next parameter."""
    line = filling.partition("\n")[0].strip()
    ends = [*(found.start() for found in _BEHIND_A_TYPE.finditer(line)), len(line)]
    hints = (line[:end].rstrip() for end in ends[:_PARTS])
    return next((hint for hint in hints if _is_type(hint)), None)


def _is_type(text: str) -> bool:
    """Whether it is an expression that could not do anything but name one thing."""
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    plain = all(isinstance(node, _TYPE_NODES) for node in ast.walk(tree))
    return plain and _names_a_type(tree.body)


def _names_a_type(node: ast.expr) -> bool:
    """Whether it may be a type where it stands: values, like `...`, and lists are only between the
    brackets of one."""
    if isinstance(node, ast.BinOp):
        return _names_a_type(node.left) and _names_a_type(node.right)
    if isinstance(node, ast.Constant):
        return node.value is None or isinstance(node.value, str)
    return not isinstance(node, ast.Tuple | ast.List)


_BEHIND_A_TYPE = re.compile(r"[:,=]")

_PARTS = 32
"""How many beginnings of a line are looked at."""

_TYPE_NODES = (
    ast.Expression,
    ast.Name,
    ast.Attribute,
    ast.Subscript,
    ast.Tuple,
    ast.List,
    ast.Constant,
    ast.BinOp,
    ast.BitOr,
    ast.Load,
)
