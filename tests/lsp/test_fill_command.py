"""What `diffgemma-lsp fill` prints of an answer."""

from __future__ import annotations

import pytest

from diffgemma_lsp.commands.fill_hole import OneHole
from engine.types import Infill, Other


def answer(text: str, *others: Other) -> Infill:
    return Infill(text, (text,), 1, 1, "settled", 0.5, {}, others)


def offered(
    before: str, draft: str, after: str, answer: Infill, language: str
) -> tuple[str | None, str | None, float]:
    """What is offered first: the text, or why there is none, and the confidence."""
    job = OneHole(before + draft + after, len(before), len(before + draft), language, 0.6)
    found = list(job.fillings(answer))
    one = next((one for one in found if one.reason is None), found[0])
    return one.texts[0], one.reason, one.confidence


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_rewrite_that_fits_ends_as_the_draft_did(newline: str) -> None:
    before, draft, after = (
        part.replace("\n", newline) for part in ("if a:\n", "    b\n    c \n", "d\n")
    )
    text = "    e\n    f  \n\n".replace("\n", newline)
    request = (before, draft, after)
    shown, reason, confidence = offered(*request, answer(text), "python")
    assert (shown, reason, confidence) == (f"    e{newline}    f {newline}", None, None)


def test_a_rewrite_that_breaks_the_syntax_is_not_printed() -> None:
    request = ("if a:\n", "    b\n", "c\n")
    shown, reason, _ = offered(*request, answer("    (b\n"), "python")
    assert shown is None
    assert reason is not None
    assert "break the syntax: try another --seed" in reason
    shown, reason, _ = offered(*request, answer("    (b\n"), "markdown")
    assert (shown, reason) == ("    (b\n", None), "of which no syntax is known"


def test_another_answer_stands_in_for_one_that_does_not_fit() -> None:
    request = ("x = f(", "", ")\n")
    best = answer("", Other(" ", 0.3), Other("b", 0.2))
    shown, reason, confidence = offered(*request, best, "python")
    assert (shown, reason, confidence) == ("b", None, 0.2)


def test_a_rewrite_brings_nothing_unseen() -> None:
    request = ("x = 1\n", "y = '\x0c'\n", "")
    shown, reason, _ = offered(*request, answer("y = '\u202e\x0c\x1b2'\n"), "python")
    assert (shown, reason) == ("y = '\x0c2'\n", None)


def test_what_is_printed_is_indented_as_the_file_is() -> None:
    request = ("def f():\n\t", "", "\n\treturn x\n")
    shown, _, _ = offered(*request, answer("if y:\n        x = 1"), "python")
    assert shown == "if y:\n\t\tx = 1"
    request = ("def f():\n\t", "x = 1", "\n\treturn x\n")
    shown, _, _ = offered(*request, answer("if y:\n        x = 1"), "python")
    assert shown == "if y:\n\t\tx = 1"
