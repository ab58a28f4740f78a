"""A client for each test, with the real server and a fake engine at the other end."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from lsp_client import LspClient


@pytest.fixture
async def client() -> AsyncIterator[LspClient]:
    """Started, not yet initialized. What is wrong with the conversation fails the test."""
    client = LspClient()
    await client.start()
    try:
        yield client
        await client.finish()
    finally:
        if client.process.returncode is None:
            client.process.kill()
