"""One server for all that ask it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from serving import AFTER, BEFORE, PATIENCE_S, serving


@pytest.fixture(scope="module")
def url(real_engine: dict[str, str]) -> Iterator[str]:
    """Where a server with nano is."""
    with serving(real_engine) as found:
        yield found


@pytest.fixture(scope="module")
def answer(url: str) -> str:
    """What all clients get."""
    body = {"prompt": BEFORE, "suffix": AFTER, "max_tokens": 32}
    found = httpx.post(f"{url}/v1/completions", json=body, timeout=PATIENCE_S)
    text = found.json()["choices"][0]["text"]
    assert text.strip()
    return text
