"""What was changed last is known by its lines, and what was undone is no edit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from diffgemma_lsp.text.documents import Change
from diffgemma_lsp.text.history import (
    CONTINUES_S,
    MOST_CHARS,
    MOST_EDITS,
    MOST_KNOWN,
    MOST_LINES,
    MOST_OFFERS,
    History,
    spot_of,
)
from diffgemma_lsp.text.text import Text
from tests.cases import cases

URI = "file:///a.py"


class Typist:
    """Changes a document, a second after the other."""

    def __init__(self, text: str) -> None:
        self.history, self.text, self.now = History(), Text.of(text), 0.0

    def replace(self, old: str, new: str, wait_s: float = 1.0) -> None:
        self.change(str(self.text).index(old), len(old), new, wait_s)

    def change(self, start: int, size: int, new: str, wait_s: float = 1.0) -> None:
        before, self.now = self.text, self.now + wait_s
        first, last = before.point(start), before.point(start + size)
        self.text = before.edit(first, last, new)
        change = Change(start, start + size, before.between(first, last), new)
        self.history.changed(URI, before, change, self.text, self.now)

    def type(self, behind: str, keys: str) -> None:
        at = str(self.text).index(behind) + len(behind)
        for offset, key in enumerate(keys):
            self.change(at + offset, 0, key)

    @property
    def edits(self) -> list[tuple[str, str, int]]:
        return [(e.old, e.new(self.text), e.first) for e in self.history.of(URI)]


def test_keys_that_continue_one_another_are_one_edit() -> None:
    typist = Typist("a = 1\nb = 2\n")
    typist.type("b", "cd")
    typist.replace("2", "3")
    assert typist.edits == [("b = 2\n", "bcd = 3\n", 1)]


def test_other_lines_and_later_changes_are_edits_of_their_own() -> None:
    typist = Typist("a = 1\nb = 2\n")
    typist.type("b", "c")
    typist.type("a", "x")
    typist.replace("1", "7", wait_s=CONTINUES_S + 1)
    assert [(old, first) for old, _, first in typist.edits] == [
        ("ax = 1\n", 0),
        ("a = 1\n", 0),
        ("b = 2\n", 1),
    ]


def test_an_edit_moves_with_the_lines_above_it() -> None:
    typist = Typist("a = 1\nb = 2\nc = 3\n")
    typist.replace("b", "x")
    typist.change(0, 0, "new\nlines\n")
    assert typist.edits[1] == ("b = 2\n", "x = 2\n", 3)
    typist.change(0, len("new\nlines\na = 1\n"), "")
    assert typist.edits[1] == ("b = 2\n", "x = 2\n", 0) or typist.edits[0][2] == 0


def test_what_is_undone_is_no_edit_and_its_place_is_refused() -> None:
    typist = Typist("a = 1\nb = 2\n")
    typist.type("b", "cd")
    assert not typist.history.refused(spot_of(URI, typist.text, 1))
    typist.replace("bcd", "b")
    assert typist.edits == []
    assert typist.history.refused(spot_of(URI, typist.text, 1))
    assert not typist.history.refused(spot_of(URI, typist.text, 0))


def test_an_undo_that_comes_late_is_one_too() -> None:
    typist = Typist("a = 1\nb = 2\n")
    typist.replace("b", "c")
    typist.replace("a", "x", wait_s=CONTINUES_S + 1)
    typist.replace("c", "b", wait_s=CONTINUES_S + 1)
    assert typist.edits == [("a = 1\n", "x = 1\n", 0)]


def test_what_is_offered_in_vain_again_and_again_is_refused() -> None:
    typist = Typist("a = 1\nb = 2\n" + "c = 3\n" * MOST_OFFERS)
    spot = spot_of(URI, typist.text, 0)
    for number in range(MOST_OFFERS):
        assert not typist.history.refused(spot)
        typist.history.offered(spot)
        typist.history.offered(spot)  # the same again, while nothing else was done
        typist.replace("c = 3", f"c = {number + 4}", wait_s=CONTINUES_S + 1)
    assert typist.history.refused(spot)


def test_it_is_bounded_and_forgets_with_the_document() -> None:
    typist = Typist("x = 1\n" * 99)
    for line in range(99):
        typist.change(line * 6 + 4, 1, "2")
    assert len(typist.edits) == MOST_EDITS
    typist.change(0, 0, "y" * (MOST_CHARS + 1))
    typist.change(0, 0, "z\n" * (MOST_LINES + 1))
    assert all(len(old) < MOST_CHARS for old, _, _ in typist.edits)
    for number in range(MOST_KNOWN + 9):
        typist.history.remember((URI, str(number)), (0.0,))
    assert len(typist.history.known) == MOST_KNOWN
    typist.history.refuse(spot_of(URI, typist.text, 0))
    typist.history.closed(URI)
    assert typist.edits == []
    assert typist.history.known == {}
    assert not typist.history.refused(spot_of(URI, typist.text, 0))


@cases(300)
@given(
    text=st.text("ab\n", max_size=30),
    changes=st.lists(
        st.tuples(st.integers(0, 40), st.integers(0, 9), st.text("cd\n", max_size=5)), max_size=8
    ),
)
def test_the_old_lines_in_the_place_of_the_new_ones_give_back_what_was(
    text: str, changes: list[tuple[int, int, str]]
) -> None:
    """Each edit by itself, taken back, gives the text without it: of one edit, the first text."""
    typist = Typist(text)
    for start, size, new in changes:
        low = min(start, len(typist.text))
        high = min(low + size, len(typist.text))
        typist.change(low, high - low, new, wait_s=0.0)
        for edit in typist.history.of(URI):
            assert 0 <= edit.first <= edit.last < typist.text.line_count
    edits = list(typist.history.of(URI))
    if len(edits) == 1:
        edit, now = edits[0], str(typist.text)
        start = sum(len(typist.text.line(n)) for n in range(edit.first))
        assert now[:start] + edit.old + now[start + len(edit.new(typist.text)) :] == text
