"""What typing costs: in runs of the model, and in work of the server itself. Counted, not timed."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest
from fake_engine import FakeEngine
from in_process import InProcessClient
from lsp_client import INVOKED, completion, did_change, did_open, insertion

URI = "file:///work/a.py"


async def connected(engine: FakeEngine, **options: Any) -> InProcessClient:
    client = InProcessClient()
    client.connect(lambda settings: engine)
    await client.initialize(warm_up=False, **options)
    return client


@pytest.mark.parametrize("look_ahead", [False, True])
async def test_typing_through_a_suggestion_runs_the_model_twice_at_most(look_ahead: bool) -> None:
    """At ten keys a second, each of them with a request as editors send it."""
    engine = FakeEngine()
    engine.texts = ("compute_total(first, 2, third)",)
    (text,) = engine.texts
    assert len(text) == 30
    client = await connected(engine, look_ahead=look_ahead)
    client.send(did_open(URI, "value = \n"))
    answers = [client.ask(*completion(URI, 0, 8))]
    await answers[0]
    for typed, char in enumerate(text[:-1]):
        await asyncio.sleep(0.1)
        client.send(did_change(URI, typed + 2, insertion(0, 8 + typed, char)))
        answers.append(client.ask(*completion(URI, 0, 9 + typed)))
    results = await asyncio.gather(*answers)
    for typed, items in enumerate(results):
        (item,) = items
        line = "value = " + text[:typed]
        start = item["range"]["start"]["character"]
        assert line[:start] + item["insertText"] == "value = " + text
    assert engine.runs <= 2


async def work_of_a_key(lines: int, behind: str) -> int:
    """How many functions are called for a keystroke in the middle of so many lines."""
    engine = FakeEngine()
    engine.texts = ("abcdefgh",)
    client = await connected(engine, look_ahead=False)
    middle = lines // 2
    before, after = "a = b + c\n" * middle, "a = b + c\n" * (lines - middle)
    client.send(did_open(URI, f"{before}x = {behind}\n{after}"))
    await client.request(*completion(URI, middle, 4, INVOKED))
    document = client.server.session.documents.get(URI)
    assert document is not None
    calls = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    for at, char in enumerate("abcdef"):
        chunks = set(map(id, document.text._chunks))  # pyright: ignore[reportPrivateUsage]
        held = document.text  # so that no id is used again
        sys.setprofile(count if at >= 3 else None)  # what is made once is made by then
        client.send(did_change(URI, at + 2, insertion(middle, 4 + at, char)))
        answer = client.ask(*completion(URI, middle, 5 + at))
        await answer
        sys.setprofile(None)
        new = document.text._chunks  # pyright: ignore[reportPrivateUsage]
        assert sum(id(chunk) not in chunks for chunk in new) <= 2
        assert document.text._string is None, "the whole text was put together"  # pyright: ignore
        assert held is not document.text
        assert bool(answer.result()) == (not behind)
    return calls


@pytest.mark.parametrize("behind", ["", "d"])
async def test_a_key_is_as_much_work_in_a_large_document(behind: str) -> None:
    small = await work_of_a_key(1_000, behind)
    large = await work_of_a_key(100_000, behind)
    assert 100 < large < 1.2 * small
