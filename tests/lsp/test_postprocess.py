"""What is shown of a filling."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffgemma_lsp.postprocess import polish, without_overlap

texts = st.text("ab ()[]\"':,\n\r\tdéf😀", max_size=30)


@pytest.mark.parametrize(
    ("text", "suffix", "shown"),
    [
        # What repeats what follows goes.
        ("a + b\n    return a", "\n    return a\n", "a + b"),
        ("a + b\n    return a", "\n    return a", "a + b"),
        ("one\ntwo\nthree", "\ntwo\nthree\nfour", "one"),
        ("x)", ")", "x"),
        ("x)):", ")):\n    pass", "x"),
        ("text'", "'", "text"),
        ('Doc."""', '"""\n', "Doc."),
        ("value = 3", "value = 3\n", ""),
        ("n: int, total_size", " total_size = 1)", "n: int,"),
        ("done\n", "\nnext", "done"),
        ("done\n\n\n", "\nnext", "done"),
        ("done  \n    ", "\nnext", "done"),
        # What only looks like it stays.
        ("bar()", ")", "bar()"),
        ("[1, 2]", "]", "[1, 2]"),
        ("d['k']", "']", "d['k']"),
        ("a, b", "b2, c", "a, b"),
        ("if x:\n    y()", "\n\nz()", "if x:\n    y()"),
        ("f(a)\n}", "\n}x", "f(a)\n}"),
        # Nothing is worth nothing.
        ("", "x", ""),
        ("  \n\t", "x", ""),
        ("\u3000", "", ""),
    ],
)
def test_overlap(text: str, suffix: str, shown: str) -> None:
    assert polish(text, suffix, "\n") == shown


@pytest.mark.parametrize(
    ("max_lines", "shown"), [(None, "a\nb\nc"), (1, "a"), (2, "a\nb"), (3, "a\nb\nc")]
)
def test_lines(max_lines: int | None, shown: str) -> None:
    assert polish("a\nb\nc", "\nd", "\n", max_lines) == shown


@settings(max_examples=2_000, deadline=None)
@given(texts, texts, st.sampled_from(["\n", "\r\n", "\r"]), st.none() | st.integers(1, 3))
def test_a_filling_is_only_ever_shortened(
    text: str, suffix: str, newline: str, max_lines: int | None
) -> None:
    shown = polish(text, suffix, newline, max_lines)
    plain = text.replace("\r\n", "\n").replace("\r", "\n")
    assert plain.startswith(shown.replace(newline, "\n"))
    assert shown == "" or shown.strip()
    assert shown.replace(newline, "").count("\n") == shown.replace(newline, "").count("\r") == 0
    if max_lines is not None:
        assert shown.count(newline) < max_lines


@settings(max_examples=2_000, deadline=None)
@given(texts, texts)
def test_once_is_enough(text: str, suffix: str) -> None:
    once = without_overlap(text, suffix)
    assert without_overlap(once, suffix) == once


@settings(max_examples=1_000, deadline=None)
@given(texts, st.text("abc(", min_size=8, max_size=30), texts)
def test_a_long_repetition_never_stays(text: str, repeated: str, more: str) -> None:
    assert not without_overlap(text + repeated, repeated + more).endswith(repeated)


@settings(max_examples=1_000, deadline=None)
@given(texts, st.text("xyz", min_size=1, max_size=30))
def test_what_repeats_nothing_stays_whole(text: str, suffix: str) -> None:
    assert without_overlap(text, suffix) == text
