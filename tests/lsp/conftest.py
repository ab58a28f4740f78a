"""A client for each test, with the real server and a fake engine at the other end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import heartbeat
import pytest
from fake_engine import FakeEngine
from in_process import InProcessClient
from lsp_client import LspClient


@pytest.fixture(scope="session")
def heart() -> Iterator[heartbeat.Heartbeat]:
    """Listens to every server of this process."""
    with heartbeat.listening() as heart:
        yield heart


@pytest.fixture(autouse=True)
def nothing_holds_the_loop_up(heart: heartbeat.Heartbeat) -> Iterator[None]:
    """Whatever a test has the server do."""
    heart.begin()
    yield
    took = f"{heart.longest_s * 1_000:.0f} ms"
    assert heart.longest_s <= heartbeat.MOST_S, f"{heart.what} held the loop up for {took}"


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
