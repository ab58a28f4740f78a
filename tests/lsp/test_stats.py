"""What was shown, accepted and kept is counted as it happened, and nothing else is written."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from fake_engine import FakeEngine
from hypothesis import given
from hypothesis import strategies as st
from in_process import InProcessClient
from lsp_client import did_change, did_close, did_open, position

from diffgemma_lsp.cli import main
from diffgemma_lsp.stats.acceptances import Acceptances, Sent
from diffgemma_lsp.stats.counts import (
    Counts,
    Group,
    Stats,
    add_up,
    band,
    read,
    stats_file,
    together,
)
from diffgemma_lsp.text.documents import Change, Document, Documents
from diffgemma_lsp.text.text import Text

URI = "file:///a.py"


class Timers:
    """Calls what it was given when it is told to."""

    def __init__(self) -> None:
        self.waiting: list[tuple[float, Callable[[], None]]] = []

    def __call__(self, seconds: float, call: Callable[[], None]) -> Timers:
        self.waiting.append((seconds, call))
        return self

    def cancel(self) -> None:
        """Of a timer."""

    def pass_by(self) -> None:
        waiting, self.waiting = self.waiting, []
        for _, call in waiting:
            call()


class Typist:
    """A document in which suggestions are shown, accepted and typed."""

    def __init__(self, text: str = "x = \n") -> None:
        self.documents, self.timers, self.stats = Documents(), Timers(), Stats(Path("unused"))
        self.documents.open(Document(URI, "python", 1, Text.of(text)))
        self.acceptances = Acceptances(self.documents, self.stats.add, self.timers)

    @property
    def text(self) -> str:
        document = self.documents.get(URI)
        assert document is not None
        return str(document.text)

    def show(self, at: int, new: str, lead: int = 0, confidence: float | None = 0.75) -> None:
        start = self.text[at - lead : at]
        edit = Change(at - lead, at, start, start + new)
        self.acceptances.sent[URI] = Sent(at, edit, confidence)
        self.acceptances.settle()

    def change(self, start: int, end: int, new: str) -> None:
        change = Change(start, end, self.text[start:end], new)
        text = self.text[:start] + new + self.text[end:]
        self.documents.update(URI, 2, Text.of(text), [change])
        self.acceptances.changed(URI, [change])

    def counted(self) -> dict[str, int]:
        return {kind: number for kind, number in self.stats.session.items() if number}


def test_one_that_is_accepted_as_a_whole() -> None:
    typist = Typist()
    typist.show(4, "foo()")
    assert typist.counted() == {"shown": 1}
    typist.change(4, 4, "foo()")
    assert typist.counted() == {"shown": 1, "accepted": 1, "accepted_whole": 1, "characters": 5}
    typist.timers.pass_by()
    assert typist.counted()["kept_30s"] == typist.counted()["kept_5min"] == 1
    (group,) = read_new(typist.stats)
    assert group == Group(date.today().isoformat(), "python", "0.7")


def test_word_by_word_it_is_one_acceptance() -> None:
    typist = Typist()
    typist.show(4, "foo bar baz")
    typist.change(4, 4, "foo")
    typist.show(7, " bar baz")  # the rest of it comes from what is known
    typist.change(7, 7, " bar")
    assert typist.counted() == {"shown": 1, "accepted": 1, "characters": 7}
    typist.change(11, 11, " baz")
    assert typist.counted() == {"shown": 1, "accepted": 1, "accepted_whole": 1, "characters": 11}


def test_what_is_typed_is_not_accepted() -> None:
    typist = Typist()
    typist.show(4, "foo()")
    for at, character in enumerate("foo()", start=4):
        typist.change(at, at, character)
        typist.show(at + 1, "foo()"[at - 3 :])
    assert typist.counted() == {"shown": 1}


def test_what_is_typed_instead_ends_it() -> None:
    typist = Typist()
    typist.show(4, "foo()")
    typist.change(4, 4, "bar")
    typist.change(4, 7, "")
    typist.change(4, 4, "foo()")  # typed or pasted; nothing was shown any more
    assert typist.counted() == {"shown": 1}


def test_the_word_under_the_cursor_is_not_counted() -> None:
    typist = Typist("x = pri\n")
    typist.show(7, "nt(x)", lead=3)
    typist.change(4, 7, "print(x)")
    assert typist.counted() == {"shown": 1, "accepted": 1, "accepted_whole": 1, "characters": 5}


def test_an_editor_may_send_the_whole_document() -> None:
    typist = Typist("a = fa\nfoo(fa)\n")
    typist.show(6, "foo", lead=2)
    typist.change(0, len(typist.text), "a = fafoo\nfoo(fa)\n")
    assert typist.counted()["accepted_whole"] == 1


def test_what_is_gone_after_half_a_minute_was_not_kept() -> None:
    typist = Typist()
    typist.show(4, "foo()")
    typist.change(4, 4, "foo()")
    typist.change(4, 9, "bar ( )")
    typist.timers.pass_by()
    assert typist.counted()["seen_after_30s"] == 1
    assert "kept_30s" not in typist.counted()


def test_what_a_formatter_moved_is_kept_and_what_is_closed_is_not_asked_for() -> None:
    typist = Typist()
    typist.show(4, "foo( a,b )")
    typist.change(4, 4, "foo( a,b )")
    typist.change(0, len(typist.text), "import a\n\nx = foo(a, b)\n")
    (_, first), (_, last) = typist.timers.waiting
    first()
    typist.documents.close(URI)
    typist.acceptances.closed(URI)
    last()
    assert typist.counted()["kept_30s"] == 1
    assert "seen_after_5min" not in typist.counted()


@given(
    st.lists(st.tuples(st.text("ab(", min_size=2, max_size=6), st.booleans()), max_size=30),
    st.data(),
)
def test_what_is_accepted_is_counted_to_the_character(
    shown: list[tuple[str, bool]], data: st.DataObject
) -> None:
    typist = Typist("")
    for text, taken in shown:
        at = data.draw(st.integers(0, len(typist.text)))
        typist.show(at, text)
        typist.change(at, at, text if taken else "?")
    accepted = [text for text, taken in shown if taken]
    numbers = typist.stats.session
    assert numbers["shown"] == len(shown)
    assert numbers["accepted"] == numbers["accepted_whole"] == len(accepted)
    assert numbers["characters"] == sum(map(len, accepted))


@pytest.mark.parametrize(
    ("confidence", "tenth"), [(None, ""), (0.0, "0.0"), (0.59, "0.5"), (0.6, "0.6"), (1.0, "0.9")]
)
def test_confidence_is_counted_in_tenths(confidence: float | None, tenth: str) -> None:
    assert band(confidence) == tenth


# ---- the file ----


def read_new(stats: Stats) -> Counts:
    return stats._new  # pyright: ignore[reportPrivateUsage]


def test_several_servers_add_to_one_file(tmp_path: Path) -> None:
    path = tmp_path / "of" / "stats.json"

    def serve() -> None:
        stats = Stats(path)
        for _ in range(20):
            stats.add("shown", "python", 0.5)
            stats.write()
        assert not stats.unwritten

    servers = [threading.Thread(target=serve) for _ in range(4)]
    for server in servers:
        server.start()
    for server in servers:
        server.join()
    assert together(read(path).items()) == {"shown": 80}
    assert path.stat().st_mode & 0o077 == 0


def test_what_can_not_be_written_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    stats = Stats(tmp_path / "file" / "stats.json")
    stats.add("shown", "python", None)
    stats.write()
    assert "can't be written" in caplog.text
    assert stats.unwritten


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"version": 2, "counts": []}', '{"version": 1, "counts": [[1]]}']
)
def test_a_broken_file_is_put_aside(tmp_path: Path, content: str) -> None:
    path = tmp_path / "stats.json"
    path.write_text(content)
    stats = Stats(path)
    stats.add("shown", "python", None)
    stats.write()
    assert together(read(path).items()) == {"shown": 1}
    assert (tmp_path / "stats.broken.json").read_text() == content


def test_old_numbers_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "stats.json"
    stats = Stats(path)
    old = (date.today() - timedelta(days=401)).isoformat()
    stats.add("shown", "python", None)
    add_up(read_new(stats), {Group(old, "python", ""): read_new(stats).copy().popitem()[1]})
    stats.write()
    assert [group.day for group in read(path)] == [date.today().isoformat()]


# ---- a session, and the command ----


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return stats_file()


async def accept(client: InProcessClient, text: str, count: int, every: int) -> int:
    """Asks `count` times, and accepts all but each `every`th. How many characters were accepted."""
    characters, version = 0, 1
    client.send(did_open(URI, text))
    for number in range(count):
        lines = text.split("\n")
        at = position(len(lines) - 1, len(lines[-1]))
        asked = {"textDocument": {"uri": URI}, "position": at, "context": {"triggerKind": 2}}
        answer = await client.request("textDocument/inlineCompletion", asked)
        item: dict[str, Any] = answer[0]
        new: str = item["insertText"] if number % every else "?"
        characters += len(new) if number % every else 0
        edit = {"range": {"start": item["range"]["start"], "end": at}, "text": new}
        head = lines[-1][: item["range"]["start"]["character"]]
        text = "\n".join([*lines[:-1], head + new])
        version += 1
        client.send(did_change(URI, version, edit))
        version += 1
        start = position(text.count("\n"), len(text.rpartition("\n")[2]))
        line_end = {"range": {"start": start, "end": start}, "text": "\n"}
        client.send(did_change(URI, version, line_end))
        text += "\n"
    return characters


async def test_200_acceptances_are_counted_to_the_last(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client = InProcessClient()
    client.connect(lambda _: FakeEngine())
    await client.initialize()
    characters = await accept(client, "", 250, every=5)
    told = await client.request("diffgemma/status", {})
    assert told["suggestions"] == {"shown": 250, "accepted": 200, "characters": characters}
    await client.request("shutdown")
    numbers = together(read(file).items())
    assert (numbers["shown"], numbers["accepted"]) == (250, 200)
    assert numbers["characters"] == characters
    assert URI not in file.read_text()
    assert main(["stats"]) == 0
    table = capsys.readouterr().out
    assert "python" in table
    assert "200  80%" in table
    assert main(["stats", "--json", "--days", "1"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert sum(row["accepted"] for row in said["counts"]) == 200


async def test_nothing_is_counted_where_that_is_turned_off(file: Path) -> None:
    client = InProcessClient()
    client.connect(lambda _: FakeEngine())
    await client.initialize(stats=False)
    await accept(client, "", 5, every=2)
    client.send(did_close(URI))
    await client.request("shutdown")
    assert not file.exists()


def test_without_numbers_it_says_so(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stats"]) == 1
    assert "No suggestion was shown" in capsys.readouterr().out
    assert not file.exists()


@pytest.mark.parametrize("days", ["0", "-1", "x", ""])
def test_a_number_of_days_is_one(days: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["stats", "--days", days])
    assert "not a number of days" in capsys.readouterr().err
