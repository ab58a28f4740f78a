"""A client for each test, with the real server and a fake engine at the other end."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from fake_engine import FakeEngine
from in_process import InProcessClient
from lsp_client import LspClient


@pytest.fixture
def engine() -> FakeEngine:
    """What `client` has at the other end."""
    return FakeEngine()


@pytest.fixture
async def client(engine: FakeEngine) -> AsyncIterator[InProcessClient]:
    """In the server's own process, not yet initialized."""
    client = InProcessClient()
    client.connect(lambda settings: engine)
    yield client
    assert client.unexpected == []


@pytest.fixture
async def stdio_client() -> AsyncIterator[LspClient]:
    """Started, not yet initialized. What is wrong with the conversation fails the test."""
    client = LspClient()
    await client.start()
    try:
        yield client
        await client.finish()
    finally:
        if client.process.returncode is None:
            client.process.kill()
