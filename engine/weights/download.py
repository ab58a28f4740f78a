"""A file over HTTP that no cut connection and no kill loads twice: it goes on where it was.

What is loaded lies in one file from the first byte on, written without a buffer, so that its length
is how far it has come. Whether it is the right file is for whoever checks its hash.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from io import FileIO
from pathlib import Path

import httpx

from engine.errors import ModelError
from engine.weights.index import host, reason

Progress = Callable[[int], None]
"""Called with how many bytes are there."""

TRIES = 4
"""So often in a row nothing may come before it is given up."""

_FIRST_PAUSE = 0.5  # seconds; each further one is twice as long


class _Cut(Exception):
    """The connection broke, or the server is busy: the next try may go on."""


def load(
    client: httpx.Client, url: str, part: Path, size: int, progress: Progress | None = None
) -> None:
    """Loads what is at `url` into `part` until it has `size` bytes, going on with what is there.

    Raises ModelError if the server refuses or the connection breaks again and again, and OSError
    if `part` can't be written; what was loaded stays.
    """
    furthest, tries = _length(part), 0
    while (have := _length(part)) < size:
        try:
            _go_on(client, url, part, have, size, progress)
            if _length(part) < size:
                raise _Cut("the connection was closed early")
        except _Cut as error:
            tries = 0 if _length(part) > furthest else tries + 1
            furthest = max(furthest, _length(part))
            if tries == TRIES:
                raise ModelError(f"{host(url)} can't be reached: {error}") from error
            time.sleep(_FIRST_PAUSE * 2**tries)
    if _length(part) > size:
        part.unlink()
        raise ModelError(f"what {host(url)} sent is longer than it should be: it is thrown away")


def _go_on(
    client: httpx.Client, url: str, part: Path, have: int, size: int, progress: Progress | None
) -> None:
    """One request for what is missing. Raises _Cut, ModelError or OSError."""
    # Compressed on the way, bytes would not be where the range says.
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        with client.stream("GET", url, headers=headers) as response:
            if response.status_code == 416:
                part.unlink(missing_ok=True)
                raise _Cut("it does not know the rest of the file")
            if response.status_code == 429 or response.status_code >= 500:
                raise _Cut(f"it answered {response.status_code}")
            response.raise_for_status()
            rest = response.headers.get("content-range", "").startswith(f"bytes {have}-")
            goes_on = response.status_code == 206 and rest
            if response.status_code == 206 and not rest:
                part.unlink(missing_ok=True)
                raise _Cut("it sent another part of the file than was asked for")
            # A server without ranges sends all from the beginning.
            with part.open("ab" if goes_on else "wb", buffering=0) as file:
                done = have if goes_on else 0
                for piece in response.iter_raw():
                    _write(file, piece)
                    done += len(piece)
                    if progress:
                        progress(min(done, size))
                    if done > size:
                        return
    except httpx.HTTPStatusError as error:
        raise ModelError(f"{host(url)} does not give the file: {reason(error)}") from error
    except httpx.TransportError as error:
        raise _Cut(reason(error)) from error
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
        raise ModelError(f"{host(url)} does not give the file: {reason(error)}") from error


def _write(file: FileIO, piece: bytes) -> None:
    # A disk that is nearly full takes a part of a piece, and says so only at the next one.
    rest = memoryview(piece)
    while rest:
        rest = rest[file.write(rest) :]


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
