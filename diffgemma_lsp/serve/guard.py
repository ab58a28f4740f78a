"""Who may ask, how much, and how often; before anything of a request's body is read.

On a loopback address without a token, a web page could reach the port by the user's browser: by a
form, or by a name that it has pointed at 127.0.0.1 (DNS rebinding). So the host that was asked for
and the origin that asks must be local. Elsewhere nobody is served without a token.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from diffgemma_lsp.remote_engine import private_lines

SHORTEST_TOKEN = 16
_MOST_CLIENTS = 10_000


class Refused(Exception):
    """A request that is not served. status: of HTTP; wait_s: when to try again, if that helps."""

    def __init__(self, status: int, message: str, wait_s: int | None = None) -> None:
        super().__init__(message)
        self.status, self.wait_s = status, wait_s


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens that are accepted, as hashes."""

    hashes: tuple[bytes, ...] = ()

    @classmethod
    def read(cls, file: Path) -> Tokens:
        """Those of a file, one a line; # begins a comment.

        Raises OSError, and ValueError with a line that says what is wrong with the file.
        """
        found = private_lines(file)
        if not found or min(map(len, found)) < SHORTEST_TOKEN:
            raise ValueError(f"{file} needs a token of {SHORTEST_TOKEN} characters or more a line")
        return cls(tuple(map(_hash, found)))

    def which(self, given: str) -> int | None:
        """The number of the token that was given; None if it is none. Looks at all of them, and
        takes as long whichever it is."""
        hashed, found = _hash(given), None
        for number, one in enumerate(self.hashes):
            if hmac.compare_digest(one, hashed):
                found = number
        return found


def is_loopback(host: str) -> bool:
    """Whether an address, or a name without a port, is this machine's own for itself."""
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Guard:
    """The rules of one server. per_minute: requests of one client, which is an address, or a token
    where there are some. burst: how many of them may come at once, after a rest."""

    def __init__(
        self,
        tokens: Tokens,
        per_minute: int,
        burst: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tokens, self._clock = tokens, clock
        self._rate, self._burst = per_minute / 60, float(burst)
        self._left: dict[str, tuple[float, float]] = {}

    def admit(self, headers: Headers, client: str) -> None:
        """Raises Refused unless the request may go on."""
        who = client
        if self._tokens.hashes:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            given = given.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
            number = self._tokens.which(given)
            if number is None:
                raise Refused(401, "a token is needed: Authorization: Bearer TOKEN")
            who = f"token {number}"
        else:
            _must_be_local(headers)
        self._count(who)

    def _count(self, who: str) -> None:
        now = self._clock()
        left, then = self._left.get(who, (self._burst, now))
        left = min(self._burst, left + (now - then) * self._rate)
        if left < 1:
            wait_s = math.ceil((1 - left) / self._rate)
            raise Refused(429, "too many requests: wait a moment", max(1, wait_s))
        if len(self._left) >= _MOST_CLIENTS:
            self._left.clear()
        self._left[who] = (left - 1, now)


def _must_be_local(headers: Headers) -> None:
    if not is_loopback(_name("//" + headers.get("host", ""))):
        raise Refused(403, "asked for by a name that is not this machine's: use 127.0.0.1")
    origin = headers.get("origin")
    if origin is not None and not is_loopback(_name(origin)):
        raise Refused(403, "web pages of other sites are not served here")


def _name(url: str) -> str:
    """The host that a URL names; "" if it is none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
