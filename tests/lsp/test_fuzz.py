"""Some minutes of `fuzz.py` in some seconds; hypothesis says which."""

from __future__ import annotations

import asyncio
import random
import sys
from itertools import count

import pytest
from fuzz import in_process, over_stdio, script
from hypothesis import given
from hypothesis import strategies as st

from diffgemma_lsp.lsp.mending import DEEPEST
from tests.cases import cases


@cases(12)
@given(st.integers(0, 2**32))
def test_in_process(seed: int) -> None:
    asyncio.run(in_process(random.Random(seed), 8))


async def test_over_stdio() -> None:
    await over_stdio(random.Random(1), 15)


def test_the_fuzzer_goes_deeper_than_is_allowed() -> None:
    limit = sys.getrecursionlimit()
    frames = (frame for seed in range(30) for frame in script(random.Random(seed), count())[0])
    deepest = max(frame.count(b"[") + frame.count(b'{"x"') for frame in frames)
    assert deepest > 2 * DEEPEST
    assert sys.getrecursionlimit() == limit, "what runs afterwards runs as it does elsewhere"


def test_a_log_of_nonsense_can_be_reported(request: pytest.FixtureRequest) -> None:
    report = pytest.TestReport(
        "x", ("x", 1, "x"), {}, "passed", None, "call", [("Captured log call", "\ud800 was closed")]
    )
    hook = request.config.hook.pytest_report_to_serializable
    sent = hook(config=request.config, report=report)
    assert sent["sections"] == [("Captured log call", "\\ud800 was closed")]
