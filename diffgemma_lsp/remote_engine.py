"""An engine on another machine, lent out by `diffgemma-lsp serve`: no model here, and no torch.

It is the engine's own wire format, so frames, deadlines and cancelling are as on this machine: who
leaves a stream early ends its run there.
"""

from __future__ import annotations

import contextlib
import os
import ssl
import stat
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx

from diffgemma_lsp.engine_client import ANSWER_WAIT_S, asking, events_of
from engine.errors import EngineError, EngineUnavailable
from engine.paths import VERSION_HEADER, identity
from engine.types import Frame, Infill, InfillRequest

PATH = "/engine"
"""Below it are the routes of `serve` for us, after the path of the URL."""

BUSY = "too many requests at once: wait a moment"
"""What `serve` says when it has as many runs as it may."""


class EngineBusy(EngineUnavailable):
    """It is there, and has too much to do right now."""


class RemoteEngine:
    """Talks to it. Bound to one event loop.

    url: where it is. token_file: with the token for it, one line. Certificates are checked against
    the system's, or those that SSL_CERT_FILE names. Raises EngineUnavailable if the token can't be
    read.
    """

    def __init__(self, url: str, token_file: str | None = None) -> None:
        self.url = url.rstrip("/")
        headers = {VERSION_HEADER: identity()}
        if token_file is not None:
            headers["authorization"] = f"Bearer {read_token(token_file)}"
        self._http = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(
                verify=ssl.create_default_context(),
                limits=httpx.Limits(max_connections=None),
            ),
            base_url=self.url + PATH,
            headers=headers,
            timeout=ANSWER_WAIT_S,
        )

    async def stream(self, request: InfillRequest) -> AsyncGenerator[Frame | Infill]:
        """The frames as they settle, then the Infill.

        Raises the EngineError that the engine reports, and EngineUnavailable if it can't be
        reached, refuses, or goes away.
        """
        try:
            async with asking(self._http, "/infill", request) as response:
                await self._must_be_served(response)
                async with contextlib.aclosing(events_of(response)) as events:
                    async for event in events:
                        yield event
                        if isinstance(event, Infill):
                            return
        except (httpx.HTTPError, OSError, ValueError) as error:
            raise self._away(error) from error
        raise EngineUnavailable(f"the engine at {self.url} went away while it worked: ask again")

    async def status(self) -> dict[str, Any] | None:
        """What the engine says of itself; None if none runs there.

        Raises EngineUnavailable if it can't be reached, or refuses.
        """
        try:
            response = await self._http.get("/status")
            await self._must_be_served(response)
            said: dict[str, Any] = response.json()
            return said or None
        except (httpx.HTTPError, OSError, ValueError) as error:
            raise self._away(error) from error

    async def warm_up(self) -> None:
        """Looks whether it is there. What it loads, and when, is its owner's choice.

        Raises EngineUnavailable if it is not.
        """
        await self.status()

    async def unload(self) -> bool:
        """Its memory is not ours to free."""
        return False

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def _must_be_served(self, response: httpx.Response) -> None:
        if response.status_code == 200:
            return
        await response.aread()
        if response.status_code in (401, 403):
            remedy = "see the setting engine_token_file"
        elif response.status_code == 404:
            remedy = "is it diffgemma-lsp serve, of this version?"
        else:
            remedy = "try again in a moment"
        said = _message(response)
        # What has to be waited for says so; one that is loading, or away, is no better for it.
        busy = response.status_code == 429 or said == BUSY
        kind = EngineBusy if busy else EngineUnavailable
        raise kind(f"the engine at {self.url} does not serve this ({said}): {remedy}")

    def _away(self, error: Exception) -> EngineError:
        why = str(error) or type(error).__name__
        if isinstance(error, ValueError) and not isinstance(error, httpx.HTTPError):
            why = "it does not speak as an engine does"  # whose own text may quote the answer
        return EngineUnavailable(
            f"the engine at {self.url} can't be reached ({why}): look whether it runs there"
        )


def read_token(file: str) -> str:
    """The token in a file that only its user can read. Raises EngineUnavailable."""
    path = Path(os.path.expanduser(file))
    try:
        found = private_lines(path)
    except UnicodeDecodeError as error:
        raise EngineUnavailable(f"the token in {path} can't be read: it is not text") from error
    except OSError as error:
        raise EngineUnavailable(f"the token in {path} can't be read: {error.strerror}") from error
    except ValueError as error:
        raise EngineUnavailable(str(error)) from error
    if len(found) != 1 or not found[0].isascii():
        raise EngineUnavailable(f"{path} must hold one token in one line")
    return found[0]


def private_lines(path: Path) -> list[str]:
    """The lines of a file of tokens, without blank ones and those that # begins.

    Raises OSError, UnicodeDecodeError, and ValueError if others can read it.
    """
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise ValueError(f"others can read {path}: chmod 600 it")
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _message(response: httpx.Response) -> str:
    """What a refusal says, in a line."""
    try:
        return str(response.json()["error"]["message"])[:200]
    except (ValueError, KeyError, TypeError):
        return f"HTTP {response.status_code}"
