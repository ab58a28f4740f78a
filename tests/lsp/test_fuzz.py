"""Some minutes of `fuzz.py` in some seconds; hypothesis says which."""

from __future__ import annotations

import asyncio
import random

from fuzz import in_process, over_stdio
from hypothesis import given, settings
from hypothesis import strategies as st

from diffgemma_lsp.lsp.mending import DEEPEST


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32))
def test_in_process(seed: int) -> None:
    asyncio.run(in_process(random.Random(seed), 8))


async def test_over_stdio() -> None:
    await over_stdio(random.Random(1), 15)


def test_the_fuzzer_goes_deeper_than_is_allowed() -> None:
    assert DEEPEST < 300
