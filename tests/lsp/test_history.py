"""What was changed last is known by its lines, and what was undone is no edit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffgemma_lsp.next_edit.parts import Region
from diffgemma_lsp.next_edit.places import places_after
from diffgemma_lsp.text.documents import Change
from diffgemma_lsp.text.history import (
    CONTINUES_S,
    MOST_CHARS,
    MOST_EDITS,
    MOST_KNOWN,
    MOST_LINES,
    History,
)
from diffgemma_lsp.text.offers import MOST_OFFERS, MOST_PASSES, SEEN_S
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

    def wants(self, line: int, new: str) -> bool:
        """Whether `new` may be offered in place of a line, after one of the document's edits."""
        origin = max(edit.origin for edit in self.history.of(URI))
        old = self.text.content(line)
        return self.history.wanted(URI, line, old, [new], origin) == (new,)

    def offer(self, line: int, new: str) -> None:
        origin = next(self.history.of(URI)).origin
        old = self.text.content(line)
        self.history.offers.offered(URI, line, old, new, origin, self.now)

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


def test_lines_that_are_put_above_an_edit_are_none_of_it() -> None:
    typist = Typist("a = 1\nb = 2\n")
    typist.replace("b", "x")
    typist.change(len("a = 1\n"), 0, "new\n")
    assert typist.edits == [("", "new\n", 1), ("b = 2\n", "x = 2\n", 2)]
    typist.change(len("a = 1\n"), len("new\n"), "")
    assert typist.edits == [("b = 2\n", "x = 2\n", 1)]


def test_what_is_undone_is_no_edit_and_refused() -> None:
    typist = Typist("a = 1\nb = 2\n")
    typist.replace("a", "x")
    typist.type("b", "cd")
    assert typist.wants(1, "bcd = 2")
    typist.replace("bcd", "b")
    assert typist.edits == [("a = 1\n", "x = 1\n", 0)]
    assert not typist.wants(1, "bcd = 2")
    assert typist.wants(1, "z = 2"), "something else was not undone"
    assert typist.wants(0, "bcd = 2")


def test_what_was_undone_may_follow_a_later_change() -> None:
    typist = Typist("a = 1\nb = 2\nc = 3\n")
    typist.replace("a", "x")
    typist.offer(1, "x = 2")
    typist.replace("b = 2", "x = 2")
    typist.replace("x = 2", "b = 2")
    assert not typist.wants(1, "x = 2")
    typist.offer(2, "x = 3")
    typist.replace("c = 3", "x = 3")
    assert not typist.wants(1, "x = 2"), "what is taken up follows the same change"
    typist.replace("x = 1", "xy = 1")
    assert typist.wants(1, "x = 2")


def test_what_is_refused_is_known_where_it_stands_by_now() -> None:
    typist = Typist("a = 1\nb = 2\nc = 3\n")
    typist.replace("a", "x")
    typist.history.offers.refuse(URI, 2, "c = 3", "x = 3")
    typist.offer(1, "x = 2")
    typist.replace("b = 2", "x = 2")
    assert not typist.wants(2, "x = 3"), "the line above is another"
    origin = next(typist.history.of(URI)).origin
    for start, size, new, line in [(0, 0, "# new\n", 3), (6, 0, "# two\n", 4), (0, 12, "", 2)]:
        typist.change(start, size, new)
        assert typist.history.wanted(URI, line, "c = 3", ["x = 3"], origin) == ()
    typist.change(len("x = 1\nx = 2\n"), 0, "\n")
    assert typist.history.wanted(URI, 3, "c = 3", ["x = 3"], origin) == ()


def test_an_undo_that_comes_late_is_one_too() -> None:
    typist = Typist("a = 1\nb = 2\n")
    typist.replace("b", "c")
    typist.replace("a", "x", wait_s=CONTINUES_S + 1)
    typist.replace("c", "b", wait_s=CONTINUES_S + 1)
    assert typist.edits == [("a = 1\n", "x = 1\n", 0)]


@pytest.mark.parametrize(("seen_s", "refused"), [(SEEN_S + 0.5, True), (SEEN_S - 0.5, False)])
def test_what_was_seen_in_vain_again_and_again_is_refused(seen_s: float, refused: bool) -> None:
    typist = Typist("x = 1\na = 1\n" + "c = 3\n" * MOST_PASSES)
    typist.replace("x", "y")
    origin = next(typist.history.of(URI)).origin
    here = URI, 1, "a = 1"
    for number in range(MOST_PASSES):
        assert typist.history.wanted(*here, ["b = 1"], origin)
        typist.now += CONTINUES_S + 1
        for since in (0.0, 0.1):  # asked again it is the same
            typist.history.offers.offered(*here, "b = 1", origin, typist.now + since)
        typist.replace("c = 3", f"c = {number + 4}", wait_s=seen_s)
        typist.replace(f"c = {number + 4}", f"c = {number + 40}", wait_s=seen_s)
    assert typist.history.wanted(*here, ["b = 1"], origin) == (() if refused else ("b = 1",))


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
    for number in range(MOST_OFFERS + 9):
        typist.history.offers.refuse(URI, 0, "a", str(number))
    assert typist.history.wanted(URI, 0, "a", ["8", "9"], 0) == ("8",)
    typist.history.closed(URI)
    assert typist.edits == []
    assert typist.history.known == {}
    assert typist.history.wanted(URI, 0, "a", ["9"], 0) == ("9",)


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
    """An edit taken back gives the text without it: as long as there was no other, the first."""
    typist, most = Typist(text), 0
    for start, size, new in changes:
        low = min(start, len(typist.text))
        high = min(low + size, len(typist.text))
        typist.change(low, high - low, new, wait_s=0.0)
        for edit in typist.history.of(URI):
            assert 0 <= edit.first <= edit.last < typist.text.line_count
        most = max(most, len(typist.edits))
    edits = list(typist.history.of(URI))
    if most == len(edits) == 1:
        edit, now = edits[0], str(typist.text)
        start = sum(len(typist.text.line(n)) for n in range(edit.first))
        assert now[:start] + edit.old + now[start + len(edit.new(typist.text)) :] == text


def test_a_name_that_is_changed_again_is_followed_where_it_was_and_where_it_was_not() -> None:
    typist = Typist("x = 1\ny = x\nz = x\n")
    typist.replace("x = 1", "side = 1")
    typist.offer(1, "y = side")
    typist.replace("y = x", "y = side")
    typist.replace("side = 1", "edge = 1")
    olds = [old for old, new, _ in typist.edits if new == "edge = 1\n"]
    assert olds == ["side = 1\n", "x = 1\n"]
    typist.replace("edge = 1", "x = 1")
    assert ("side = 1\n", "x = 1\n", 0) in typist.edits, "which is no undoing"


NAMES = ("side", "edge", "width")


def test_another_name_after_all_was_undone_is_followed() -> None:
    """Rename, look, undo, choose a better one."""
    typist = Typist("def f(rate):\n    a = rate\n    return rate + a\n")
    typist.replace("rate", "fraction")
    typist.offer(1, "    a = fraction")
    typist.replace("a = rate", "a = fraction")
    typist.replace("a = fraction", "a = rate")
    typist.replace("fraction", "rate")
    assert typist.edits == [], "all is as it was"
    typist.replace("rate", "share")
    assert typist.edits == [("def f(rate):\n", "def f(share):\n", 0)]
    assert typist.wants(1, "    a = share")
    assert typist.wants(2, "    return share + a")


def test_an_undo_of_what_others_still_follow_is_followed_back() -> None:
    typist = Typist("def f(rate):\n    a = rate\n    return rate + a\n")
    typist.replace("rate", "fraction")
    for line, old in ((1, "a = "), (2, "return ")):
        typist.offer(line, typist.text.content(line).replace("rate", "fraction"))
        typist.replace(f"{old}rate", f"{old}fraction")
    typist.replace("return fraction", "return rate")
    typist.replace("fraction", "rate")
    assert ("def f(fraction):\n", "def f(rate):\n", 0) in typist.edits
    assert typist.wants(1, "    a = rate")


class Renamer(Typist):
    """Renames a parameter, takes followers up, undoes or refuses them, and does other things."""

    def __init__(self) -> None:
        super().__init__("def area(width):\n" + "".join(f"    go({n}, width)\n" for n in range(4)))
        self.head, self.taken, self.away = 0, list[int](), set[tuple[str, str]]()

    @property
    def offered(self) -> dict[int, tuple[str, int]]:
        """What may be offered, by its line, and what it follows, as a request finds it."""
        found: dict[int, tuple[str, int]] = {}
        edits = [Region(e.old, e.first, e.last, e.origin) for e in self.history.of(URI)]
        for place, edit, _ in places_after(str(self.text), "python", self.head, edits):
            here = URI, place.line, self.text.content(place.line)
            for new in self.history.wanted(*here, place.choices, edit.origin):
                found.setdefault(place.line, (new, edit.origin))
        return found

    def rename(self, name: str) -> None:
        old = self.text.content(self.head)
        if old != f"def area({name}):":
            self.replace(old, f"def area({name}):", wait_s=CONTINUES_S + 1)
            self.taken, self.away = [], set()

    def take(self) -> None:
        for line, (new, origin) in sorted(self.offered.items())[:1]:
            old = self.text.content(line)
            self.history.offers.offered(URI, line, old, new, origin, self.now)
            self.replace(old, new)
            self.taken.append(line)

    def undo(self) -> None:
        if self.taken:
            new = self.text.content(line := self.taken.pop())
            number, old = new.split(",")[0], {e.first: e.old for e in self.history.of(URI)}
            self.away.add((number, new))
            self.replace(new, old[line].rstrip("\n"))

    def refuse(self) -> None:
        for line, (new, _) in sorted(self.offered.items())[:1]:
            self.away.add((new.split(",")[0], new))
            self.history.offers.refuse(URI, line, self.text.content(line), new)

    def shift(self) -> None:
        self.change(0, 0, "# more\n", wait_s=CONTINUES_S + 1)
        self.head, self.taken = self.head + 1, [line + 1 for line in self.taken]


@cases(200)
@given(st.lists(st.sampled_from(["rename", "take", "undo", "refuse", "shift"]), max_size=12))
def test_what_was_undone_or_refused_stays_away_until_something_new_is_done(
    steps: list[str],
) -> None:
    typist, renames = Renamer(), 0
    for step in ["rename", *steps]:
        if step == "rename":
            typist.rename(NAMES[renames % len(NAMES)])
            renames += 1
        else:
            getattr(typist, step)()
        for new, _ in typist.offered.values():
            assert (new.split(",")[0], new) not in typist.away
    before = typist.text.content(typist.head)[len("def area(") : -2]
    typist.rename("last")
    lines = [typist.text.content(n) for n in range(typist.head + 1, typist.head + 5)]
    follow = [n + typist.head + 1 for n, line in enumerate(lines) if line.endswith(f" {before})")]
    if not typist.away:
        assert [n for n in follow if n not in typist.offered] == []
