"""What tests of suggestions share: a document, what is suggested in it, and its quiet end."""

from __future__ import annotations

from typing import Any

from in_process import InProcessClient
from lsp_client import completion, until

URI = "file:///work/a.py"
PLAN = '# fake: {"text": "foo(bar)"}\n'


async def texts(client: InProcessClient, *where: Any) -> list[str]:
    return [item["insertText"] for item in await client.request(*completion(URI, *where))]


async def landed(client: InProcessClient) -> None:
    """Returns when nothing is under way any more."""
    session = client.server.session
    await until(lambda: not session.requests._pending and not session.requests._background)
