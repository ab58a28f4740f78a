"""Whatever a user does, in any order: one right answer to each request, and no text goes wrong.

Typing, undo, whole new texts, suggestions that are accepted, completion, code actions, commands,
settings, languages, versions that jump, documents that are broken or end at the cursor, and
withdrawals, in several documents at a time. Short conversations that hypothesis makes
shorter where one fails, and one long one:

    python tests/lsp/test_interleavings.py --steps 100000 [--seed 0]
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cases import cases

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

from buffers import Buffer  # noqa: E402
from fake_engine import FakeEngine  # noqa: E402
from in_process import InProcessClient  # noqa: E402
from lsp_client import LspClient  # noqa: E402
from model_editor import Editor, Refuses  # noqa: E402
from naive import cursors  # noqa: E402

from diffgemma_lsp.text import documents  # noqa: E402

ENCODINGS = ("utf-8", "utf-16", "utf-32")
ALPHABET = "ab_1 (.)\n\r\t\f\u2028é\u0301中😀"
DOCUMENTS = 3
BROKEN = ("x = (\n", "%time x\n", "<<<<<<< a\n", '"""', "f'{", "\\", "def f(:\n", "\tx\n", "try:\n")
"""What breaks a document, or is none of Python's."""

LANGUAGES = ("python", "javascript", "plaintext")

SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"enable": False},
    {"seed": 7},
    {"max_lines": 1},
    {"languages": {"python": {"enable": False}, "javascript": {"seed": 3}}},
    {"languages": {"python": {"max_lines": 1}}},
    {"globs": {"1.py": {"enable": False}, "2.py": {"seed": 5}}},
)

LONGEST = 120
"""Texts that grow longer than this are cut, so that all of them is in every request."""

WEIGHTS = {
    "open": 2,
    "close": 1,
    "type": 8,
    "break": 2,
    "end here": 1,
    "language": 1,
    "versions": 1,
    "delete": 2,
    "several": 1,
    "whole": 1,
    "undo": 3,
    "redo": 2,
    "automatic": 12,
    "at the end": 3,
    "invoked": 4,
    "completion": 4,
    "accept": 5,
    "accept part": 3,
    "actions": 3,
    "choose": 3,
    "order": 3,
    "order back": 1,
    "withdraw": 3,
    "stop": 1,
    "settings": 2,
    "wait": 6,
}


@dataclass(frozen=True)
class Step:
    """kind: what happens. together: sent in one write with what comes before."""

    kind: str
    document: int = 0
    start: float = 0.0
    end: float = 0.0
    text: str = ""
    together: bool = False


fractions = st.floats(0, 1)
steps = st.lists(
    st.builds(
        Step,
        st.sampled_from([kind for kind, weight in WEIGHTS.items() for _ in range(weight)]),
        st.integers(0, DOCUMENTS - 1),
        fractions,
        fractions,
        st.text(ALPHABET, max_size=6),
        st.booleans(),
    ),
    max_size=30,
)


def random_step(random: random.Random) -> Step:
    (kind,) = random.choices(list(WEIGHTS), list(WEIGHTS.values()))
    text = "".join(random.choices(ALPHABET, k=random.choice((1, 1, 1, 2, 6))))
    document, together = random.randrange(DOCUMENTS), random.random() < 0.5
    return Step(kind, document, random.random(), random.random(), text, together)


async def play(editor: Editor, script: Iterable[Step]) -> None:
    """Has the user do all that, and waits until everything is answered."""
    for step in script:
        if not step.together:
            editor.flush()
            await asyncio.sleep(0)
        take(editor, step)
        if step.kind == "wait":
            editor.flush()
            await asyncio.sleep(step.start * 0.01)
    await editor.settle()


def take(editor: Editor, step: Step) -> None:
    """One step."""
    buffer = editor.buffers[step.document]
    places = cursors(buffer.text)
    start, end = sorted(places[round(f * (len(places) - 1))] for f in (step.start, step.end))
    match step.kind:
        case "open" if not buffer.open:
            editor.open(buffer)
        case "close" if buffer.open:
            editor.close(buffer)
        case "type" | "break" | "delete" | "several" | "whole" if (
            buffer.open and len(buffer.text) > LONGEST
        ):
            editor.edit(buffer, (places[len(places) // 4], len(buffer.text), ""))
        case "type" if buffer.open:
            editor.edit(buffer, (start, start, step.text))
        case "break" if buffer.open:
            line = max(place for place in places if place <= start and at_line_start(buffer, place))
            editor.edit(buffer, (line, line, BROKEN[round(step.end * (len(BROKEN) - 1))]))
        case "end here" if buffer.open:
            editor.edit(buffer, (start, len(buffer.text), ""))
        case "language":
            editor.speak(buffer, LANGUAGES[round(step.start * (len(LANGUAGES) - 1))])
        case "versions":
            editor.jump = 1 + round(step.start * 3)
        case "delete" if buffer.open:
            editor.edit(buffer, (start, end, ""))
        case "several" if buffer.open:
            editor.edit(buffer, (end, end, "a"), (start, start, "\n"))
        case "whole" if buffer.open:
            editor.edit(buffer, (start, end, step.text), whole=True)
        case "undo" | "redo" if buffer.open:
            editor.undo(buffer, again=step.kind == "redo")
        case "automatic" | "invoked" | "completion":
            if step.end > 0.3:  # mostly where there is nothing right of the cursor
                places = [n for n in places if buffer.text[n : n + 1] in ("", "\r", "\n")]
            cursor = places[round(step.start * (len(places) - 1))]
            kinds = {"automatic": 2, "invoked": 1, "completion": None}
            editor.complete(buffer, cursor, kinds[step.kind])
        case "at the end":
            editor.complete(buffer, places[-1], 1 if step.start > 0.7 else 2)
        case "accept":
            editor.accept(buffer, None)
        case "accept part":
            editor.accept(buffer, 1 + round(step.start * 8))
        case "actions":
            editor.seek(buffer, start, end)
        case "choose":
            editor.choose(step.start)
        case "order" | "order back":
            editor.execute(buffer, start, end, apply=step.kind == "order")
        case "withdraw":
            editor.withdraw(step.start)
        case "stop":
            editor.stop()
        case "settings":
            editor.configure(SETTINGS[round(step.start * (len(SETTINGS) - 1))])
        case _:
            pass


def at_line_start(buffer: Buffer, place: int) -> bool:
    return place == 0 or buffer.text[place - 1] in "\r\n"


# ---- how it happens ----

OPTIONS = {
    "automatic_budget_ms": 60_000,
    "invoked_budget_ms": 60_000,
    "action_budget_ms": 60_000,
    "warm_up": False,
}
CAPABILITIES = {
    "textDocument": {
        "codeAction": {
            "codeActionLiteralSupport": {"codeActionKind": {"valueSet": [""]}},
            "dataSupport": True,
            "resolveSupport": {"properties": ["edit"]},
        }
    },
    "workspace": {"applyEdit": True, "workspaceEdit": {"documentChanges": True}},
    "window": {"workDoneProgress": True},
}


class Conversation:
    """A server in this process, and the editors that talk to it, one after the other."""

    def __init__(self, runner: asyncio.Runner, encoding: str, refuses: Refuses) -> None:
        self.runner, self.encoding, self.refuses = runner, encoding, refuses
        self.client = InProcessClient()
        self.number = 0
        runner.run(self._connect())

    async def _connect(self) -> None:
        engine = FakeEngine(jitter_ms=5, varied=True)
        # One of the editors has a model that knows but one language.
        self.languages = engine.languages = ("python",) if self.refuses == "silent" else None
        self.client.connect(lambda settings: engine)
        await self.client.initialize([self.encoding], CAPABILITIES, **OPTIONS)

    def play(self, script: list[Step]) -> None:
        """Plays a script in new documents, so that none sees what another one left."""
        self.number += 1
        self.runner.run(self._play(script))

    async def _play(self, script: list[Step]) -> None:
        uris = [f"file:///{self.number}/{n}.py" for n in range(DOCUMENTS)]
        buffers = list(map(Buffer, uris))
        editor = Editor(self.client, self.encoding, buffers, self.refuses, self.languages)
        opening = [Step("open", n) for n in range(DOCUMENTS)]
        await play(editor, [*opening, *script])
        session = self.client.server.session
        for buffer in editor.buffers:
            document = session.documents.get(buffer.uri)
            assert (document is not None) == buffer.open
            if document is not None:
                assert (str(document.text), document.version) == (buffer.text, buffer.version)
                editor.close(buffer)
        editor.configure({})
        editor.flush()
        await self._nothing_is_left_behind()

    async def _nothing_is_left_behind(self) -> None:
        session, rpc = self.client.server.session, self.client.server.rpc
        for _ in range(2_000):
            if not session.requests._background:  # pyright: ignore[reportPrivateUsage]
                break
            await asyncio.sleep(0.001)
        assert session.requests.in_flight == 0
        assert session.requests._background == session.requests._answers == set()  # pyright: ignore[reportPrivateUsage]
        assert rpc._request_futures == {}  # pyright: ignore[reportPrivateUsage]
        self.client.forget_answered()


class NoErrors(logging.Handler):
    """Fails at what the server logs of itself that is an error."""

    def emit(self, record: logging.LogRecord) -> None:
        assert record.levelno < logging.ERROR, record.getMessage()
        assert "internal error" not in record.getMessage(), record.getMessage()


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Nobody types here, so nobody is waited for."""
    monkeypatch.setattr(documents, "MOST_S", 0.003)
    handler = NoErrors()
    logging.getLogger("diffgemma_lsp").addHandler(handler)
    yield
    logging.getLogger("diffgemma_lsp").removeHandler(handler)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_short_conversations(encoding: str) -> None:
    with asyncio.Runner() as runner:
        conversation = Conversation(runner, encoding, "strict")

        @cases(40)
        @given(steps)
        def converse(script: list[Step]) -> None:
            conversation.play(script)

        converse()


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("refuses", ["strict", "silent"])
def test_a_thousand_steps(encoding: str, refuses: Refuses) -> None:
    with asyncio.Runner() as runner:
        walk(Conversation(runner, encoding, refuses), 170, random.Random(f"{encoding}{refuses}"))


def walk(conversation: Conversation, many: int, source: random.Random) -> None:
    """Plays `many` random steps, in scripts of some length."""
    while many > 0:
        script = [random_step(source) for _ in range(min(many, source.randint(5, 60)))]
        many -= len(script)
        conversation.play(script)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_over_stdio(encoding: str) -> None:
    with asyncio.Runner() as runner:
        client = LspClient()
        runner.run(client.start(env={"FAKE_JITTER_MS": "8", "FAKE_VARIED": "1"}))
        try:
            runner.run(over_stdio(client, encoding))
            assert runner.run(client.finish()) == 0
        finally:
            if client.process.returncode is None:
                client.process.kill()


async def over_stdio(client: LspClient, encoding: str) -> None:
    await client.initialize([encoding], CAPABILITIES, **OPTIONS)
    source = random.Random(encoding)
    for number in range(4):
        buffers = [Buffer(f"file:///{number}/{n}.py") for n in range(DOCUMENTS)]
        editor = Editor(client, encoding, buffers, "strict")
        opening = [Step("open", n) for n in range(DOCUMENTS)]
        await play(editor, [*opening, *(random_step(source) for _ in range(40))])
        texts = (await client.request("test/report"))["texts"]
        for buffer in buffers:
            assert texts.get(buffer.uri) == (buffer.text if buffer.open else None)
        editor.configure({})
        editor.flush()


def main() -> None:
    """The long walk."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    documents.MOST_S = 0.003
    logging.getLogger("diffgemma_lsp").addHandler(NoErrors())
    logging.getLogger("diffgemma_lsp").propagate = False
    began, done = time.monotonic(), 0
    while done < chosen.steps:
        for encoding in ENCODINGS:
            for refuses in ("strict", "silent"):
                many = min(1_000, chosen.steps - done)
                source = random.Random(f"{chosen.seed}, {done}")
                with asyncio.Runner() as runner:
                    walk(Conversation(runner, encoding, refuses), many, source)
                done += many
        print(f"{done} steps, {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
