"""A file over HTTP that no cut connection and no kill loads twice: it goes on where it was.

What is loaded lies in one file from the first byte on, written without a buffer, so that its length
is how far it has come. Whether it is the right file is for whoever checks its hash.
"""

from __future__ import annotations

import threading
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

PATIENCE = 10.0
"""Seconds that a first contact may take. A firewall that drops packets makes each address of a host
wait for its own timeout, and the name's resolver for that of another."""

_FIRST_PAUSE = 0.5  # seconds; each further one is twice as long
# Compressed on the way, bytes would not be where the range says.
_AS_IT_IS = {"Accept-Encoding": "identity"}


class _Cut(Exception):
    """The connection broke, or the server is busy: the next try may go on."""


def first_contact(client: httpx.Client, url: str, size: int) -> None:
    """Asks once for a byte of the file, to know soon whether it can be had there.

    Raises ModelError if nobody answers in time, the server refuses, or what it has is not of `size`
    bytes.
    """
    trouble: list[ModelError] = []
    answered = threading.Event()

    def ask() -> None:
        try:
            with client.stream("GET", url, headers={**_AS_IT_IS, "Range": "bytes=0-0"}) as response:
                response.raise_for_status()
                _check_length(response, url, size)
        except httpx.TransportError as error:
            trouble.append(ModelError(f"{host(url)} can't be reached: {reason(error)}"))
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            trouble.append(_refused(url, error))
        except ModelError as error:
            trouble.append(error)
        finally:
            answered.set()

    # A name that is being looked up can't be interrupted: the thread is left to itself then.
    threading.Thread(target=ask, daemon=True).start()
    if not answered.wait(PATIENCE):
        raise ModelError(f"{host(url)} can't be reached: no answer within {PATIENCE:.0f} s")
    if trouble:
        raise trouble[0]


def load(
    client: httpx.Client, url: str, part: Path, size: int, progress: Progress | None = None
) -> None:
    """Loads what is at `url` into `part` until it has `size` bytes, going on with what is there.

    Raises ModelError if the server refuses or the connection breaks again and again, and OSError
    if `part` can't be written; what was loaded stays.
    """
    furthest, tries = length(part), 0
    while (have := length(part)) < size:
        try:
            _go_on(client, url, part, have, size, progress)
            if length(part) < size:
                raise _Cut("the connection was closed early")
        except _Cut as error:
            tries = 0 if length(part) > furthest else tries + 1
            furthest = max(furthest, length(part))
            if tries == TRIES:
                raise ModelError(f"{host(url)} can't be reached: {error}") from error
            time.sleep(_FIRST_PAUSE * 2**tries)
    if length(part) > size:
        part.unlink()
        raise ModelError(f"what {host(url)} sent is longer than it should be: it is thrown away")


def _go_on(
    client: httpx.Client, url: str, part: Path, have: int, size: int, progress: Progress | None
) -> None:
    """One request for what is missing. Raises _Cut, ModelError or OSError."""
    headers = {**_AS_IT_IS, "Range": f"bytes={have}-"} if have else _AS_IT_IS
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
    except httpx.TransportError as error:
        raise _Cut(reason(error)) from error
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
        raise _refused(url, error) from error


def _check_length(response: httpx.Response, url: str, size: int) -> None:
    """Raises ModelError if the server says that the whole file is of another length."""
    said = response.headers.get("content-length", "")
    if response.status_code == 206:
        said = response.headers.get("content-range", "").rpartition("/")[2]
    if said.isdecimal() and int(said) != size:
        raise ModelError(f"{host(url)} has another file: one of {said} bytes instead of {size}")


def _refused(url: str, error: Exception) -> ModelError:
    return ModelError(f"{host(url)} does not give the file: {reason(error)}")


def _write(file: FileIO, piece: bytes) -> None:
    # A disk that is nearly full takes a part of a piece, and says so only at the next one.
    rest = memoryview(piece)
    while rest:
        rest = rest[file.write(rest) :]


def length(path: Path) -> int:
    """How many bytes of a file are here: none if it is not."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
