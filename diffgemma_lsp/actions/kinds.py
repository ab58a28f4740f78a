"""The code actions there are: names, titles, and what a model has to be able to do for each.

A new one is an `ActionKind` here and its maker in `plan.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

_KIND = "refactor.rewrite.diffgemma."


@dataclass(frozen=True, slots=True)
class ActionKind:
    """One kind of order. needs: what the model has to be able to do."""

    name: str
    title: str
    lsp: str
    needs: str = "fill"


KINDS = {
    kind.name: kind
    for kind in (
        ActionKind("fill", "Fill here", _KIND + "fill"),
        ActionKind("rewrite", "Rewrite selection", _KIND + "selection"),
        ActionKind("instruct", "Rewrite as the comment above says", _KIND + "instruct", "instruct"),
        ActionKind("holes", "Fill all holes in selection", _KIND + "holes"),
        ActionKind("fix", "Fix", "quickfix.diffgemma", "instruct"),
        ActionKind("docstring", "Add docstring", _KIND + "docstring"),
        ActionKind("hints", "Add type hints", _KIND + "hints"),
        ActionKind("body", "Complete body", _KIND + "body"),
    )
}
