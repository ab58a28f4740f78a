"""Typing, requests, cancels, opening and closing in any order: exactly one right answer to each.

The same random conversations, in process (hundreds) and over real standard input and output.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from fake_engine import FakeEngine, filling
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from in_process import InProcessClient
from lsp_client import (
    AUTOMATIC,
    INVOKED,
    LspClient,
    RpcError,
    completion,
    did_change,
    did_close,
    did_open,
    position,
)
from naive import cursors, naive_position, plain

from diffgemma_lsp.postprocess import Around, polish

ENCODINGS = ("utf-8", "utf-16", "utf-32")
ALPHABET = "ab_1 ()\n\r\t\f\u2028é\u0301中😀"
CLOSING = set(" \t\f\u2028)]}>\"'`:,;\v\x1c\x1d\x1e\x1f\x85\u2029\u3000\xa0")


# ---- what happens ----


@dataclass(frozen=True)
class Step:
    kind: Literal["open", "close", "edit", "ask", "invoke", "cancel", "wait"]
    document: int = 0
    start: float = 0.0
    end: float = 0.0
    text: str = ""
    together: bool = False
    """Sent in one write with what comes before."""


fractions = st.floats(0, 1)
steps = st.lists(
    st.builds(
        Step,
        st.sampled_from(["open", "close", *["edit"] * 4, *["ask"] * 6, "invoke", "invoke"])
        | st.sampled_from(["cancel", "wait", "wait"]),
        st.integers(0, 1),
        fractions,
        fractions,
        st.text(ALPHABET, max_size=6),
        st.booleans(),
    ),
    max_size=25,
)


@dataclass
class Buffer:
    """A document as the editor has it."""

    uri: str
    text: str = "x = \n"
    version: int = 0
    open: bool = False


@dataclass
class Asked:
    """A request and what its answer may be."""

    buffer: Buffer
    known: bool
    text: str
    cursor: int
    automatic: bool
    encoding: str
    answer: asyncio.Future[Any]
    cancelled: bool = False
    undisturbed: bool = True
    """Nothing that ends it has happened since."""

    def check(self, outcome: Any) -> None:
        if isinstance(outcome, RpcError):
            assert self.cancelled
            assert outcome.code == -32800
            return
        before, after = self.text[: self.cursor], self.text[self.cursor :]
        rest = plain(after).split("\n")[0]
        wanted = self.known and not (self.automatic and set(rest) - CLOSING)
        if not outcome:
            assert not (wanted and self.undisturbed and self.filled), "an answer was expected"
            return
        assert wanted
        (item,) = outcome
        lead = self.lead
        assert item["insertText"] == lead + self.filled
        ends = [
            naive_position(self.text, offset, self.encoding)
            for offset in (self.cursor - len(lead), self.cursor)
        ]
        assert item["range"] == {"start": position(*ends[0]), "end": position(*ends[1])}
        assert before.endswith(lead)

    @property
    def lead(self) -> str:
        line = plain(self.text[: self.cursor]).split("\n")[-1]
        size = 0
        while size < len(line) and ("a" + line[len(line) - size - 1]).isidentifier():
            size += 1
        return line[len(line) - size :]

    @property
    def filled(self) -> str:
        before, after = plain(self.text[: self.cursor]), plain(self.text[self.cursor :])
        around = Around(before, after, "python")
        return polish(filling(before, after), around, automatic=self.automatic).text


@dataclass
class Editor:
    """Plays steps and remembers what was asked."""

    client: LspClient
    encoding: str
    buffers: list[Buffer]
    asked: list[Asked] = field(default_factory=list)
    outbox: list[dict[str, Any]] = field(default_factory=list)

    async def play(self, script: list[Step]) -> None:
        for step in [Step("open", 0), Step("open", 1), *script]:
            if not step.together:
                self.flush()
                await asyncio.sleep(0)
            for message in self.messages(step):
                self.outbox.append(message)
            if step.kind == "wait":
                self.flush()
                await asyncio.sleep(step.start * 0.01)
        self.flush()
        answers = [asked.answer for asked in self.asked]
        outcomes = await asyncio.wait_for(asyncio.gather(*answers, return_exceptions=True), 20)
        for asked, outcome in zip(self.asked, outcomes, strict=True):
            asked.check(outcome)

    def flush(self) -> None:
        if self.outbox:
            self.client.send(*self.outbox)
            self.outbox.clear()

    def disturb(self, buffer: Buffer, invoked_too: bool = True) -> None:
        for asked in self.asked:
            if asked.buffer is buffer and (asked.automatic or invoked_too):
                asked.undisturbed = False

    def messages(self, step: Step) -> Iterator[dict[str, Any]]:
        buffer = self.buffers[step.document]
        places = cursors(buffer.text)
        start, end = sorted(round(f * (len(places) - 1)) for f in (step.start, step.end))
        match step.kind:
            case "open" if not buffer.open:
                buffer.open, buffer.version = True, buffer.version + 1
                yield did_open(buffer.uri, buffer.text, buffer.version)
            case "close" if buffer.open:
                buffer.open = False
                self.disturb(buffer)
                yield did_close(buffer.uri)
            case "edit" if buffer.open:
                yield self.edit(buffer, places[start], places[end], step.text)
            case "ask" | "invoke":
                if step.end > 0.3:  # mostly where there is nothing right of the cursor
                    places = [n for n in places if buffer.text[n : n + 1] in ("", "\r", "\n")]
                    start = round(step.start * (len(places) - 1))
                yield self.ask(buffer, places[start], step.kind == "ask")
            case "cancel" if self.asked:
                asked = self.asked[round(step.start * (len(self.asked) - 1))]
                asked.cancelled, asked.undisturbed = True, False
                self.flush()
                self.client.cancel(asked.answer)
            case _:
                return

    def edit(self, buffer: Buffer, start: int, end: int, text: str) -> dict[str, Any]:
        ends = [position(*naive_position(buffer.text, n, self.encoding)) for n in (start, end)]
        self.disturb(buffer)
        buffer.text = buffer.text[:start] + text + buffer.text[end:]
        buffer.version += 1
        change = {"range": {"start": ends[0], "end": ends[1]}, "text": text}
        return did_change(buffer.uri, buffer.version, change)

    def ask(self, buffer: Buffer, cursor: int, automatic: bool) -> dict[str, Any]:
        self.disturb(buffer, invoked_too=not automatic)
        place = naive_position(buffer.text, cursor, self.encoding)
        kind = AUTOMATIC if automatic else INVOKED
        message, answer = self.client.asking(*completion(buffer.uri, *place, kind))
        self.asked.append(
            Asked(buffer, buffer.open, buffer.text, cursor, automatic, self.encoding, answer)
        )
        return message


# ---- how it happens ----

OPTIONS = {"automatic_budget_ms": 60_000, "invoked_budget_ms": 60_000, "warm_up": False}


def converse(
    runner: asyncio.Runner,
    client: LspClient,
    encoding: str,
    examples: int,
    look: Callable[[], None] = lambda: None,
) -> None:
    """Plays many scripts in one session. New documents each time: no example sees another's."""
    numbers = itertools.count()

    @settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(steps)
    def conversation(script: list[Step]) -> None:
        uris = [f"file:///{next(numbers)}.py" for _ in range(2)]
        runner.run(Editor(client, encoding, [Buffer(uri) for uri in uris]).play(script))
        look()

    conversation()
    assert client.unexpected == []
    assert client.shown == []


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_in_process(encoding: str) -> None:
    with asyncio.Runner() as runner:
        client = InProcessClient()

        async def connect() -> None:
            client.connect(lambda settings: FakeEngine(jitter_ms=5))
            await client.initialize([encoding], **OPTIONS)

        def nothing_is_left_behind() -> None:
            runner.run(asyncio.sleep(0.002))
            assert client.server.session.in_flight == 0
            assert client.server.rpc._request_futures == {}  # pyright: ignore[reportPrivateUsage]
            assert client.server.session._tasks == set()  # pyright: ignore[reportPrivateUsage]

        runner.run(connect())
        converse(runner, client, encoding, 200, nothing_is_left_behind)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_over_stdio(encoding: str) -> None:
    with asyncio.Runner() as runner:
        client = LspClient()
        runner.run(client.start(env={"FAKE_JITTER_MS": "8"}))
        try:
            runner.run(client.initialize([encoding], **OPTIONS))
            converse(runner, client, encoding, 100)
            assert runner.run(client.finish()) == 0
        finally:
            if client.process.returncode is None:
                client.process.kill()
