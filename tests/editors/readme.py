"""Configurations as the pages of the editors and `setup` have them, for this checkout."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from diffgemma_lsp.setup.place import Place

ROOT = Path(__file__).resolve().parents[2]

TEXT = """\
# fake: {"text": "width * height"}
def area(width, height):
    base = width + height
    side = ...
    return\x20
"""
"""To be completed at its end, rewritten in its third line, and filled in its fourth."""

HOLES = """\
class Rectangle:
    def __init__(self, width, height):
        self.width = ...
        self.height = ...
"""


def a_place(home: Path, server: tuple[str, ...]) -> Place:
    """Where `setup` writes for a user of this home, whose program is that server."""
    program = home / "diffgemma-lsp"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(server)} "$@"\n')
    program.chmod(0o755)
    return Place(home, home, home, home, str(program))


def blocks(editor: str, language: str) -> list[str]:
    """The pieces of code in a language on the page of an editor."""
    page = (ROOT / "editors" / editor / "README.md").read_text(encoding="utf-8")
    found = re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)
    assert found, f"the page of {editor} has lost its configuration"
    return found
